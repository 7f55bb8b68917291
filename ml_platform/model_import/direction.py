"""Whether a binary model was told the right class for true: one that ranks the other way round is refused."""

import shlex

import numpy as np
import polars as pl

from ml_platform.inference.matrix import encode_labels
from ml_platform.model_import.claims import Claims
from ml_platform.model_import.foreign import ForeignModel
from ml_platform.model_import.library_parity import ImportedModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.training.evaluation.blocks import DAY, block_ids
from ml_platform.training.evaluation.cluster_interval import ClusterInterval, metric_interval

_CHANCE = 0.5  # roc_auc of a ranking that knows nothing


def check_direction(imported: ImportedModel, model: ForeignModel, claims: Claims, holdout: pl.DataFrame) -> None:
    """Refuse a binary model whose ROC AUC on the holdout is below one half, its whole interval.

    Parameters
    ----------
    imported, model, claims
        The bound model, what was read of it, and what who imports it says.
    holdout
        Rows to judge it on.

    Raises
    ------
    ImportRefused
        When it ranks the other way round, with the option that turns it.
    """
    spec = imported.spec
    if spec.task != "binary":
        return
    y, score = encode_labels(holdout.get_column(spec.target), spec), imported.predict(holdout)
    days, rows = block_ids(holdout, DAY, spec.timestamp), np.arange(holdout.height)
    interval = next((one for one in (_interval(y, score, blocks) for blocks in (days, rows)) if one is not None), None)
    if interval is None or interval.upper >= _CHANCE:
        return
    own = claims.declared.classes or model.classes or (0, 1)
    other = shlex.quote(str(own[1 - imported.positive]))
    raise ImportRefused(
        f"roc_auc on the holdout is {interval.estimate:.4g} ({interval.lower:.4g} to {interval.upper:.4g}), less than "
        f"{_CHANCE} of a ranking by chance. The other way round? --positive {other}. If {own[imported.positive]} does "
        "mean true, check the order and the units of the inputs"
    )


def _interval(y: np.ndarray, score: np.ndarray, blocks: np.ndarray) -> ClusterInterval | None:
    return metric_interval("roc_auc", "binary", y, score, blocks=blocks)
