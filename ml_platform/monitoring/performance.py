"""Performance: scores joined with the labels that have become known since, per day and version.

Labels come late, a flight's hours after it was scored, so a day's figures grow as its labels arrive: the days are
computed again and replaced, never added to.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ml_platform.features.training_set import spine_labels
from ml_platform.lake.tables import Lake
from ml_platform.monitoring.champion import champion_of, load_scorer, released_digests, rescore
from ml_platform.monitoring.scored_rows import CORE, newest_score, scored_rows
from ml_platform.monitoring.status import publish_performance
from ml_platform.monitoring.trends import PERFORMANCE_TABLE, performance_plots
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS, ModelSpec
from ml_platform.spec_types import Strict
from ml_platform.training.matrix import encode_labels
from ml_platform.training.metrics import gain, measure, weighted

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

RESAMPLES = 200
_BOOTSTRAP_ROWS = 10_000  # of more rows the interval is narrow enough to take it from a sample of them
_COLUMNS = {
    "model": pl.String(),
    "date": pl.Date(),
    "version": pl.Int64(),
    "scored_rows": pl.Int64(),
    "rows": pl.Int64(),
    "mean_score": pl.Float64(),
    "mean_target": pl.Float64(),
    **dict.fromkeys((*CLASSIFICATION_METRICS, *REGRESSION_METRICS), pl.Float64()),
    "measured_at": pl.Datetime("us", "UTC"),
}


class PerformanceReport(Strict):
    """How well the champion does on the labelled rows of a window, and what was recorded per day."""

    model: str
    version: int
    metric: str
    window_from: datetime = Field(description="Exclusive, UTC.")
    window_until: datetime = Field(description="Inclusive, UTC.")
    scored_rows: int = Field(description="The champion's scored rows in the window.")
    rows: int = Field(description="Of these, with a label that was known by the end of the window's data.")
    metrics: dict[str, float] = Field(description="Of the window's labelled rows; also mean_score and mean_target.")
    interval: tuple[float, float] | None = Field(description="95 % bootstrap interval of the promotion metric.")
    minimum: float | None = Field(description="`monitoring.min_metric`.")
    holdout: float | None = Field(description="The promotion metric on the holdout rows, from the manifest.")
    days: int = Field(description="Days recorded in `monitoring/performance`.")
    verdict: Literal["fine", "below", "not judged"]
    reasons: tuple[str, ...]

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
        UTC days before its day are left as they were recorded; all are computed when None.

    Returns
    -------
    PerformanceReport
        "below" when the promotion metric is worse than `monitoring.min_metric` or, where no minimum is set, when its
        95 % bootstrap interval lies wholly on the worse side of the holdout metric. "not judged" below
        `monitoring.min_rows` labelled rows.

    Raises
    ------
    LookupError
        If the model has no release.
    """
    champion, manifest = champion_of(store, spec.name)
    end = until or newest_score(lake, spec.name) or datetime.fromisoformat(manifest.provenance.trained_until)
    start = end - spec.monitoring.window
    joined = _labelled(lake, spec, folder, since=since, until=end, labels_by=until)
    days = _measure_days(joined, spec, store)
    if days.height:
        _replace(lake, spec.name, days)

    window = joined.filter(pl.col("model_version") == champion.version, pl.col("as_of") > start, pl.col("as_of") <= end)
    labelled = window.filter(pl.col("target").is_not_null())
    scorer = load_scorer(store, champion.digest)
    metrics = _metrics(labelled, spec, scorer)
    interval = _interval(labelled, spec, scorer) if labelled.height >= spec.monitoring.min_rows else None
    holdout = manifest.metrics.get(spec.metric)
    verdict, reasons = judge(spec, labelled.height, metrics.get(spec.metric), interval, holdout)
    report = PerformanceReport(
        model=spec.name,
        version=champion.version,
        metric=spec.metric,
        window_from=start,
        window_until=end,
        scored_rows=window.height,
        rows=labelled.height,
        metrics=metrics,
        interval=interval,
        minimum=spec.monitoring.min_metric,
        holdout=holdout,
        days=days["date"].n_unique() if days.height else 0,
        verdict=verdict,
        reasons=reasons,
    )
    publish_performance(store, report)
    return report


def judge(
    spec: ModelSpec, rows: int, value: float | None, interval: tuple[float, float] | None, holdout: float | None
) -> tuple[Literal["fine", "below", "not judged"], tuple[str, ...]]:
    """Verdict on the promotion metric of a window, and why, in words and numbers."""
    if rows < spec.monitoring.min_rows:
        return "not judged", (
            f"{rows} labelled rows of the champion in the window, fewer than monitoring.min_rows = "
            f"{spec.monitoring.min_rows}: nothing can be said yet",
        )
    if value is None or interval is None:
        return "not judged", (f"{spec.metric} is undefined on these {rows} rows: their labels are all alike",)
    low, high = interval
    reasons = [f"{spec.metric} {value:.4f} (95 % interval {low:.4f} to {high:.4f}) on {rows:,} labelled rows"]
    worse_than_holdout = holdout is not None and gain(spec.metric, high if spec.higher_is_better else low, holdout) < 0
    if holdout is not None:
        difference = gain(spec.metric, value, holdout)
        words = (
            "worse, by more than chance"
            if worse_than_holdout
            else "worse, within chance"
            if difference < 0
            else "better"
        )
        reasons.append(f"on the holdout rows it was {holdout:.4f}: now {abs(difference):.4f} {words}")
    minimum = spec.monitoring.min_metric
    if minimum is None:
        return ("below" if worse_than_holdout else "fine"), tuple(reasons)
    below = gain(spec.metric, value, minimum) < 0
    reasons.append(f"{'worse' if below else 'no worse'} than monitoring.min_metric = {minimum:g}")
    return ("below" if below else "fine"), tuple(reasons)


def _labelled(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    *,
    since: datetime | None,
    until: datetime,
    labels_by: datetime | None,
) -> pl.DataFrame:
    """Scored rows up to `until` with `target`, null while it is not known."""
    if newest_score(lake, spec.name) is None:
        return pl.DataFrame(schema={**CORE, "target": pl.Float64})
    whole_days = since and since.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(microseconds=1)
    scored = scored_rows(lake, spec.name, id_column=spec.id, start=whole_days, until=until)
    if spec.task != "multiclass":  # a multiclass score needs the features, to be computed again for every class
        scored = scored.select("id", "as_of", "model_version", "score", "sample_weight")
    labels = spine_labels(lake, spec, folder)
    if labels_by is not None:
        labels = labels.filter(pl.col(spec.label_available_at) <= labels_by)
    labels = labels.select(pl.col(spec.id).cast(pl.String).alias("id"), pl.col(spec.target).alias("target"))
    return scored.join(labels, on="id", how="left").sort("as_of", "id", "model_version").collect(engine="streaming")


def _measure_days(joined: pl.DataFrame, spec: ModelSpec, store: ReleaseStore) -> pl.DataFrame:
    """Rows of `monitoring/performance`: one per UTC day of `as_of` and version."""
    now = datetime.now(UTC)
    scorers = {version: load_scorer(store, digest) for version, digest in released_digests(store, spec.name).items()}
    rows = []
    for (day, version), part in joined.group_by(pl.col("as_of").dt.date().alias("date"), "model_version"):
        labelled = part.filter(pl.col("target").is_not_null())
        about = {"model": spec.name, "date": day, "version": version, "measured_at": now}
        counts = {"scored_rows": part.height, "rows": labelled.height}
        rows.append({**about, **counts, **_metrics(labelled, spec, scorers.get(version))})
    return pl.DataFrame(rows, schema=_COLUMNS).sort("date", "version")


def _answers(labelled: pl.DataFrame, spec: ModelSpec, scorer: "Scorer | None") -> tuple[Any, Any, Any] | None:
    """Labels, scores and weights as arrays; None where there are none, or a multiclass version's bundle is gone."""
    if spec.task == "multiclass":
        if scorer is None or labelled.is_empty():
            return None
        return (
            encode_labels(labelled["target"], spec, scorer.manifest.classes),
            rescore(scorer, labelled),  # the recorded score is that of the predicted class alone
            labelled["sample_weight"].to_numpy(),
        )
    known = labelled.filter(pl.col("score").is_finite())
    if known.is_empty():
        return None
    return encode_labels(known["target"], spec), known["score"].to_numpy(), known["sample_weight"].to_numpy()


def _metrics(labelled: pl.DataFrame, spec: ModelSpec, scorer: "Scorer | None") -> dict[str, float]:
    answers = _answers(labelled, spec, scorer)
    if answers is None:
        return {}
    y, score, weights = answers
    figures = measure(spec.task, y, score, threshold=scorer.manifest.threshold if scorer else None, weights=weights)
    if spec.task != "multiclass":
        figures |= {"mean_score": float(np.average(score, weights=weights))}
        figures |= {"mean_target": float(np.average(y, weights=weights))}
    return figures


def _interval(labelled: pl.DataFrame, spec: ModelSpec, scorer: "Scorer") -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the promotion metric; None where it is undefined."""
    sample = labelled.sample(min(labelled.height, _BOOTSTRAP_ROWS), seed=0)
    answers = _answers(sample, spec, scorer)
    if answers is None:
        return None
    y, score, weights = answers
    draws = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), size=RESAMPLES) * weights
    values = weighted(spec.metric, spec.task, y, score, draws, threshold=scorer.manifest.threshold)
    values = values[np.isfinite(values)]
    if len(values) < RESAMPLES / 2:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _replace(lake: Lake, model: str, days: pl.DataFrame) -> None:
    """Replace what was recorded for the same span of days."""
    span = days.select(
        pl.col("date").min().dt.to_string().alias("first"), pl.col("date").max().dt.to_string().alias("last")
    )
    where = "model = '{}' AND date >= DATE '{}' AND date <= DATE '{}'".format(model, *span.row(0))
    lake.replace(PERFORMANCE_TABLE, days, where=where, partition_by=("model",), add_columns=True)
