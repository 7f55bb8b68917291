"""P-value of chi-square for two samples of categories, by the moments that the statistic has under the table's margins.

The chi-square distribution takes every expected count for large. Where some are next to 5 the statistic is more skewed,
and at the small p-values that many tests leave each other, it is called significant two to four times too often. Given
how often each category occurs on both sides together, undrifted rows are a draw without replacement, of which the first
four moments follow exactly from the factorial moments of the counts.

Two distributions, moved and stretched, have the first three: a gamma distribution (Pearson's type III, which
chi-square is) and a log-normal one, whose tail is longer. Where few rows are expected of some categories, the gamma
distribution calls up to twice as many undrifted draws significant as it says; where many are of all, the log-normal one
calls a fifth as many and finds less of what has drifted. The fourth moment says how far the statistic is between the
two, and so far between their tails, on a scale of logarithms, is the p-value. `benchmarks/drift_chi_square_power.py`
has the levels, and the power beside that of a permutation test.
"""

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

_DIGITS = 100  # central moments are small differences of large numbers
_LEAST_SKEWNESS = 1e-3  # neither distribution is skewed to the left; these are all but normal
_ORDER = 8  # of the factorial moments: the fourth moment of sums of squares
_STIRLING = {  # x**k by falling factorials of x
    2: (0, 1, 1),
    4: (0, 1, 7, 6, 1),
    6: (0, 1, 31, 90, 65, 15, 1),
    8: (0, 1, 127, 966, 1701, 1050, 266, 28, 1),
}

Polynomial = list[Decimal]  # in a symbol of which the k-th power stands for a factorial moment of order k


class Moments(NamedTuple):
    """Of a statistic."""

    mean: float
    variance: float
    third: float  # central
    fourth: float  # central


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
    return upper_tail(_statistic(table), moments)


def upper_tail(statistic: float, moments: Moments) -> float:
    """Chance that a statistic of these moments, skewed to the right, is at least as large.

    Examples
    --------
    >>> chi_square = Moments(mean=2, variance=4, third=16, fourth=144)  # of two degrees of freedom
    >>> round(upper_tail(9.21, chi_square), 4)
    0.01
    """
    if moments.variance <= 0:  # every draw gives the same statistic
        return 1.0
    spread = math.sqrt(moments.variance)
    value = (statistic - moments.mean) / spread
    skewness = max(moments.third / spread**3, _LEAST_SKEWNESS)
    short, long = _gamma_tail(value, skewness), _log_normal_tail(value, skewness)
    of_gamma, of_log_normal = 1.5 * skewness**2, _log_normal_kurtosis(skewness)
    kurtosis = moments.fourth / moments.variance**2 - 3
    share = min(max((kurtosis - of_gamma) / (of_log_normal - of_gamma), 0.0), 1.0)
    return float(short ** (1 - share) * long**share)


def chi_square_moments(counts: Iterable[int], drawn: int) -> Moments:
    """Exact moments of the statistic when `drawn` rows are drawn from all rows, of which each category has a count.

    Examples
    --------
    >>> moments = chi_square_moments([400, 400, 400], 600)  # of chi-square: 2, 4, 16, 144
    >>> [round(moment, 2) for moment in moments]
    [2.0, 4.0, 15.96, 143.36]
    """
    counts = list(counts)
    rows = sum(counts)
    with localcontext() as context:
        context.prec = _DIGITS
        # The statistic is linear in T, the sum over the categories of x² / count, x being the rows drawn of one. In
        # the symbol the categories are independent, so what would be the cumulants of T is a sum over them.
        first, second, third, fourth = ([Decimal(0)] for _ in range(4))
        for count in counts:
            a, b, c, d = (_power(count, power) for power in (2, 4, 6, 8))
            aa = _times(a, a)
            first = _sum((1, first), (1, a))
            second = _sum((1, second), (1, b), (-1, aa))
            third = _sum((1, third), (1, c), (-3, _times(a, b)), (2, _times(aa, a)))
            fourth = _sum(
                (1, fourth), (1, d), (-4, _times(a, c)), (-3, _times(b, b)), (12, _times(aa, b)), (-6, _times(aa, aa))
            )
        square = _times(first, first)
        powers = (
            first,
            _sum((1, second), (1, square)),
            _sum((1, third), (3, _times(first, second)), (1, _times(square, first))),
            _sum(
                (1, fourth),
                (4, _times(first, third)),
                (3, _times(second, second)),
                (6, _times(square, second)),
                (1, _times(square, square)),
            ),
        )
        ratios = [Decimal(_falling(drawn, k)) / Decimal(max(_falling(rows, k), 1)) for k in range(_ORDER + 1)]
        m1, m2, m3, m4 = (_expected(power, ratios) for power in powers)
        scale = Decimal(rows) ** 2 / (drawn * (rows - drawn))
        return Moments(
            float((m1 - Decimal(drawn) ** 2 / rows) * scale),
            float((m2 - m1**2) * scale**2),
            float((m3 - 3 * m1 * m2 + 2 * m1**3) * scale**3),
            float((m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) * scale**4),
        )


def _gamma_tail(value: float, skewness: float) -> float:
    """Chance of more than a value under the gamma distribution of mean 0, variance 1 and a skewness."""
    from scipy.special import gammaincc

    shape = 4 / skewness**2
    return float(gammaincc(shape, max(shape + value * math.sqrt(shape), 0.0)))


def _log_normal_tail(value: float, skewness: float) -> float:
    """Chance of more than a value under the log-normal distribution of mean 0, variance 1 and a skewness."""
    u = _log_normal_u(skewness)
    if u * value <= -1:
        return 1.0
    square = math.log1p(u * u)
    return math.erfc((math.log1p(u * value) + square / 2) / math.sqrt(2 * square)) / 2


def _log_normal_kurtosis(skewness: float) -> float:
    """Excess kurtosis of the log-normal distribution of a skewness: w⁴ + 2 w³ + 3 w² − 6, w being e^(sigma²)."""
    square = _log_normal_u(skewness) ** 2
    return square * (16 + square * (15 + square * (6 + square)))


def _log_normal_u(skewness: float) -> float:
    """Coefficient of variation of the log-normal distribution of a skewness, which is u³ + 3 u: solved for u."""
    return 2 * math.sinh(math.asinh(skewness / 2) / 3)


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


def _sum(*terms: tuple[int, Polynomial]) -> Polynomial:
    """Sum of polynomials, each with its factor."""
    total = [Decimal(0)] * max(len(polynomial) for _, polynomial in terms)
    for factor, polynomial in terms:
        for order, coefficient in enumerate(polynomial):
            total[order] += factor * coefficient
    return total


def _expected(polynomial: Polynomial, ratios: list[Decimal]) -> Decimal:
    # Orders beyond 8 occur with a factor of 0 alone.
    return sum((factor * ratios[order] for order, factor in enumerate(polynomial[: _ORDER + 1])), Decimal(0))
