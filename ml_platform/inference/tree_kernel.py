"""Compiled evaluation of `tree_bits`. Importing it takes Numba, most of a second, and the first call its compiler."""

import numpy as np
from numba import njit  # noqa: TID253 - this module is imported where many rows are scored

from ml_platform.inference.tree_bits import DE_BRUIJN, TreeBits

_BLOCK = 64  # rows at a time: a bit vector of each tree for these stays in the cache
_EVERY, _FIRST = np.uint32(2**32 - 1), np.uint32(DE_BRUIJN)


def sum_trees(bits: TreeBits, matrix: np.ndarray) -> np.ndarray:
    """Scores (rows × scores, float64) of a matrix (rows × features, float64)."""
    scores = np.empty((len(matrix), bits.width))
    table = (bits.starts, bits.splits, bits.trees, bits.masks, bits.leaves, bits.targets)
    _sum(np.ascontiguousarray(matrix), *table, scores, _BLOCK)
    return scores


@njit(cache=True, nogil=True, error_model="numpy")
def _sum(matrix, starts, splits, trees, masks, leaves, targets, scores, block):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Fill `scores`. The size of a block is no constant here: loops over one would not become vector instructions."""
    count, features = matrix.shape
    left = np.empty((len(leaves), block), np.uint32)
    values, sums = np.zeros(block), np.empty((scores.shape[1], block))
    for first in range(0, count, block):
        rows = min(block, count - first)
        left[:] = _EVERY
        for feature in range(features):
            for row in range(rows):
                values[row] = matrix[first + row, feature]
            for node in range(starts[2 * feature], starts[2 * feature + 1]):
                split, mask, own = splits[node], masks[node], left[trees[node]]
                for row in range(block):
                    own[row] &= mask if values[row] > split else _EVERY
            for node in range(starts[2 * feature + 1], starts[2 * feature + 2]):
                split, mask, own = splits[node], masks[node], left[trees[node]]
                for row in range(block):
                    own[row] &= _EVERY if values[row] <= split else mask
        sums[:] = 0.0
        for tree in range(len(leaves)):
            own, values_of, total = left[tree], leaves[tree], sums[targets[tree]]
            for row in range(block):
                lowest = own[row] & (~own[row] + np.uint32(1))
                total[row] += values_of[np.uint32(lowest * _FIRST) >> np.uint32(27)]
        for row in range(rows):
            for target in range(len(sums)):
                scores[first + row, target] = sums[target, row]
