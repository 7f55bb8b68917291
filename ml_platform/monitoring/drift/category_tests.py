"""Tests of a column's categories, or of numbers that have only a few values: the common, the rare, the unseen.

Categories that are rare on both sides together are pooled by a hash of their text, and where they hold 5 % of the rows
and more, as ids do, the share of values that the reference lacks is held against the share that it foretells
(Good–Turing).
"""

from collections.abc import Iterable
from functools import partial
from zlib import crc32

import numpy as np
import polars as pl

from ml_platform.monitoring.drift.share_test import ColumnTest, NotComparable, share_test
from ml_platform.monitoring.drift.two_sample import (
    SMALLEST_EXPECTED,
    cohens_h,
    jensen_shannon,
    two_sample_chi_square,
    unseen_share,
)

FEW_VALUES = 20
_COMMON_SHARE = 0.005  # of both sides' rows: a category that is compared by itself
_BUCKETS = 32  # for all others
_UNSEEN_FROM = 0.05  # share of rare categories from which unseen ones are counted


class CategoricalReference:
    """Reference side of a categorical column; null is missing."""

    def __init__(self, column: pl.Series) -> None:
        values = _texts(column)
        self.rows = len(values)
        self._missing = values.null_count()
        self._counts = _counted(values)

    def tests(self, column: pl.Series) -> list[ColumnTest]:
        """Test other values against the reference."""
        values = _texts(column)
        if not self.rows or not len(values):
            return []
        counts = _counted(values)
        made = []
        if self._missing + values.null_count():
            made.append(share_test("missing", self._missing, self.rows, values.null_count(), len(values)))
        if self._counts and counts:
            made += category_tests(self._counts, counts, name="categories")
        return made


def category_tests(reference: dict[str, int], current: dict[str, int], *, name: str) -> list[ColumnTest]:
    """Test the counts of two samples of categories: the common ones and the hashed rare ones, the rare, the unseen."""
    rows, new_rows = sum(reference.values()), sum(current.values())
    common = _common(reference, current)
    cells = [_in_cells(counts, common) for counts in (reference, current)]
    rare = [sum(count for value, count in side.items() if value not in common) for side in (reference, current)]
    made = []
    if len(common) + (sum(rare) >= _fewest(rows, new_rows)) > 1:
        apart = {
            cell: cohens_h(cells[0].get(cell, 0) / rows, cells[1].get(cell, 0) / new_rows)
            for cell in sorted({*cells[0], *cells[1]} & common)
        }
        # Of two values both are as far apart: the rarer one tells more.
        worst = max(apart, key=lambda cell: (round(apart[cell], 9), -cells[0].get(cell, 0)), default=None)
        shift = [cells[side].get(worst, 0) / total for side, total in ((0, rows), (1, new_rows))] if worst else []
        text = f"{worst} {shift[0]:.2%} → {shift[1]:.2%}" if worst else "rare categories"
        distance = max(jensen_shannon(*cells), *apart.values(), 0.0)
        method = "chi-square" if len({*cells[0], *cells[1]}) > 2 else "two proportions"
        made.append(ColumnTest(name, method, distance, partial(two_sample_chi_square, *cells), text))
    if sum(rare):
        made.append(share_test(f"rare {name}", rare[0], rows, rare[1], new_rows))
    if sum(rare) / (rows + new_rows) >= _UNSEEN_FROM and len(reference) > FEW_VALUES:
        share, worth = unseen_share(np.array(list(reference.values())))
        unseen = sum(count for value, count in current.items() if value not in reference)
        # Fewer than foretold are no harm: rows of the training set itself, scored again, have none.
        test = share_test("unseen categories", share * worth, worth, max(unseen, share * new_rows), new_rows)
        text = f"unseen categories {unseen / new_rows:.1%} of the rows, expected {share:.1%}"
        made.append(test._replace(method="good-turing", text=text))
    return made


def _texts(column: pl.Series) -> pl.Series:
    try:
        if column.dtype.is_nested() or column.dtype == pl.Binary:
            raise pl.exceptions.InvalidOperationError
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise NotComparable(f"values are {column.dtype}, which are no categories") from None


def _counted(values: pl.Series) -> dict[str, int]:
    return dict(values.drop_nulls().value_counts().iter_rows())


def _common(reference: dict[str, int], current: dict[str, int]) -> set[str]:
    """Categories with enough rows on both sides together to be compared by themselves."""
    rows, new_rows = sum(reference.values()), sum(current.values())
    fewest = max(_COMMON_SHARE * (rows + new_rows), _fewest(rows, new_rows))
    return {value for value in {*reference, *current} if reference.get(value, 0) + current.get(value, 0) >= fewest}


def _fewest(rows: int, new_rows: int) -> float:
    """Rows on both sides together with which enough are expected on the smaller one for a chi-square test."""
    return SMALLEST_EXPECTED * (rows + new_rows) / min(rows, new_rows)


def _in_cells(counts: dict[str, int], common: Iterable[str]) -> dict[str, int]:
    cells: dict[str, int] = {}
    for value, count in counts.items():
        cell = value if value in common else f"(rare {crc32(value.encode()) % _BUCKETS})"
        cells[cell] = cells.get(cell, 0) + count
    return cells
