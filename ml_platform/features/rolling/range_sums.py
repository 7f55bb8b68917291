"""Sums of many ranges of one array without subtraction, so that values outside a range never affect its sum.

Differences of running totals do not have this property: after a huge value they lose the digits of small ones, and
after an infinite or missing one they are useless.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

SHORT = 256  # up to this length adding up a range costs less than looking up its blocks


def range_sums(values: "Floats", starts: "Integers", ends: "Integers") -> "Floats":
    """Sum values[start:end] for many ranges.

    Parameters
    ----------
    values
        Shape (n,).
    starts, ends
        Shape (m,), 0 ≤ start ≤ end ≤ n; fastest when both rise.

    Returns
    -------
    numpy.ndarray
        Shape (m,); 0 for an empty range.

    Examples
    --------
    >>> range_sums(np.array([1.0, 1e20, 2.0, 3.0]), np.array([0, 2, 1]), np.array([1, 4, 1])).tolist()
    [1.0, 5.0, 0.0]
    """
    lengths = ends - starts
    sums = np.zeros(len(starts))
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values, and sums of ranges that are not used
        for wanted, add_up in (
            ((lengths > 0) & (lengths <= SHORT), _added_up),
            (lengths > SHORT, _looked_up),
        ):
            if wanted.all():
                return add_up(values, starts, ends)
            if wanted.any():
                sums[wanted] = add_up(values, starts[wanted], ends[wanted])
    return sums


def _added_up(values: "Floats", starts: "Integers", ends: "Integers") -> "Floats":
    places = np.stack([starts, ends], axis=1).reshape(-1)
    sums: Floats = np.add.reduceat(np.append(values, 0.0), places)[::2]  # odd positions sum the gaps between ranges
    return sums


def _looked_up(values: "Floats", starts: "Integers", ends: "Integers") -> "Floats":
    """Look up sums of two or more values in a disjoint sparse table, level by level.

    A block of 2 ** level values holds in its left half the sums up to its middle, and in its right half those from the
    middle on. A range that spans the middle of a block is the sum of one value of each half.
    """
    sums = np.zeros(len(starts))
    lasts = ends - 1
    level = np.frexp((starts ^ lasts).astype(np.float64))[1].astype(np.uint8)
    order = np.argsort(level, kind="stable")
    bounds = np.searchsorted(level[order], np.arange(int(level.max()) + 2))
    for number in range(1, len(bounds) - 1):
        ranges = order[bounds[number] : bounds[number + 1]]
        if len(ranges):
            table = _blocks(values, 2 ** (number - 1))
            sums[ranges] = table[starts[ranges]] + table[lasts[ranges]]
    return sums


def _blocks(values: "Floats", half: int) -> "Floats":
    blocks = np.pad(values, (0, -len(values) % (2 * half))).reshape(-1, 2, half)
    left = np.cumsum(blocks[:, 0, ::-1], axis=1)[:, ::-1]
    return np.stack([left, np.cumsum(blocks[:, 1], axis=1)], axis=1).reshape(-1)
