"""Two samples of rows compared column by column with Evidently: what differs by more than chance, and by enough.

A column has drifted when both hold: its test is significant at `significance / number of tests` (Bonferroni), and its
distance reaches the column's threshold. Why both, measured on undrifted data of 30 columns, as the share of reports
that alarm on some column: p < 0.05 73–78 %; Bonferroni alone 2.5–6 %, but with many rows every harmless difference is
significant; distance ≥ 0.1 alone 93 % at 1,000 rows and 0.5 % at 10,000; both together 2 % at 1,000 and 0 at 10,000,
while a shift of one column by 0.25 standard deviations is found in 95 and 100 % (`benchmarks/drift_false_alarms.py`).

Numeric columns: Kolmogorov–Smirnov, and the Wasserstein distance in standard deviations of the reference, which grows
with the shift itself; Jensen–Shannon on bins answers to an outlier that stretches the bins. Categorical columns: a
chi-square test of two samples, and the Jensen–Shannon distance of the shares. Missing values of numeric columns are a
category of their own (missing or not), since a test of values does not see them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl
from pydantic import Field

from ml_platform.monitoring.two_sample import kolmogorov_smirnov, two_sample_chi_square
from ml_platform.spec import Monitoring
from ml_platform.spec_types import Strict

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

Kind = Literal["numeric", "categorical"]

MISSING = "(missing)"
OTHER = "(other)"
METHODS: dict[Kind, tuple[str, str]] = {"numeric": ("ks", "wasserstein"), "categorical": ("chisquare", "jensenshannon")}
_TOP_CATEGORIES = 50  # compared one by one where the manifest names none
_NEW_CATEGORIES = 5  # named in a report


class Column(NamedTuple):
    """A column to compare."""

    name: str
    kind: Kind
    importance: float = 0.0  # share of the model's total
    categories: tuple[str, ...] | None = None  # that the model knows; the rest is one to it


class Difference(NamedTuple):
    """One test and one distance."""

    method: str
    p_value: float
    p_threshold: float
    distance: float
    distance_threshold: float

    @property
    def drifted(self) -> bool:
        """Significant and large."""
        return self.p_value < self.p_threshold and self.distance >= self.distance_threshold

    def __str__(self) -> str:
        measure = self.method.split(" + ")[1]
        p_value = f"p {self.p_value:.0e}" if self.p_value > 1e-99 else "p < 1e-99"
        return (
            f"{measure} distance {self.distance:.2f}, threshold {self.distance_threshold:.2f}; "
            f"{p_value}, limit {self.p_threshold:.0e}"
        )


class ColumnDrift(Strict):
    """How one column of the current rows differs from the reference: one flat row of numbers."""

    column: str
    importance: float = Field(description="Share of the model's importance; 0 for the prediction.")
    drifted: bool = Field(description="Values or missing values: significant, and at least the threshold apart.")
    judged: bool = Field(description="False where one side has no values at all.")
    kind: Kind
    method: str = Field(description="Test + distance of the values.")
    p_value: float | None
    p_threshold: float
    distance: float | None
    distance_threshold: float
    missing_share: float
    reference_missing_share: float
    missing_p_value: float | None = Field(None, description="Of the share of missing values, numeric columns only.")
    missing_distance: float | None = None
    missing_distance_threshold: float | None = None
    new_categories: str = Field("", description="Commonest categories that the reference lacks, with their shares.")
    severity: float | None = Field(description="Larger of the distances over their thresholds.")
    rows: int
    reference_rows: int
    reason: str = Field(description="The finding in words and numbers; empty where there is none.")


def compare(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    columns: Sequence[Column],
    monitoring: Monitoring,
    *,
    ordinary: Mapping[str, float] | None = None,
) -> tuple[list[ColumnDrift], "Snapshot"]:
    """Compare every column and judge it by its test and its distance.

    Parameters
    ----------
    reference, current
        Rows with all of `columns`.
    columns
        What to compare. Categories outside `Column.categories` are compared as one, as the model sees them.
    monitoring
        `significance`, shared by all tests, and `distance`.
    ordinary
        Prepared column → distance that is nothing unusual for it (`ordinary_distances`); the threshold is the larger
        of it and `monitoring.distance`.

    Returns
    -------
    tuple
        One `ColumnDrift` per column in their order, and Evidently's snapshot, for the HTML report.

    Raises
    ------
    ValueError
        If there is nothing to compare.
    """
    columns = with_categories(columns, reference)
    sides = prepare(reference, columns), prepare(current, columns)
    tests = _tests(*sides)
    if not tests:
        raise ValueError(
            f"Wanted values on both sides, found {reference.height} reference and {current.height} current rows "
            f"with no values in {len(columns)} columns. Widen the window, or check what was scored."
        )
    p_threshold = monitoring.significance / len(tests)
    thresholds = {name: max(monitoring.distance, (ordinary or {}).get(name, 0.0)) for name in sides[0].columns}
    differences, snapshot = _run_evidently(*sides, tests, p_threshold, thresholds)
    judged = [
        _column_drift(
            column,
            reference[column.name],
            current[column.name],
            differences,
            p_threshold=p_threshold,
            thresholds=thresholds,
        )
        for column in columns
    ]
    return judged, snapshot


def missing_name(column: str) -> str:
    """Name of the prepared column that says whether `column` is missing."""
    return f"{column} missing"


def with_categories(columns: Sequence[Column], reference: pl.DataFrame) -> list[Column]:
    """Give categorical columns that name no categories the commonest of the reference."""
    filled = []
    for column in columns:
        if column.kind == "categorical" and column.categories is None:
            counts = reference[column.name].cast(pl.String).drop_nulls().value_counts(sort=True)
            column = column._replace(categories=tuple(counts[column.name].head(_TOP_CATEGORIES)))  # noqa: PLW2901
        filled.append(column)
    return filled


def prepare(rows: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """Bring rows to what is compared: finite floats, whether they are missing, categories as the model knows them."""
    made = []
    for column in columns:
        if column.kind == "numeric":
            number = pl.col(column.name).cast(pl.Float64)
            number = pl.when(number.is_finite()).then(number)
            state = pl.when(number.is_null()).then(pl.lit("missing")).otherwise(pl.lit("present"))
            made += [number.alias(column.name), state.alias(missing_name(column.name))]
        else:
            text = pl.col(column.name).cast(pl.String)
            known = pl.when(text.is_in(list(column.categories or ()))).then(text).otherwise(pl.lit(OTHER))
            made.append(pl.when(text.is_null()).then(pl.lit(MISSING)).otherwise(known).alias(column.name))
    return rows.select(made)


def _tests(reference: pl.DataFrame, current: pl.DataFrame) -> dict[str, Kind]:
    """Pick what can be tested: numeric columns with values on both sides, categorical ones with several categories."""
    tests: dict[str, Kind] = {}
    for name, kind in reference.schema.items():
        left, right = reference[name].drop_nulls(), current[name].drop_nulls()
        if left.is_empty() or right.is_empty():
            continue
        if kind == pl.Float64:
            tests[name] = "numeric"
        elif pl.concat([left, right]).n_unique() > 1:
            tests[name] = "categorical"
    return tests


def _run_evidently(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    tests: Mapping[str, Kind],
    p_threshold: float,
    thresholds: Mapping[str, float],
) -> tuple[dict[str, Difference], "Snapshot"]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name, kind in tests.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in tests.items() if kind == "categorical"],
    )
    new, old = (
        Dataset.from_pandas(rows.select(list(tests)).to_pandas(), data_definition=definition)
        for rows in (current, reference)
    )
    metrics = [
        ValueDrift(column=name, method=METHODS[kind][1], threshold=thresholds[name]) for name, kind in tests.items()
    ]
    snapshot = Report(metrics).run(new, old)
    distances = {one["config"]["column"]: float(one["value"]) for one in snapshot.dict()["metrics"]}
    return {
        name: Difference(
            method=" + ".join(METHODS[kind]),
            p_value=_p_value(kind, reference[name], current[name]),
            p_threshold=p_threshold,
            distance=distances[name],
            distance_threshold=thresholds[name],
        )
        for name, kind in tests.items()
    }, snapshot


def _p_value(kind: Kind, reference: pl.Series, current: pl.Series) -> float:
    if kind == "numeric":
        return kolmogorov_smirnov(reference.drop_nulls(), current.drop_nulls())
    return two_sample_chi_square(*(dict(side.value_counts().iter_rows()) for side in (reference, current)))


def _column_drift(
    column: Column,
    reference: pl.Series,
    current: pl.Series,
    differences: Mapping[str, Difference],
    *,
    p_threshold: float,
    thresholds: Mapping[str, float],
) -> ColumnDrift:
    values, missing = differences.get(column.name), differences.get(missing_name(column.name))
    found = [difference for difference in (values, missing) if difference is not None]
    shares = [side.null_count() / max(side.len(), 1) for side in (reference, current)]
    fresh = _new_categories(column, reference, current) if column.kind == "categorical" else ""
    reasons = []
    if values is not None and values.drifted:
        reasons.append(str(values))
    if missing is not None and missing.drifted:
        reasons.append(f"missing values {shares[0]:.1%} → {shares[1]:.1%}: {missing}")
    if fresh:
        reasons.append(f"new categories {fresh}")
    return ColumnDrift(
        column=column.name,
        importance=column.importance,
        drifted=any(difference.drifted for difference in found),
        judged=bool(found),
        kind=column.kind,
        method=" + ".join(METHODS[column.kind]),
        p_value=values.p_value if values else None,
        p_threshold=p_threshold,
        distance=values.distance if values else None,
        distance_threshold=thresholds[column.name],
        missing_share=shares[1],
        reference_missing_share=shares[0],
        missing_p_value=missing.p_value if missing else None,
        missing_distance=missing.distance if missing else None,
        missing_distance_threshold=missing.distance_threshold if missing else None,
        new_categories=fresh,
        severity=max((one.distance / one.distance_threshold for one in found), default=None),
        rows=current.len(),
        reference_rows=reference.len(),
        reason="; ".join(reasons),
    )


def _new_categories(column: Column, reference: pl.Series, current: pl.Series) -> str:
    known = {*(column.categories or ()), *reference.cast(pl.String).unique()}
    counts = current.cast(pl.String).drop_nulls().value_counts(sort=True).rows()
    fresh = [(value, count / current.len()) for value, count in counts if value not in known]
    return ", ".join(f"{value} ({share:.1%})" for value, share in fresh[:_NEW_CATEGORIES])
