"""What families must hold that take weights, a quantile or monotone features, as their `FamilyInfo` says."""

from dataclasses import replace

import numpy as np

from ml_platform.spec.types import Task
from ml_platform.testing.family_checks import check_objective, graph_scores, hold
from ml_platform.testing.family_data import FEATURES, FamilyData, draw, draw_monotone, draw_rare, draw_skewed
from ml_platform.training.families.base import EstimatorFamily
from ml_platform.training.objective import Objective

_GRID = 60


def row_weights(family: EstimatorFamily, task: Task) -> None:
    """Of rows that contradict each other, those that weigh more decide."""
    data, other = draw(task, 900), draw(task, 900)
    heavy = np.arange(len(data.y)) % 2 == 0
    contrary = -other.y if task == "regression" else other.y.max() - other.y
    mixed = replace(data, y=np.where(heavy, data.y, contrary))
    onnx = check_objective(family, mixed, Objective(weights=np.where(heavy, 20.0, 0.5)))
    scores = graph_scores(onnx, data.X)
    value = scores @ np.arange(scores.shape[1]) if task == "multiclass" else scores
    agreement = float(np.corrcoef(value, data.y)[0, 1])
    hold(agreement > 0.5, "scores that follow the heavy rows (correlation above 0.5)", agreement)


def class_weights(family: EstimatorFamily, task: Task) -> None:
    """Probabilities of rare classes stay probabilities: on average the share of the class, whatever its weight."""
    data = draw_rare(task, 1_300)
    classes = int(data.y.max()) + 1
    shares = np.bincount(data.y.astype(np.int64)) / len(data.y)
    weights = tuple((1 / (classes * shares)).tolist())
    onnx = check_objective(family, data, Objective(class_weights=weights, weights=np.full(len(data.y), 3.0)))
    scores = graph_scores(onnx, data.X)
    mean = scores.mean(axis=0) if task == "multiclass" else np.array([1 - scores.mean(), scores.mean()])
    hold(
        bool((np.abs(mean - shares) < 0.06).all()),
        f"mean probabilities near the classes' shares {shares.round(3)}",
        mean.round(3),
    )
    hold(scores.std() > 0.02, "scores that tell rows apart", scores.std())


def monotone(family: EstimatorFamily, task: Task) -> None:
    """The graph's score never falls with one feature and never rises with another, whatever the others are."""
    data = draw_monotone(task, 900)
    signs = tuple({"signal": 1, "rarely": -1}.get(feature.name, 0) for feature in FEATURES)
    onnx = check_objective(family, data, Objective(monotone=signs))
    for position in np.flatnonzero(signs):
        column = data.X[:, position]
        known = column[~np.isnan(column)]
        grid = np.unique(np.concatenate([np.linspace(known.min() - 1, known.max() + 1, _GRID), np.sort(known)[::20]]))
        rows = np.repeat(data.X[:80], len(grid), axis=0)
        rows[:, position] = np.tile(grid, 80)
        steps = np.diff(graph_scores(onnx, rows).reshape(80, len(grid)), axis=1) * signs[position]
        hold(steps.min() >= -1e-12, f"scores monotone in '{FEATURES[position].name}'", f"a step of {steps.min():g}")
        hold(steps.max() > 0, f"scores that use '{FEATURES[position].name}'", "none that moves")


def quantile(family: EstimatorFamily, task: Task) -> None:
    """The labels of new rows are at most the score in about the share of them that the quantile says."""
    data, new = draw_skewed(task, 2_000, seed=5), draw_skewed(task, 2_000, seed=6)
    for wanted in (0.1, 0.9):
        onnx = check_objective(family, data, Objective(quantile=wanted))
        coverage = float((new.y <= graph_scores(onnx, new.X)).mean())
        hold(abs(coverage - wanted) < 0.06, f"a coverage near {wanted}", coverage)


def typed_rows(family: EstimatorFamily, task: Task) -> None:
    """Flags, epoch seconds of instants, and a text with thousands of values, encoded as training does it."""
    check_objective(family, typed_data(task, 900), Objective())


def typed_data(task: Task, rows: int) -> FamilyData:
    """Rows of a frame with a boolean, an instant's epoch seconds and a text of many values, through the encoder."""
    import polars as pl

    from ml_platform.features.training_sets.documents import FeatureInfo
    from ml_platform.inference.matrix import FeatureEncoder

    labels = draw(task, rows)
    random = np.random.default_rng(7)
    names = random.zipf(1.3, rows)
    frame = pl.DataFrame(
        {
            "is_member": pl.Series(labels.X[:, 3] > 0).set(pl.Series(random.random(rows) < 0.1), None),
            "placed": pl.Series(1_700_000_000 + random.integers(0, 10_000_000, rows)).cast(pl.Datetime("us", "UTC")),
            "account": pl.Series([None if name % 17 == 0 else f"account {name}" for name in names]),
            "signal": labels.X[:, 0],
        }
    ).with_columns(pl.col("placed").dt.epoch("us").cast(pl.Float64))
    kinds = {"is_member": "numeric", "placed": "numeric", "account": "categorical", "signal": "numeric"}
    infos = [FeatureInfo.model_validate({"name": n, "kind": kind, "source": "input"}) for n, kind in kinds.items()]
    encoder = FeatureEncoder.fit(frame, infos, None if task == "multiclass" else labels.y)
    return FamilyData(task, encoder.features, encoder.transform(frame), labels.y)
