"""One test of a column, how its sides are told, and the commonest test: is a share of the rows the same on both?"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from ml_platform.monitoring.drift.two_sample import cohens_h, two_proportions


class ColumnTest(NamedTuple):
    """One test of a column against its reference."""

    name: str  # what of the column: "distribution", "tails", "missing", …
    method: str
    distance: float
    p_value: Callable[[], float]  # computed when asked for: distances alone are often enough
    text: str  # the two sides in words and numbers

    @property
    def family(self) -> str:
        """What tests of the same kind share: those of single values are made for whichever value stands out."""
        return self.name.partition(" ")[0]


class NotComparable(ValueError):
    """Values are not of their column's kind; the message says what they are."""


def share_test(name: str, reference: float, reference_rows: float, current: float, current_rows: float) -> ColumnTest:
    """Test whether a share of the rows is the same on both sides, given as rows of all rows.

    Examples
    --------
    >>> share_test("missing", 10, 1_000, 60, 2_000).text
    'missing 1.00% → 3.00%'
    """
    old, new = reference / reference_rows, current / current_rows
    p_value = partial(two_proportions, reference, reference_rows, current, current_rows)
    return ColumnTest(name, "two proportions", cohens_h(old, new), p_value, f"{name} {old:.2%} → {new:.2%}")


def distinct_texts(values: Sequence[float], *, digits: int) -> list[str]:
    """Texts of values with so many significant digits, and with more where different values would read alike.

    Examples
    --------
    >>> distinct_texts([0.123456, 0.5, 0.5], digits=4), distinct_texts([1013.25, 1013.31], digits=4)
    (['0.1235', '0.5', '0.5'], ['1013.2', '1013.3'])
    """
    different = len(set(values))
    for precision in range(digits, 17):
        texts = [f"{value:.{precision}g}" for value in values]
        if len(set(texts)) == different:
            return texts
    return [f"{value!r}" for value in values]
