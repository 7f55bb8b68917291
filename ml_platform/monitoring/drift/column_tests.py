"""What is tested of one column: each test looks at one way in which a column drifts, by what its values allow.

A number is parted first, so that no test is fooled by what another is there for:

- missing values (null and NaN, which are one to a model) and ±infinity are shares of the rows;
- a value that repeats far more often than the values next to it, a sentinel such as −999 or the zero of an amount that
  is mostly absent, is a share of the finite rows too: a test of ranks hardly sees one go from 1 to 3 %;
- of what is left the distribution is compared (Kolmogorov–Smirnov), which knows neither unit nor outliers, and the
  share outside the reference's middle 99 %, since ranks say little of the tails.

A column of at most 20 values is compared value by value, as a category is (`category_tests`).

The reference side is prepared once and can be compared with many samples. Values are compared as the model sees them,
as float64: what float64 does not tell apart is the same.
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from ml_platform.monitoring.drift.category_tests import FEW_VALUES, CategoricalReference, category_tests
from ml_platform.monitoring.drift.share_test import ColumnTest, NotComparable, distinct_texts, share_test
from ml_platform.monitoring.drift.two_sample import ks_distance, ks_p_value, two_proportions

Kind = Literal["numeric", "categorical"]

_MASS_SHARE = (
    0.0025  # of the smaller side's rows: below, a value can be on neither side far more often than on the other
)
_MASS_RATIO = 10  # a value stands out when it has this many times the rows of its neighbours, on both sides together
_MAX_MASSES = 20
_TAIL = 0.005  # on each side
_GRID = 1e-6  # of the column's spread: closer values are one
_NOISE = 1e-13  # of a value: closer values differ by rounding alone
_NORMAL_IQR = 1.349  # of a normal distribution, in standard deviations
_FAR = 1e15  # cells from the centre, up to which they are of one width


class _Side(NamedTuple):
    """Finite values of a sample in rising order, and the cell of the grid that each is in."""

    values: np.ndarray
    cells: np.ndarray

    def without(self, cells: np.ndarray) -> "_Side":
        others = ~np.isin(self.cells, cells)
        return _Side(self.values[others], self.cells[others])


class NumericReference:
    """Reference side of a numeric column: numbers, booleans or instants; null and NaN are missing."""

    def __init__(self, column: pl.Series) -> None:
        values = _numbers(column)
        self.rows = len(values)
        finite = values[np.isfinite(values)]
        self.shares = _counts_of_no_number(values)
        self.centre = float(np.median(finite)) if len(finite) else 0.0
        self.spread = _spread(finite, self.centre)
        self._step = max(self.spread * _GRID, abs(self.centre) * _NOISE, np.finfo(float).tiny)
        self._side = self._on_grid(finite)
        # Each value several times: else a handful of rows of any column would count as a column of few values.
        self._few = len(np.unique(self._side.cells)) <= min(FEW_VALUES, max(1, len(finite) // 5))

    def _on_grid(self, finite: np.ndarray) -> _Side:
        """Number of each value's cell, counted from the centre: values that differ by rounding alone share one.

        Far from the centre, where float64 has no whole numbers left, cells are wider by a share of the distance: of a
        column that is nearly constant, even values next to each other are that far.
        """
        values = np.sort(finite)
        with np.errstate(over="ignore"):
            cells = (values - self.centre) / self._step
        far = np.abs(cells) > _FAR
        halves = values[far] / 2 - self.centre / 2  # whole ones could overflow
        decades = np.log(np.abs(halves)) + math.log(2) - math.log(self._step) - math.log(_FAR)
        cells[far] = np.sign(halves) * (_FAR + decades / _NOISE)
        return _Side(values, np.rint(cells) + 0.0)

    def _rounded(self, value: float) -> float:
        """A value to the digits that tell cells apart: 1e-17, left of sums that cancel out, is told as 0."""
        digits = math.ceil(-math.log10(self._step))
        return round(float(value), digits) + 0.0

    def _of_cell(self, cell: float, *sides: _Side) -> float:
        """The commonest value that was observed in a cell."""
        observed = [
            side.values[np.searchsorted(side.cells, cell) : np.searchsorted(side.cells, cell, "right")]
            for side in sides
        ]
        values, counts = np.unique(np.concatenate(observed), return_counts=True)
        return self._rounded(values[np.argmax(counts)])

    def tests(self, column: pl.Series) -> list[ColumnTest]:
        """Test other values against the reference; parts that no side has are left out."""
        values = _numbers(column)
        if not self.rows or not len(values):
            return []
        made = [
            share_test(name, count, self.rows, other, len(values))
            for (name, count), other in zip(self.shares.items(), _counts_of_no_number(values).values(), strict=True)
            if count + other
        ]
        old, new = self._side, self._on_grid(values[np.isfinite(values)])
        if not len(old.cells) or not len(new.cells):
            return made
        if self._few:
            return made + category_tests(*self._counted(old, new), name="values")
        masses = _masses(old.cells, new.cells)
        names = distinct_texts([self._of_cell(cell, old, new) for cell in masses], digits=6)
        for cell, name in zip(masses, names, strict=True):
            counts = [int(np.count_nonzero(side.cells == cell)) for side in (old, new)]
            made.append(share_test(f"value {name}", counts[0], len(old.cells), counts[1], len(new.cells)))
        rest = [side.without(masses) for side in (old, new)]
        return made + (self._distribution(*rest) if all(len(side.cells) for side in rest) else [])

    def shift(self, column: pl.Series) -> float | None:
        """How far the median moved, in robust standard deviations of the reference; None where that is undefined."""
        finite = (values := _numbers(column))[np.isfinite(values)]
        if not len(finite) or not self.spread:
            return None
        with np.errstate(over="ignore"):
            return float(np.nan_to_num((np.median(finite) - self.centre) / self.spread))

    def _distribution(self, old: _Side, new: _Side) -> list[ColumnTest]:
        distance = ks_distance(old.cells, new.cells)
        medians = distinct_texts([self._rounded(np.median(side.values)) for side in (old, new)], digits=4)
        ends = [np.quantile(side, [_TAIL, 1 - _TAIL], method="nearest") for side in old]
        low, high = ends[1]
        outside = [int(np.count_nonzero((side.cells < low) | (side.cells > high))) for side in (old, new)]
        tails = share_test("tails", outside[0], len(old.cells), outside[1], len(new.cells))
        # The bounds are the reference's own: beyond each a new row falls as if the bound itself were outside too.
        p_value = partial(two_proportions, outside[0] + 1, len(old.cells) + 1, outside[1], len(new.cells))
        bounds = " to ".join(distinct_texts([self._rounded(value) for value in ends[0]], digits=4))
        text = f"outside {bounds}: {tails.text.partition(' ')[2]}"
        return [
            ColumnTest(
                "distribution",
                "ks",
                distance,
                partial(ks_p_value, distance, len(old.cells), len(new.cells)),
                f"median {medians[0]} → {medians[1]}",
            ),
            tails._replace(p_value=p_value, text=text),
        ]

    def _counted(self, *sides: _Side) -> list[dict[str, int]]:
        cells = np.unique(np.concatenate([side.cells for side in sides]))
        names = distinct_texts([self._of_cell(cell, *sides) for cell in cells], digits=6)
        counts = [
            np.searchsorted(side.cells, cells, "right") - np.searchsorted(side.cells, cells, "left") for side in sides
        ]
        return [{name: int(number) for name, number in zip(names, count, strict=True) if number} for count in counts]


def reference_side(kind: Kind, column: pl.Series) -> NumericReference | CategoricalReference:
    """Prepare the reference side of a column of a kind.

    Raises
    ------
    NotComparable
        When its values are not of that kind; `tests` raises it of the values that it is given.

    Examples
    --------
    >>> side = reference_side("numeric", pl.Series([0.1, 0.2] * 495 + [-999.0] * 10))
    >>> [test.text for test in side.tests(pl.Series([0.1, 0.2] * 485 + [-999.0] * 30))]
    ['-999 1.00% → 3.00%']
    """
    return NumericReference(column) if kind == "numeric" else CategoricalReference(column)


def _numbers(column: pl.Series) -> np.ndarray:
    """Values as the model sees them: float64, NaN where missing."""
    try:
        numbers = (column.to_physical() if column.dtype.is_temporal() else column).cast(pl.Float64)
    except pl.exceptions.PolarsError:
        raise NotComparable(f"values are {column.dtype} and not all numbers") from None
    return numbers.fill_null(float("nan")).to_numpy()


def _counts_of_no_number(values: np.ndarray) -> dict[str, int]:
    return {
        "missing": int(np.isnan(values).sum()),
        "infinite": int(np.isposinf(values).sum()),
        "negative infinite": int(np.isneginf(values).sum()),
    }


def _spread(finite: np.ndarray, centre: float) -> float:
    """Robust standard deviation; where most values are one, of the others; 0 for a constant."""
    for values in (finite, finite[np.abs(finite - centre) > abs(centre) * _NOISE]) if len(finite) else ():
        if len(values):
            low, high = np.quantile(values, [0.25, 0.75], method="nearest")
            with np.errstate(over="ignore"):
                spread = min(float(high - low), np.finfo(float).max) / _NORMAL_IQR
            if spread > max(abs(low), abs(high)) * _NOISE:
                return spread
    return 0.0


def _masses(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Cells that stand out of their neighbours by the number of their rows; both sides are sorted."""
    # By the rows of both sides together: picked by one side's, those would be tested that chance has driven apart.
    values, counts = np.unique(np.concatenate([reference, current]), return_counts=True)
    enough = np.flatnonzero(counts >= _MASS_SHARE * min(len(reference), len(current)))
    padded = np.pad(counts.astype(float), 3, constant_values=np.nan)
    around = np.stack([padded[enough + offset] for offset in (0, 1, 2, 4, 5, 6)])
    masses = enough[counts[enough] >= _MASS_RATIO * np.nanmedian(around, axis=0)]
    return values[masses[np.argsort(-counts[masses], kind="stable")][:_MAX_MASSES]]
