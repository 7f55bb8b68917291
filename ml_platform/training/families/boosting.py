"""What families of trees share: how long boosted ones grow, and on how many cores."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

MAX_ROUNDS = 400
EARLY_STOPPING_ROUNDS = 25
MAX_THREADS = 8  # more gain little
_ONE_THREAD_CELLS = 500_000  # smaller matrices are faster without a second thread to wait for


def threads_for(X: np.ndarray, one_thread_cells: int = _ONE_THREAD_CELLS) -> int:
    """Number of threads that pay for a matrix, of libraries that grow the same trees on any number of them.

    A matrix of up to `one_thread_cells` gets one. `OMP_NUM_THREADS` is a bound, which Ray sets for tasks that share a
    machine.
    """
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    bound = int(allowed) if allowed.isdigit() and int(allowed) > 0 else MAX_THREADS
    return min(os.cpu_count() or 1, MAX_THREADS, bound) if X.size > one_thread_cells else 1


def curve_of(results: Mapping[str, Mapping[str, Sequence[float]]] | None) -> tuple[float, ...]:
    """The first metric of the first data set, as boosting libraries record them by round; empty where there is none.

    Examples
    --------
    >>> curve_of({"valid_0": {"binary_logloss": [0.6, 0.5]}}), curve_of(None)
    ((0.6, 0.5), ())
    """
    for metrics in (results or {}).values():
        for values in metrics.values():
            return tuple(float(value) for value in values)
    return ()
