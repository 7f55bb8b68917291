"""What a comparison with the training data concludes, and the rows of `monitoring/drift` that remember it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.drift.comparison import ColumnDrift
from ml_platform.monitoring.status import WORST_COLUMNS, DriftedColumn, DriftWindow, add_window
from ml_platform.monitoring.trends import DRIFT_TABLE, drift_plots
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.monitoring import Monitoring
from ml_platform.spec.types import Strict

Verdict = Literal["drift", "no drift", "not judged"]


class DriftReport(Strict):
    """What one comparison found."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    version: int = Field(description="The champion, whose training data is the reference.")
    window_from: datetime = Field(description="Exclusive, UTC.")
    window_until: datetime = Field(description="Inclusive, UTC.")
    rows: int = Field(description="Scored rows in the window.")
    compared_rows: int = Field(description="Of these, the deterministic sample that was compared.")
    reference_rows: int = Field(description="Rows of the champion's training set.")
    compared_reference_rows: int = Field(description="Reference rows that were compared, at most 20,000.")
    columns: tuple[ColumnDrift, ...] = Field(description="Features by falling importance.")
    prediction: ColumnDrift | None = Field(description="The champion's prediction on both sides.")
    drifted_importance: float = Field(description="Share of the judged features' importance that drifted.")
    skewed_share: float | None = Field(
        description="Share of the champion's rows whose recorded score is not what it gives for the recorded features."
    )
    verdict: Verdict = Field(description="Whether it drifted, did not, or could not be judged.")
    reasons: tuple[str, ...] = Field(description="In words and numbers.")
    tests: int = Field(0, description="Tests over all columns, which share `monitoring.significance`.")
    html: Path | None = Field(description="The report with Evidently's plots.")

    @property
    def compared(self) -> tuple[ColumnDrift, ...]:
        """The prediction, where there is one, then the features."""
        return (*([self.prediction] if self.prediction else []), *self.columns)

    @property
    def largest_severity(self) -> float | None:
        """Largest distance over its threshold, of all columns; None where none was judged."""
        return max((column.severity for column in self.compared if column.severity is not None), default=None)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Drifted features by falling importance."""
        return tuple(column.column for column in self.columns if column.drifted)

    def plots(self, lake: Lake) -> dict[str, bytes]:
        """Pictures of this and earlier reports: name → PNG; none before a first report was recorded."""
        return drift_plots(lake, self.model)


def judge(
    monitoring: Monitoring,
    columns: Sequence[ColumnDrift],
    prediction: ColumnDrift | None,
    *,
    absent: Sequence[str] = (),
    skewed_share: float | None = None,
) -> tuple[Verdict, float, tuple[str, ...]]:
    """Weigh the columns' findings: verdict, drifted share of the importance, reasons."""
    judged = [column for column in columns if column.judged]
    unjudged = _unjudged(columns, absent)
    if not judged:
        return "not judged", 0.0, ("no feature has values both in the window and in the training set", *unjudged)
    importance = sum(column.importance for column in judged)
    weights = {column.column: column.importance / importance if importance else 1 / len(judged) for column in judged}
    drifted = [column for column in judged if column.drifted]
    share = sum(weights[column.column] for column in drifted)
    bound = monitoring.min_drift_importance
    by_features = bool(drifted) and share >= bound
    by_prediction = monitoring.prediction_drift and prediction is not None and prediction.drifted
    reasons = [
        f"{len(drifted)} of {len(judged)} features drifted; they carry {share:.0%} of the model's importance, "
        f"{'at least' if by_features else 'less than'} the {bound:.0%} that raise the alarm"
    ]
    if prediction is not None and prediction.drifted:
        reasons.append(f"the prediction drifted: {prediction.reason}")
    reasons += [f"{column.column} ({weights[column.column]:.0%} of importance): {column.reason}" for column in drifted]
    reasons += [
        f"{column.column}: not drifted, but {column.reason}"
        for column in judged
        if column.new_categories and not column.drifted
    ]
    if prediction is not None and not prediction.judged:
        reasons.append(f"the prediction is not judged: {prediction.not_judged}")
    reasons += unjudged
    if skewed_share:
        reasons.append(
            f"{skewed_share:.1%} of the champion's recorded scores are not what it gives for the recorded features: "
            "serving and this bundle disagree"
        )
    return ("drift" if by_features or by_prediction else "no drift"), share, tuple(reasons)


def _unjudged(columns: Sequence[ColumnDrift], absent: Sequence[str]) -> list[str]:
    """What was not judged, why, and what of the model's importance it carries."""
    notes = []
    without = [column for column in columns if not column.judged]
    if without:
        names = ", ".join(f"{column.column} ({column.not_judged})" for column in without)
        notes.append(f"not judged, with {sum(column.importance for column in without):.0%} of the importance: {names}")
    notes += [
        f"{column.column}: only its missing values are judged, {column.not_judged}"
        for column in columns
        if column.judged and column.not_judged
    ]
    if absent:
        notes.append(f"not recorded with the scores, so not judged: {', '.join(absent)}")
    return notes


def record(lake: Lake, report: DriftReport, run_at: datetime) -> int:
    """Append the report to `monitoring/drift`, a row per feature and one for the prediction; returns the version."""
    about = {
        "model": report.model,
        "run_at": run_at,
        "window_from": report.window_from,
        "window_until": report.window_until,
        "version": report.version,
        "verdict": report.verdict,
    }
    # Types by name, not by what the rows hold: a report in which no column has a p-value has the same columns.
    texts = dict.fromkeys(("column", "kind", "method", "new_categories", "not_judged", "reason"), pl.String())
    counts = dict.fromkeys(("rows", "reference_rows"), pl.Int64())
    flags = dict.fromkeys(("drifted", "judged"), pl.Boolean())
    named: dict[str, pl.DataType] = {**texts, **counts, **flags}
    schema = {name: named.get(name, pl.Float64()) for name in ColumnDrift.model_fields if name != "tests"}
    rows = pl.DataFrame([column.model_dump(exclude={"tests"}) for column in report.compared], schema=schema)
    return lake.append(
        DRIFT_TABLE,
        rows.select(*(pl.lit(value).alias(name) for name, value in about.items()), pl.all()),
        add_columns=True,
    )


def publish_drift(store: ReleaseStore, report: DriftReport) -> None:
    """Add a window to the model's document, in place of an earlier one with the same end."""
    judged = [column for column in report.columns if column.judged]
    worst = sorted(judged, key=lambda column: -(column.severity or 0.0))[:WORST_COLUMNS]
    window = DriftWindow(
        since=report.window_from,
        until=report.window_until,
        version=report.version,
        rows=report.rows,
        verdict=report.verdict,
        drifted=len(report.drifted),
        judged=len(judged),
        drifted_importance=report.drifted_importance,
        prediction_severity=report.prediction.severity if report.prediction else None,
        worst=tuple(
            DriftedColumn(
                column=column.column,
                drifted=column.drifted,
                importance=column.importance,
                severity=column.severity,
                reason=column.reason,
            )
            for column in worst
        ),
        reason=report.reasons[0],
    )
    add_window(store, report.model, "drift", window)
