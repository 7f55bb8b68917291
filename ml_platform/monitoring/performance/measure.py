"""Performance: how well the answers were, by the labels that have become known since, per day and version.

Labels come late, a flight's hours after it was scored, so a day's figures grow as its labels arrive: days whose rows
have changed are computed again and replaced, never added to. The champion's newest window is judged
(`holdout_comparison`); rows that other versions scored before its release count for it, scored again (`labelled_rows`).
"""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.champion import get_champion, load_scorer, released_digests
from ml_platform.monitoring.performance.answers import Answers, answers_of, figures
from ml_platform.monitoring.performance.holdout_comparison import (
    MIN_DAYS,
    Measured,
    WindowMetric,
    window_metric,
    worse_by_more_than_chance,
)
from ml_platform.monitoring.performance.labelled_rows import known_labels, labelled_rows, rescored_rows
from ml_platform.monitoring.performance.measured_days import (
    measure_since,
    measured_figures,
    read_inputs,
    record_inputs,
    rows_digest,
)
from ml_platform.monitoring.scored_rows import newest_score
from ml_platform.monitoring.status import PerformanceWindow, add_window
from ml_platform.monitoring.trends import PERFORMANCE_TABLE, performance_plots
from ml_platform.registry.manifest import HoldoutError
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ALL_METRICS, ModelSpec
from ml_platform.spec.types import Strict
from ml_platform.training.evaluation.metrics import gain

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

Verdict = Literal["fine", "below", "not judged"]
_COLUMNS = {
    "model": pl.String(),
    "date": pl.Date(),
    "version": pl.Int64(),
    "scored_rows": pl.Int64(),
    "rows": pl.Int64(),
    "unscored_rows": pl.Int64(),
    "unknown_class_rows": pl.Int64(),
    "mean_score": pl.Float64(),
    "mean_target": pl.Float64(),
    **dict.fromkeys(ALL_METRICS, pl.Float64()),
    "measured_at": pl.Datetime("us", "UTC"),
    "digest": pl.String(),  # of the rows that the figures are of
}


class PerformanceReport(Strict):
    """How well the champion does on the labelled rows of a window, and what was recorded per day."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    version: int = Field(description="Version of the champion.")
    metric: str = Field(description="The promotion metric, which is judged.")
    window_from: datetime = Field(description="Exclusive, UTC; not before the champion's newest training row.")
    window_until: datetime = Field(description="Inclusive, UTC.")
    scored_rows: int = Field(description="The champion's scored rows in the window, and those that it scored again.")
    rows: int = Field(description="Of these, with a finite score and a label known by the end of the window's data.")
    rescored_rows: int = Field(0, description="Of these, scored by other versions before its release, and again by it.")
    unscored_rows: int = Field(0, description="Labelled rows without a finite score: in no metric.")
    unknown_class_rows: int = Field(0, description="Labels of classes that the champion does not know: each an error.")
    label_days: int = Field(0, description="UTC days that the labelled rows are of.")
    metrics: dict[str, float] = Field(description="Of the window's labelled rows; also mean_score and mean_target.")
    interval: tuple[float, float] | None = Field(
        description="95 % interval of the promotion metric, wide enough for the difference between days."
    )
    minimum: float | None = Field(description="`monitoring.min_metric`.")
    holdout: float | None = Field(description="The promotion metric on the holdout rows, from the manifest.")
    days: int = Field(description="Days recorded in `monitoring/performance`.")
    verdict: Verdict = Field(description="Whether it is as good as wanted, below that, or could not be judged.")
    reasons: tuple[str, ...] = Field(description="Why, one sentence each.")

    def plots(self, lake: Lake) -> dict[str, bytes]:
        """Pictures of the recorded days: name → PNG; none while no day has a label."""
        return performance_plots(lake, self.model, self.metric, minimum=self.minimum)


def measure_performance(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    store: ReleaseStore,
    *,
    until: datetime | None = None,
    since: datetime | None = None,
) -> PerformanceReport:
    """Join scores with labels, record every day and version, and judge the champion's newest window.

    Parameters
    ----------
    lake
        Holds scores and the spine's tables; the days are replaced in `monitoring/performance`.
    spec
        The model; its spine gives the labels.
    folder
        Where the spine is.
    store
        Knows the champion and its holdout metric. Its status document of the model gets the window.
    until
        End of the window (UTC), and only labels available by then are used; the newest scored instant, and every
        label, when None.
    since
        UTC days before its day are left as they were recorded, all others are computed. When None, those are left that
        have the same scores and labels as when they were measured (`measured_days`); with `until` all are computed.

    Returns
    -------
    PerformanceReport
        "below" when the promotion metric is worse than `monitoring.min_metric` or, where no minimum is set, than it was
        on the holdout, each time by more than chance and the difference between days explain. "not judged" below
        `monitoring.min_rows` labelled rows, and where nothing says how days differ.

    Raises
    ------
    LookupError
        If the model has no release.
    """
    champion, manifest = get_champion(store, spec.name)
    end = until or newest_score(lake, spec.name) or datetime.fromisoformat(manifest.provenance.trained_until)
    trained_until = datetime.fromisoformat(manifest.provenance.trained_until)
    start = max(earlier(end, spec.monitoring.window), trained_until)  # rows that it has learned from prove nothing
    inputs = read_inputs(lake, spec, folder, store) if until is None and since is None else None
    if inputs is not None and (since := measure_since(lake, spec, inputs, end)) is not None:
        since = min(since, start)
    labels = known_labels(lake, spec, folder, by=until)
    joined = labelled_rows(lake, spec, labels, since=since, until=end)
    known = measured_figures(lake, spec.name, _COLUMNS) if inputs is not None else None
    days = _measure_days(joined, spec, store, known)
    if days.height and (known is None or not days.equals(_within(known, days))):
        _replace(lake, spec.name, days)
    record_inputs(lake, spec.name, inputs)

    scorer = load_scorer(store, champion.digest)
    own = joined.filter(pl.col("model_version") == champion.version, pl.col("as_of") > start, pl.col("as_of") <= end)
    again = rescored_rows(lake, spec, store, labels, champion.version, scorer, start, end)
    window = pl.concat([own, again.rows], how="diagonal_relaxed")
    answers = answers_of(window.filter(pl.col("target").is_not_null()), spec, scorer)
    metrics = figures(answers, spec, scorer)
    holdout, error = manifest.metrics.get(spec.metric), manifest.holdout_error
    if error is not None and error.metric != spec.metric:
        error = None  # another metric was chosen since
    value = metrics.get(spec.metric)
    measured = None
    if value is not None and answers.rows >= spec.monitoring.min_rows:
        measured = window_metric(spec.metric, spec.task, value, _measured(answers, spec, scorer), error)
    verdict, reasons = judge(spec, answers, value, measured, holdout, error)
    report = PerformanceReport(
        model=spec.name,
        version=champion.version,
        metric=spec.metric,
        window_from=start,
        window_until=end,
        scored_rows=window.height,
        rows=answers.rows,
        rescored_rows=again.rows.height,
        unscored_rows=answers.unscored,
        unknown_class_rows=answers.unknown_class,
        label_days=len(np.unique(answers.days)),
        metrics=metrics,
        interval=(measured.lower, measured.upper) if measured else None,
        minimum=spec.monitoring.min_metric,
        holdout=holdout,
        days=days["date"].n_unique() if days.height else 0,
        verdict=verdict,
        reasons=(*reasons, *answers.notes(), *again.notes),
    )
    publish_performance(store, report)
    return report


def judge(  # noqa: PLR0917 - what was measured reads best in order
    spec: ModelSpec,
    answers: Answers,
    value: float | None,
    measured: WindowMetric | None,
    holdout: float | None,
    error: HoldoutError | None,
) -> tuple[Verdict, tuple[str, ...]]:
    """Verdict on the promotion metric of a window, and why, in words and numbers."""
    monitoring, rows = spec.monitoring, answers.rows
    if rows < monitoring.min_rows:
        return "not judged", (
            f"{rows} labelled rows of the champion in the window, fewer than monitoring.min_rows = "
            f"{monitoring.min_rows}: nothing can be said yet",
        )
    if value is None:
        return "not judged", (f"{spec.metric} is undefined on these {rows} rows: their labels are all alike",)
    days = len(np.unique(answers.days))
    if measured is None:
        return "not judged", (
            f"{spec.metric} {value:.4f} on {rows:,} labelled rows of {_days(days)}: fewer than {MIN_DAYS} days, or a "
            "day without which the metric is undefined, do not say how days differ, nor does the champion's manifest",
        )
    reasons = [
        f"{spec.metric} {value:.4f} (95 % interval {measured.lower:.4f} to {measured.upper:.4f}) on {rows:,} labelled "
        f"rows of {_days(days)}"
    ]
    worse = False
    if holdout is not None:
        holdout_days = spec.split.holdout.total_seconds() / 86_400
        worse, bound = worse_by_more_than_chance(spec.metric, measured, holdout, error, holdout_days=holdout_days)
        difference = gain(spec.metric, value, holdout)
        words = f"worse, {'by more than' if worse else 'within'} chance" if difference < 0 else "better"
        reasons.append(
            f"on the holdout rows it was {holdout:.4f}: now {abs(difference):.4f} {words} (chance and the days explain "
            f"up to {bound:.4f})"
        )
    minimum = monitoring.min_metric
    if minimum is None:
        return ("below" if worse else "fine"), tuple(reasons)
    best = measured.upper if spec.higher_is_better else measured.lower
    below, surely = gain(spec.metric, value, minimum) < 0, gain(spec.metric, best, minimum) < 0
    words = ", by more than chance" if surely else ", within chance" if below else ""
    reasons.append(f"{'worse' if below else 'no worse'} than monitoring.min_metric = {minimum:g}{words}")
    return ("below" if surely else "fine"), tuple(reasons)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _measured(answers: Answers, spec: ModelSpec, scorer: "Scorer") -> Measured:
    threshold = scorer.manifest.threshold
    return Measured(answers.y, answers.score, answers.weights, answers.days, threshold, spec.quantile)


def _measure_days(
    joined: pl.DataFrame, spec: ModelSpec, store: ReleaseStore, known: pl.DataFrame | None
) -> pl.DataFrame:
    """Rows of `monitoring/performance`: one per UTC day of `as_of` and version; those of `known` if nothing changed."""
    now = datetime.now(UTC)
    digests = released_digests(store, spec.name)
    scorer_of = cache(lambda version: load_scorer(store, digests[version]) if version in digests else None)
    figures_of = {row["digest"]: row for row in known.iter_rows(named=True)} if known is not None else {}
    rows = []
    for (day, version), part in joined.group_by(pl.col("as_of").dt.date().alias("date"), "model_version"):
        digest = rows_digest(part, spec, digests.get(version))
        same = figures_of.get(digest)
        if same is not None and (same["date"], same["version"]) == (day, version):
            rows.append(same)
            continue
        scorer = scorer_of(version)
        answers = answers_of(part.filter(pl.col("target").is_not_null()), spec, scorer)
        about = {"model": spec.name, "date": day, "version": version, "measured_at": now, "digest": digest}
        counts = {
            "scored_rows": part.height,
            "rows": answers.rows,
            "unscored_rows": answers.unscored,
            "unknown_class_rows": answers.unknown_class,
        }
        rows.append({**about, **counts, **figures(answers, spec, scorer)})
    return pl.DataFrame(rows, schema=_COLUMNS).sort("date", "version")


def _within(known: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    """What is recorded of the span of days that would be replaced."""
    return known.filter(pl.col("date").is_between(days["date"].min(), days["date"].max()))


def _replace(lake: Lake, model: str, days: pl.DataFrame) -> None:
    """Replace what was recorded for the same span of days."""
    span = days.select(
        pl.col("date").min().dt.to_string().alias("first"), pl.col("date").max().dt.to_string().alias("last")
    )
    where = "model = '{}' AND date >= DATE '{}' AND date <= DATE '{}'".format(model, *span.row(0))
    lake.replace(PERFORMANCE_TABLE, days, where=where, partition_by=("model",), add_columns=True)


def publish_performance(store: ReleaseStore, report: PerformanceReport) -> None:
    """Add a window to the model's document, in place of an earlier one with the same end."""
    window = PerformanceWindow(
        since=report.window_from,
        until=report.window_until,
        version=report.version,
        scored_rows=report.scored_rows,
        rows=report.rows,
        verdict=report.verdict,
        metric=report.metric,
        value=report.metrics.get(report.metric),
        interval=report.interval,
        holdout=report.holdout,
        minimum=report.minimum,
        reason="; ".join(report.reasons),
    )
    add_window(store, report.model, "performance", window)
