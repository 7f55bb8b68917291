"""Pictures of what monitoring has recorded, as PNG bytes: drift per feature over time, a metric over days."""

import io
from datetime import UTC
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.lake.storage.tables import Lake

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRIFT_TABLE = "monitoring/drift"
PERFORMANCE_TABLE = "monitoring/performance"
_MAX_FEATURES = 20  # rows of the heat map: the most important
_MAX_WINDOWS = 60  # its columns: the newest
_DPI = 110


def drift_plots(lake: Lake, model: str) -> dict[str, bytes]:
    """Every picture of a model's recorded drift: name → PNG; empty while nothing is recorded."""
    history = drift_history(lake, model)
    return {"drift_over_time": drift_heat_map(history)} if history.height else {}


def performance_plots(lake: Lake, model: str, metric: str, *, minimum: float | None = None) -> dict[str, bytes]:
    """Every picture of a model's recorded performance: name → PNG; empty while no day has the metric."""
    if not lake.exists(PERFORMANCE_TABLE):
        return {}
    days = lake.read(PERFORMANCE_TABLE).filter(pl.col("model") == model).sort("date", "version").collect()
    days = days.filter(pl.col(metric).is_not_null()) if metric in days.columns else days.clear()
    return {f"{metric}_over_days": metric_over_days(days, metric, minimum=minimum)} if days.height else {}


def drift_history(lake: Lake, model: str) -> pl.DataFrame:
    """Recorded drift of a model, of each window the newest run, in order of time."""
    if not lake.exists(DRIFT_TABLE):
        return pl.DataFrame(schema={"window_until": pl.Datetime("us", "UTC")})
    rows = lake.read(DRIFT_TABLE).filter(pl.col("model") == model)
    newest = rows.group_by("window_until").agg(pl.col("run_at").max())
    return rows.join(newest, on=["window_until", "run_at"]).sort("window_until", "column").collect()


def drift_heat_map(history: pl.DataFrame) -> bytes:
    """Draw each column's distance over its threshold, window by window: below 1 is ordinary, a dot marks drift.

    Parameters
    ----------
    history
        Rows of `monitoring/drift` of one model: column, window_until, severity, drifted, importance.
    """
    import numpy as np

    windows = history["window_until"].unique().sort().tail(_MAX_WINDOWS)
    rows = history.filter(pl.col("window_until").is_in(windows.implode()))
    newest = (
        rows.group_by("column")
        .agg(pl.col("importance").sort_by("window_until").last())
        .sort((pl.col("importance") > 0) | ~pl.col("column").str.starts_with("("), -pl.col("importance"), "column")
    )
    columns = newest["column"].head(_MAX_FEATURES + 1).to_list()  # the prediction comes first
    at = {name: number for number, name in enumerate(columns)}
    when = {instant: number for number, instant in enumerate(windows)}
    severity = np.full((len(columns), len(when)), np.nan)
    dots = []
    for name, instant, value, drifted in rows.select("column", "window_until", "severity", "drifted").iter_rows():
        if name in at and value is not None:
            severity[at[name], when[instant]] = value
            if drifted:
                dots.append((when[instant], at[name]))

    figure, axes = _figure(max(6.0, 2.6 + 0.22 * len(when)), 1.4 + 0.24 * len(columns))
    image = axes.imshow(severity, aspect="auto", cmap="YlOrRd", vmin=0, vmax=2, interpolation="nearest")
    if dots:
        axes.scatter(*zip(*dots, strict=True), s=12, color="black", label="drifted")
    axes.set_yticks(range(len(columns)), columns, fontsize=8)
    step = -(-len(when) // 8)
    labels = [f"{instant.astimezone(UTC):%d %b}" for instant in windows]
    axes.set_xticks(range(0, len(when), step), labels[::step], fontsize=8)
    axes.set_xlabel("end of the window (UTC)", fontsize=8)
    axes.set_title("Distance from the training data, in thresholds (dot: drifted)", fontsize=9, loc="left")
    figure.colorbar(image, ax=axes, extend="max", pad=0.02).ax.tick_params(labelsize=8)
    return _png(figure)


def metric_over_days(days: pl.DataFrame, metric: str, *, minimum: float | None = None) -> bytes:
    """Draw a metric per day, a line per version, above the number of labelled rows.

    Parameters
    ----------
    days
        Rows of `monitoring/performance` of one model: date, version, rows and the metric.
    metric
        Column to draw.
    minimum
        `monitoring.min_metric`, drawn as a dashed line.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, axes = _figure(7.5, 3.2)
    counts: Any = axes.twinx()
    for (version,), rows in days.group_by("version", maintain_order=True):
        axes.plot(rows["date"].to_list(), rows[metric].to_list(), marker="o", ms=3, lw=1.2, label=f"version {version}")
        counts.bar(rows["date"].to_list(), rows["rows"].to_list(), color="grey", alpha=0.2, width=0.9)
    if minimum is not None:
        axes.axhline(minimum, color="crimson", lw=1, ls="--", label="minimum")
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    counts.set_ylim(0, 4 * max([1, *days["rows"]]))  # the bars stay below the lines
    counts.set_ylabel("labelled rows", fontsize=8)
    axes.set_ylabel(metric, fontsize=8)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axis in (axes, counts):
        axis.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> "tuple[Figure, Any]":
    """A figure of its own, without pyplot: no global state, no display, safe in threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
