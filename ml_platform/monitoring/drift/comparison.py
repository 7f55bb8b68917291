"""Two samples of rows compared column by column: what differs by more than chance, and by enough.

A column has drifted when one of its tests (`column_tests`) is significant at half of `significance / number of tests`
(Bonferroni, over all columns) and its distance reaches the threshold. Why both: with many rows every harmless
difference is significant, with few rows every distance is large. How often reports on undrifted rows alarm, with clean
and dirty columns of every kind, is measured by `benchmarks/drift_false_alarms.py`.

The verdict is ours alone. Evidently draws the columns for the report (`column_plots`) and decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
from pydantic import Field

from ml_platform.monitoring.drift.column_tests import Kind, NumericReference, reference_side
from ml_platform.monitoring.drift.share_test import ColumnTest, NotComparable
from ml_platform.spec.monitoring import Monitoring
from ml_platform.spec.types import Strict

KS_SHARE = 0.5  # of `Monitoring.distance`: a shift by d standard deviations moves a normal distribution by D = 0.4 d
# Of `Monitoring.significance`, what the tests share. Tests keep their level to within a fifth (`test_levels`): sharing
# all of it, reports would have the stated rate on average, some kinds of columns more. It is to be their bound.
SIGNIFICANCE_SHARE = 0.5
_NEW_CATEGORIES = 5  # named in a report
_SHOWN = 3  # tests named in a reason


class DriftColumn(NamedTuple):
    """A column to compare."""

    name: str
    kind: Kind
    importance: float = 0.0  # share of the model's total
    categories: tuple[str, ...] | None = None  # that the model knows: they are not new where the reference lacks them


class JudgedTest(Strict):
    """One test of a column, judged."""

    name: str = Field(description="What was compared: distribution, tails, missing, value -999, categories, …")
    method: str = Field(description="Which test it is, with what it compares.")
    p_value: float = Field(description="Two-sided p-value, before the division by the number of tests.")
    distance: float = Field(description="Distance by the test's measure, 0 for equal distributions.")
    distance_threshold: float = Field(description="Distance from which it counts.")
    drifted: bool = Field(description="Significant, and at least the threshold apart.")
    text: str = Field(description="Both sides in words and numbers.")

    @property
    def severity(self) -> float:
        """Distance over its threshold."""
        return self.distance / self.distance_threshold

    def __str__(self) -> str:
        p_value = f"p {self.p_value:.0e}" if self.p_value > 1e-99 else "p < 1e-99"
        distance = f"distance {self.distance:.2f}, threshold {self.distance_threshold:.2f}"
        return f"{self.text} ({self.method}: {distance}; {p_value})"


class ColumnDrift(Strict):
    """How one column of the current rows differs from the reference, and its worst test in one flat row of numbers."""

    column: str = Field(description="Name of the column.")
    importance: float = Field(description="Share of the model's importance; 0 for the prediction.")
    drifted: bool = Field(description="Some test of it is significant, and at least its threshold apart.")
    judged: bool = Field(description="False where nothing can be compared; `not_judged` says why.")
    not_judged: str = Field("", description="Why the column, or its values, cannot be compared.")
    kind: Kind = Field(description="Of which kind its values are, which decides the tests.")
    method: str = Field(description="Of the worst test: a drifted one before others, then by severity.")
    p_value: float | None = Field(description="p-value of its worst test, two-sided; null when none could be made.")
    p_threshold: float = Field(description="Half of the significance, shared by all tests of all columns.")
    distance: float | None = Field(
        description="Distance of its worst test, 0 for equal distributions; its measure is the test's."
    )
    distance_threshold: float | None = Field(
        description="Distance from which that test counts, raised by ordinary weeks."
    )
    shift: float | None = Field(
        None, description="Numeric: how far the median moved, in robust standard deviations of the reference."
    )
    missing_share: float = Field(description="Share of current rows without a value, 0 to 1.")
    reference_missing_share: float = Field(description="The same of the reference rows.")
    new_categories: str = Field("", description="Commonest categories that the reference lacks, with their shares.")
    severity: float | None = Field(description="Distance of the worst test over its threshold.")
    rows: int = Field(description="Current rows that were compared.")
    reference_rows: int = Field(description="Reference rows that were compared.")
    reason: str = Field(description="The finding in words and numbers; empty where there is none.")
    tests: tuple[JudgedTest, ...] = Field((), description="All its tests, judged.")


def compare(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    columns: Sequence[DriftColumn],
    monitoring: Monitoring,
    *,
    baseline: Mapping[str, float] | None = None,
) -> tuple[list[ColumnDrift], int]:
    """Compare every column and judge it by its tests and their distances.

    Parameters
    ----------
    reference, current
        Rows with all of `columns`. Rows count alike; thin out rows of unequal weight first (`equally_weighted`).
    columns
        What to compare.
    monitoring
        `significance`, of which all tests share `SIGNIFICANCE_SHARE`, and `distance`.
    baseline
        Name of a test (`full_name`) → distance that is nothing unusual for it (`baseline_distances`); the threshold is
        the larger of it and what `monitoring.distance` says.

    Returns
    -------
    tuple
        One `ColumnDrift` per column in their order; a column that cannot be compared says why. And the number of tests
        that shared the significance.
    """
    made = [_tests(column, reference[column.name], current[column.name]) for column in columns]
    count = sum(len(tests) for tests, _, _ in made)
    p_threshold = SIGNIFICANCE_SHARE * monitoring.significance / max(count, 1)
    drifts = []
    for column, (tests, shift, not_judged) in zip(columns, made, strict=True):
        results = []
        for test in tests:
            floor = monitoring.distance * (KS_SHARE if test.method == "ks" else 1.0)
            usual = _usual(column, test, baseline or {})
            results.append(_judged(test, p_threshold, max(floor, usual)))
        sides = reference[column.name], current[column.name]
        drifts.append(
            _column_drift(column, *sides, results, p_threshold=p_threshold, shift=shift, not_judged=not_judged)
        )
    return drifts, count


def full_name(column: str, test: str) -> str:
    """Name of a test of a column, over all columns.

    Examples
    --------
    >>> full_name("wind", "missing")
    'wind: missing'
    """
    return f"{column}: {test}"


def _usual(column: DriftColumn, test: ColumnTest, baseline: Mapping[str, float]) -> float:
    """Distance that is nothing unusual for a test, or for tests of its kind; 0 where that is not known."""
    names = (full_name(column.name, name) for name in (test.name, test.family))
    return next((baseline[name] for name in names if name in baseline), 0.0)


def _tests(column: DriftColumn, reference: pl.Series, current: pl.Series) -> tuple[list[ColumnTest], float | None, str]:
    """Make the tests of a column, the shift of its median, and why its values are not compared where they are not."""
    try:
        side = reference_side(column.kind, reference)
    except NotComparable as error:
        return [], None, f"in the training data its {error}"
    try:
        made = side.tests(current)
    except NotComparable as error:
        return [], None, f"in the window its {error}"
    shift = side.shift(current) if isinstance(side, NumericReference) else None
    lacking = [name for name, side in (("training data", reference), ("window", current)) if _is_empty(side)]
    return made, shift, f"no values in the {' and the '.join(lacking)}" if lacking else ""


def _is_empty(values: pl.Series) -> bool:
    return values.drop_nulls().drop_nans().is_empty() if values.dtype.is_float() else values.null_count() == len(values)


def _judged(test: ColumnTest, p_threshold: float, threshold: float) -> JudgedTest:
    p_value = test.p_value()
    return JudgedTest(
        name=test.name,
        method=test.method,
        p_value=p_value,
        distance=test.distance,
        distance_threshold=threshold,
        drifted=p_value < p_threshold and test.distance >= threshold,
        text=test.text,
    )


def _column_drift(
    column: DriftColumn,
    reference: pl.Series,
    current: pl.Series,
    results: Sequence[JudgedTest],
    *,
    p_threshold: float,
    shift: float | None,
    not_judged: str,
) -> ColumnDrift:
    results = sorted(results, key=lambda one: (not one.drifted, -one.severity))
    worst = results[0] if results else None
    drifted = [one for one in results if one.drifted]
    # Of values that hardly repeat, ids say, new ones are the rule, and a test of their own judges them.
    named = column.kind == "categorical" and results and not any(one.method == "good-turing" for one in results)
    fresh = _new_categories(column, reference, current) if named else ""
    reasons = [str(one) for one in drifted[:_SHOWN]]
    if fresh:
        reasons.append(f"new categories {fresh}")
    # A column without values on both sides tells nothing, though its missing values are alike.
    judged = bool(drifted) or not not_judged
    return ColumnDrift(
        column=column.name,
        importance=column.importance,
        drifted=bool(drifted),
        judged=judged,
        not_judged=not_judged,
        kind=column.kind,
        method=worst.method if worst else "same value",
        p_value=worst.p_value if worst else None,
        p_threshold=p_threshold,
        distance=worst.distance if worst else 0.0 if judged else None,
        distance_threshold=worst.distance_threshold if worst else None,
        shift=shift,
        missing_share=_missing_share(current),
        reference_missing_share=_missing_share(reference),
        new_categories=fresh,
        severity=worst.severity if worst else 0.0 if judged else None,
        rows=current.len(),
        reference_rows=reference.len(),
        reason="; ".join(reasons),
        tests=tuple(results),
    )


def _missing_share(values: pl.Series) -> float:
    missing = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
    return missing / max(values.len(), 1)


def _new_categories(column: DriftColumn, reference: pl.Series, current: pl.Series) -> str:
    known = {*(column.categories or ()), *reference.cast(pl.String).unique()}
    counts = current.cast(pl.String).drop_nulls().value_counts(sort=True).rows()
    fresh = [(value, count / current.len()) for value, count in counts if value not in known]
    return ", ".join(f"{value} ({share:.1%})" for value, share in fresh[:_NEW_CATEGORIES])
