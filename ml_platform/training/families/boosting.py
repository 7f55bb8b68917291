"""What families of trees share: how long boosted ones grow, and on how many cores."""

import os

import numpy as np

MAX_ROUNDS = 400
EARLY_STOPPING_ROUNDS = 25
MAX_THREADS = 8  # more gain little
_ONE_THREAD_CELLS = 500_000  # smaller matrices are faster without a second thread to wait for


def threads_for(X: np.ndarray, one_thread_cells: int = _ONE_THREAD_CELLS) -> int:
    """Number of threads that pay for a matrix, of libraries that grow the same trees on any number of them.

    A matrix of up to `one_thread_cells` gets one.
    """
    return min(os.cpu_count() or 1, MAX_THREADS) if X.size > one_thread_cells else 1
