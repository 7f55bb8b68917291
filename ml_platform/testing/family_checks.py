"""What the requirements of families share: fitting, and holding the exported graph against the estimator."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ml_platform.registry.manifest import MISSING_CODE, Calibration
from ml_platform.testing.family_data import FamilyData
from ml_platform.training.documents import ParityReport
from ml_platform.training.export.parity import check_parity
from ml_platform.training.families.base import EstimatorFamily
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.prior_correction import export_graph, predict_scores
from ml_platform.training.objective import PLAIN, Objective

_LATER = 300  # rows to stop early on


def train(
    family: EstimatorFamily,
    data: FamilyData,
    *,
    params: dict[str, Any] | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    rows: int | None = None,
    objective: Objective = PLAIN,
) -> Any:
    """Train on the first rows of some data, with the family's default parameters where none are given."""
    chosen = family.default_params(data.task) if params is None else params
    X, y = data.X[:rows], data.y[:rows]
    return train_estimator(family, data.task, data.features, chosen, 0, X, y, validation, objective=objective)


def check_export(family: EstimatorFamily, data: FamilyData) -> None:
    """Train on all rows, stopping early on some of them to be quick, and hold the export against the estimator."""
    estimator = train(family, data, validation=(data.X[-200:], data.y[-200:]))
    onnx = family.export(estimator, data.task, data.features)
    check_scores(family, estimator, onnx, data)
    check_explanation(family, onnx, data)


def check_objective(family: EstimatorFamily, data: FamilyData, objective: Objective) -> bytes:
    """Train on all but the last rows, stop early on these, and hold the export against the estimator.

    Returns
    -------
    bytes
        The graph.
    """
    first, later = slice(None, -_LATER), slice(-_LATER, None)
    if (weights := objective.weights) is not None:
        objective = replace(objective, weights=weights[first], validation_weights=weights[later])
    known = FamilyData(data.task, data.features, data.X[first], data.y[first])
    estimator = train(family, known, validation=(data.X[later], data.y[later]), objective=objective)
    onnx = export_graph(family, estimator, data.task, data.features, objective.class_weights)
    check_scores(family, estimator, onnx, known, objective.class_weights)
    check_explanation(family, onnx, known)
    return onnx


def check_scores(
    family: EstimatorFamily,
    estimator: Any,
    onnx: bytes,
    data: FamilyData,
    class_weights: Sequence[float] | None = None,
) -> ParityReport:
    """Hold the graph's scores against the estimator's, on real rows and on nasty ones."""
    native = functools.partial(predict_scores, family, estimator, data.task, class_weights=class_weights)
    scores = native(data.X)
    wanted = (len(data.X), int(data.y.max()) + 1) if data.task == "multiclass" else (len(data.X),)
    hold(
        scores.shape == wanted and scores.dtype == np.float64, f"float64 scores {wanted}", (scores.shape, scores.dtype)
    )
    if data.task != "regression":
        hold(bool(((scores >= 0) & (scores <= 1)).all()), "probabilities", (scores.min(), scores.max()))
    return check_parity(native, onnx, data.task, data.features, data.X, tolerance=family.info.tolerance)


def check_signature(onnx: bytes, data: FamilyData) -> None:
    """Hold input and output to what the manifest promises."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    signature = [(one.name, one.type) for one in (*session.get_inputs(), *session.get_outputs())]
    hold(
        signature == [("X", "tensor(double)"), ("score", "tensor(double)")],
        "double input X and output score",
        signature,
    )
    (alone,) = session.run(["score"], {"X": data.X[:1]})
    (together,) = session.run(["score"], {"X": data.X[:50]})
    hold_near(alone[0], together[0], 1e-12, "a row's score to be the same alone as among others")


def check_explanation(
    family: EstimatorFamily, onnx: bytes, data: FamilyData, calibration: Calibration | None = None
) -> None:
    """Base and contributions add up to the raw score, whose probability is the score; nothing to check without one.

    Where they add up to a probability before its calibration, that has to be calibrated first.
    """
    import onnxruntime

    from ml_platform.inference.calibration import CalibratedExplainer, calibrated
    from ml_platform.inference.explain import METADATA_KEY, unpack

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        return
    explainer = unpack(text, len(data.features))
    before = calibration if explainer.probabilities else None
    if calibration is not None and before is None:
        explainer = CalibratedExplainer(explainer, calibration)
    empty = [np.nan if feature.categories is None else MISSING_CODE for feature in data.features]
    rows = np.vstack([data.X[:5], [empty]])
    explained = explainer.explain(rows)
    raw = explained.base + explained.contributions.sum(axis=2)
    if data.task == "regression" or explainer.probabilities:
        scores = raw
    elif data.task == "binary":
        scores = 1 / (1 + np.exp(-raw))
    else:
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
    (wanted,) = session.run(["score"], {"X": rows})
    found = calibrated(before, scores if data.task == "multiclass" else scores[:, 0])
    hold_near(found, wanted, max(1e-8, family.info.tolerance), "base and contributions to add up to the score")


def check_calibration(family: EstimatorFamily, onnx: bytes, data: FamilyData) -> None:
    """Calibrated, the graph of a classifier gives what calibration makes of its scores, and is explained; twice too."""
    from ml_platform.training.export.calibrated_graph import calibrate_graph, check_calibrated, uncalibrated_graph

    shifts = (0.3,) if data.task == "binary" else tuple(np.linspace(-0.4, 0.2, len(np.unique(data.y))).tolist())
    numbers: dict[str, Any] = {"fitted_on": "validation", "fitted_from": "", "fitted_until": "", "rows": 0}
    numbers |= {"error_before": 0.0, "error_after": 0.0}
    first = Calibration(slope=1.4, shifts=shifts, floor=1e-11, **numbers)
    second = Calibration(slope=0.7, shifts=tuple(-shift for shift in shifts), floor=1e-12, **numbers)
    once = calibrate_graph(onnx, data.task, first)
    twice = calibrate_graph(once, data.task, second)
    hold(uncalibrated_graph(twice) == onnx, "the graph without its calibration to be what it was", "another graph")
    hold(twice == calibrate_graph(onnx, data.task, second), "a new calibration in place of the first", "another graph")
    for graph, calibration in ((once, first), (twice, second)):
        check_calibrated(graph, onnx, calibration, data.task, data.features, data.X)
        check_signature(graph, data)
        check_explanation(family, graph, data, calibration)


def graph_scores(onnx: bytes, X: np.ndarray) -> np.ndarray:
    """Scores of a graph for a matrix (rows × features)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(["score"], {"X": X})[0]
    return scores


def hold(held: bool, wanted: str, found: object) -> None:
    """Raise AssertionError unless something held."""
    if not held:
        raise AssertionError(f"wanted {wanted}, found {found}")


def hold_near(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    """Hold numbers to others, relative to their size from 1 on."""
    apart = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
    hold(bool((apart <= tolerance).all()), f"{what} (tolerance {tolerance:g})", f"a difference of {apart.max():g}")
