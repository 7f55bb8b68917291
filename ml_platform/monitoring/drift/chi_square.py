"""P-value of chi-square for two samples of categories, by the moments that the statistic has under the table's margins.

The chi-square distribution takes every expected count for large. Where some are next to 5 the statistic is more skewed,
and at the small p-values that many tests leave each other, it is called significant two to four times too often. Given
how often each category occurs on both sides together, undrifted rows are a draw without replacement, of which mean,
variance and third moment follow exactly from the factorial moments of the counts. Of the distributions with these three
moments a log-normal one, moved and stretched, has a tail that is long enough: down to 2e-5 undrifted draws fall below a
level as often as it says or more seldom. By a gamma distribution (Pearson's type III) it is up to 2.9 times as often.
"""

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

_DIGITS = 80  # central moments are small differences of large numbers
_LEAST_SKEWNESS = 1e-3  # a log-normal distribution is never skewed to the left; this one is all but normal
_STIRLING = {2: (0, 1, 1), 4: (0, 1, 7, 6, 1), 6: (0, 1, 31, 90, 65, 15, 1)}  # x**k by falling factorials of x

Polynomial = list[Decimal]  # in a symbol of which the k-th power stands for a factorial moment of order k


class Moments(NamedTuple):
    """Of a statistic."""

    mean: float
    variance: float
    third: float  # central


def chi_square_p_value(table: np.ndarray) -> float:
    """P-value that the two rows of a table of counts (2 × categories, at least 2) come from one distribution.

    Examples
    --------
    >>> chi_square_p_value(np.array([[500, 500, 9], [250, 250, 5]])) > 0.9
    True
    >>> chi_square_p_value(np.array([[500, 500, 500], [200, 300, 400]])) < 1e-6
    True
    """
    moments = chi_square_moments(table.sum(axis=0).astype(int).tolist(), int(table[1].sum()))
    if moments.variance <= 0:  # every draw gives the same statistic
        return 1.0
    spread = math.sqrt(moments.variance)
    skewness = moments.third / spread**3
    return _log_normal_tail((_statistic(table) - moments.mean) / spread, skewness)


def chi_square_moments(counts: Iterable[int], drawn: int) -> Moments:
    """Exact moments of the statistic when `drawn` rows are drawn from all rows, of which each category has a count.

    Examples
    --------
    >>> [round(moment, 2) for moment in chi_square_moments([400, 400, 400], 600)]  # chi-square: 2, 4, 16
    [2.0, 4.0, 15.96]
    """
    counts = list(counts)
    rows = sum(counts)
    with localcontext() as context:
        context.prec = _DIGITS
        ratios = [Decimal(_falling(drawn, order)) / Decimal(_falling(rows, order)) for order in range(7)]
        # The statistic is linear in T, the sum over the categories of x² / count, x being the rows drawn of one.
        sums = {name: [Decimal(0)] for name in ("a", "aa", "aaa", "b", "ba", "c")}
        for count in counts:
            a, b, c = (_power(count, power) for power in (2, 4, 6))
            aa = _times(a, a)
            terms = {"a": a, "aa": aa, "aaa": _times(aa, a), "b": b, "ba": _times(b, a), "c": c}
            sums = {name: _plus(total, terms[name]) for name, total in sums.items()}
        a, aa = sums["a"], sums["aa"]
        square = _plus(_plus(_times(a, a), aa, -1), sums["b"])  # pairs of different categories, and of one
        triples = _plus(_plus(_times(_times(a, a), a), _times(a, aa), -3), sums["aaa"], 2)
        cube = _plus(_plus(triples, _plus(_times(sums["b"], a), sums["ba"], -1), 3), sums["c"])
        first, second, third = (_expected(one, ratios) for one in (a, square, cube))
        scale = Decimal(rows) ** 2 / (drawn * (rows - drawn))
        return Moments(
            float((first - Decimal(drawn) ** 2 / rows) * scale),
            float((second - first**2) * scale**2),
            float((third - 3 * first * second + 2 * first**3) * scale**3),
        )


def _log_normal_tail(value: float, skewness: float) -> float:
    """Chance of more than a value under the log-normal distribution of mean 0, variance 1 and a skewness."""
    # Its skewness is u³ + 3 u, u² being e^(sigma²) − 1: solved for u.
    u = 2 * math.sinh(math.asinh(max(skewness, _LEAST_SKEWNESS) / 2) / 3)
    if u * value <= -1:
        return 1.0
    square = math.log1p(u * u)
    return math.erfc((math.log1p(u * value) + square / 2) / math.sqrt(2 * square)) / 2


def _statistic(table: np.ndarray) -> float:
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def _falling(number: int, order: int) -> int:
    return math.prod(number - step for step in range(order))


def _power(count: int, power: int) -> Polynomial:
    """x**power / count**(power / 2) of the rows x that are drawn of a category."""
    return [
        Decimal(factor * _falling(count, order)) / Decimal(count) ** (power // 2)
        for order, factor in enumerate(_STIRLING[power])
    ]


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    product = [Decimal(0)] * (len(left) + len(right) - 1)
    for first, one in enumerate(left):
        for second, other in enumerate(right):
            product[first + second] += one * other
    return product


def _plus(left: Polynomial, right: Polynomial, factor: int = 1) -> Polynomial:
    length = max(len(left), len(right))
    padded = ([*side, *[Decimal(0)] * (length - len(side))] for side in (left, right))
    return [one + factor * other for one, other in zip(*padded, strict=True)]


def _expected(polynomial: Polynomial, ratios: list[Decimal]) -> Decimal:
    # Orders beyond 6 occur with a factor of 0 alone.
    return sum((factor * ratios[order] for order, factor in enumerate(polynomial) if factor), Decimal(0))
