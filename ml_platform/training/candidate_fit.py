"""Train one family with given parameters on given rows, and export it: what training and a refit on more rows share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.calibration import calibrated
from ml_platform.inference.matrix import FeatureEncoder, encode_labels, label_classes
from ml_platform.registry.manifest import Calibration, Feature, Label
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import window
from ml_platform.training.documents import DistributedFit, ParityReport, Window
from ml_platform.training.evaluation.metrics import shares
from ml_platform.training.export.calibrated_graph import calibrate_graph, check_calibrated
from ml_platform.training.export.parity import check_parity
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.prior_correction import export_graph, predict_scores
from ml_platform.training.families.registry import get_family
from ml_platform.training.objective import Objective, weighted_rows

ROUNDS = "n_estimators"  # parameter of boosted trees
_IMPORTANCE_ROWS = 5000


class NotExportable(RuntimeError):
    """A trained model has no graph that gives its scores; the message is the reason."""


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator, and the rows that it learned from."""

    family: str
    estimator: Any
    encoder: FeatureEncoder
    classes: tuple[Label, ...]
    X: np.ndarray
    trained: Window
    spec: ModelSpec
    class_weights: tuple[float, ...] | None = None  # that scores are corrected for
    calibration: Calibration | None = None
    distributed: DistributedFit | None = None  # then `X` are some of the rows

    @property
    def features(self) -> tuple[Feature, ...]:
        """Columns of the matrix, in order."""
        return self.encoder.features

    @property
    def family_name(self) -> str:
        """What the family is called, also where it is named by the path of its class."""
        return get_family(self.family).info.name

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """Score rows: (rows,), or (rows × classes) for multiclass."""
        return calibrated(self.calibration, self._predict(self.encoder.transform(rows)))

    def _predict(self, X: np.ndarray) -> np.ndarray:
        return predict_scores(get_family(self.family), self.estimator, self.spec.task, X, self.class_weights)

    def importance(self) -> dict[str, float]:
        """Share of each feature in the model, largest first."""
        return shares(
            get_family(self.family).importance(
                self.estimator, self.spec.task, self.features, self.X[-_IMPORTANCE_ROWS:]
            )
        )

    def fitted_params(self, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """Parameters of a candidate, with the number of rounds that workers found."""
        return dict(params) if self.distributed is None else {**params, ROUNDS: self.distributed.rounds}

    def native_files(self) -> dict[str, bytes]:
        """The model in its library's own data format, by file name."""
        return get_family(self.family).native_files(self.estimator)

    def export(self) -> tuple[bytes, ParityReport]:
        """Export to ONNX, and compare the graph with the estimator.

        Raises
        ------
        NotExportable
            When the exporter refuses the model, or the graph answers otherwise.
        """
        spec, family = self.spec, get_family(self.family)
        try:
            onnx = export_graph(family, self.estimator, spec.task, self.features, self.class_weights)
            parity = check_parity(
                self._predict,
                onnx,
                spec.task,
                self.features,
                self.X,
                tolerance=family.info.tolerance,
                seed=spec.tuning.seed,
            )
            if self.calibration is not None:
                without, onnx = onnx, calibrate_graph(onnx, spec.task, self.calibration)
                added = check_calibrated(onnx, without, self.calibration, spec.task, self.features, self.X)
                largest = max(parity.max_difference, added.max_difference)
                parity = parity.model_copy(update={"max_difference": largest})
        except Exception as error:  # whatever a converter or the runtime raises: the reason is told, not lost
            raise NotExportable(f"{type(error).__name__}: {error}") from error
        return onnx, parity


def fit_candidate(
    spec: ModelSpec,
    features: Sequence[FeatureInfo],
    rows: pl.DataFrame,
    family: str,
    params: Mapping[str, Parameter],
) -> Fitted:
    """Train a family with fixed parameters on all of some rows.

    Parameters
    ----------
    spec
        The model.
    features
        Its features, as the document of the training set names them.
    rows
        Labelled rows of the training set, sorted by timestamp and id; those of weight 0 are left out.
    family, params
        As a candidate of the search has them.

    Raises
    ------
    ValueError
        When a label is not one of the task's, or all rows have the same class.
    """
    rows = weighted_rows(rows, spec)
    labels = rows.get_column(spec.target)
    classes = label_classes(labels) if spec.task == "multiclass" else ()
    y = encode_labels(labels, spec, classes)
    require_classes(spec, y)
    encoder = FeatureEncoder.fit(rows, features, None if spec.task == "multiclass" else y)
    X = encoder.transform(rows)
    objective = Objective.of(spec, encoder.features, rows, y, classes=classes)
    estimator = train_estimator(
        get_family(family), spec.task, encoder.features, params, spec.tuning.seed, X, y, objective=objective
    )
    return Fitted(family, estimator, encoder, classes, X, window(rows, spec), spec, objective.class_weights)


def require_classes(spec: ModelSpec, y: np.ndarray) -> None:
    """Refuse training rows of a single class, of which a classifier learns nothing (raises ValueError)."""
    if spec.task != "regression" and len(np.unique(y)) < 2:
        raise single_class(spec, len(y))


def single_class(spec: ModelSpec, rows: int) -> ValueError:
    """Say that all of so many training rows have the same label."""
    return ValueError(
        f"{spec.name}: all {rows} training rows have the same label; a classifier needs two or more. "
        "Materialise a longer range or correct the spine's target"
    )
