"""Parity gate: the exported graph must give the trained model's scores, on real rows and on nasty ones."""

from collections.abc import Callable, Sequence

import numpy as np

from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.spec.types import Task
from ml_platform.training.documents import ParityReport
from ml_platform.training.export.thresholds import thresholds

REAL_ROWS = 2000
_ROWS_PER_FEATURE = 120


class ParityError(RuntimeError):
    """The exported graph and the trained model disagree: the model must not be released."""


def check_parity(
    native: Callable[[np.ndarray], np.ndarray],
    onnx: bytes,
    task: Task,
    features: Sequence[Feature],
    X: np.ndarray,
    *,
    tolerance: float,
    seed: int = 0,
) -> ParityReport:
    """Compare a graph with the model that was trained, on real rows and on rows derived from them by `nasty_rows`.

    Parameters
    ----------
    native
        Gives the trained model's scores of a matrix.
    onnx
        Its export.
    task
        Kind of model.
    features
        Columns of the matrix, in order.
    X
        Real rows × features.
    tolerance
        Largest difference that is rounding.
    seed
        Of the choice of rows.

    Returns
    -------
    ParityReport
        Rows compared and largest difference; for regression relative to the size of the value, or of real rows' values
        on average where that is larger.

    Raises
    ------
    ParityError
        Naming the worst row and both answers.
    """
    step = max(1, len(X) // REAL_ROWS)
    rows = np.vstack([X[::step][:REAL_ROWS], nasty_rows(onnx, features, X, seed=seed)])
    return compare(native, onnx, task, features, rows, tolerance=tolerance, real=min(len(X), REAL_ROWS))


def compare(
    native: Callable[[np.ndarray], np.ndarray],
    onnx: bytes,
    task: Task,
    features: Sequence[Feature],
    rows: np.ndarray,
    *,
    tolerance: float,
    real: int | None = None,
) -> ParityReport:
    """Compare a graph with a model on these rows alone, of which the first `real` ones are real, or all if None.

    Otherwise as `check_parity` does.
    """
    import onnxruntime

    rows = np.ascontiguousarray(rows)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    exported = session.run(["score"], {"X": rows})[0]
    wanted = native(rows)
    if exported.shape != wanted.shape:
        raise ParityError(f"export: wanted scores of shape {wanted.shape}, the graph gives {exported.shape}")
    # Values that are sums of larger ones, as the trees of XGBoost, are rounded as those are.
    usual = float(np.abs(wanted[:real]).mean())
    scale = np.maximum(max(1.0, usual), np.abs(wanted)) if task == "regression" else 1.0
    differences = np.abs(exported - wanted) / scale
    if not np.isfinite(exported).all() or differences.max() > tolerance:
        per_row = np.nan_to_num(differences, nan=np.inf).reshape(len(rows), -1).max(axis=1)
        worst = int(per_row.argmax())
        values = dict(zip((feature.name for feature in features), rows[worst].tolist(), strict=True))
        raise ParityError(
            f"export: the graph answers {exported[worst]}, the trained model {wanted[worst]} (tolerance {tolerance:g}) "
            f"for row {worst} of {len(rows)}: {values}. The model is not released; simplify the pipeline or correct "
            "its export"
        )
    return ParityReport(rows=len(rows), max_difference=float(differences.max()), tolerance=tolerance)


def nasty_rows(onnx: bytes, features: Sequence[Feature], X: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Real rows with one value changed to what a careless export gets wrong.

    For numbers: missing, zero, tiny, large, the column's own smallest and largest with values beyond, and thresholds of
    the graph's trees; of all these the neighbours one unit in the last place below and above too. For categories:
    missing and unseen. One row is missing altogether.
    """
    random = np.random.default_rng(seed)
    known = thresholds(onnx)
    made = [np.array([np.nan if feature.categories is None else MISSING_CODE for feature in features])]
    for position, feature in enumerate(features):
        if feature.categories is not None:
            last = len(feature.categories) - 1.0
            values = np.unique([MISSING_CODE, UNSEEN_CODE, min(0.0, last), last])
        else:
            some = np.array(known.get(position, [])[:: max(1, 3 * len(known.get(position, [])) // _ROWS_PER_FEATURE)])
            some = np.concatenate([some, _ends(X[:, position])])
            beside = np.concatenate([np.nextafter(some, -np.inf), some, np.nextafter(some, np.inf)])
            extremes = [np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, 1e6, -1e6, 1e12, -1e12]
            values = np.concatenate([extremes, beside])
        rows = X[random.integers(0, len(X), len(values))].copy()
        rows[:, position] = values
        made.append(rows)
    return np.vstack(made)


def _ends(column: np.ndarray) -> np.ndarray:
    """The smallest and largest of a column, and values as far beyond them as they are apart."""
    known = column[np.isfinite(column)]
    if not len(known):
        return known
    low, high = known.min(), known.max()
    return np.array([low, high, low - (high - low), high + (high - low)])
