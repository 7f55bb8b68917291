"""The charts of a model's page with the words around them: requests, latency, drift, performance."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ml_platform.monitoring.status import DriftWindow, PerformanceWindow
from ml_platform.serving.console import charts, formatting
from ml_platform.serving.console.history import KEPT_SECONDS, SAMPLE_SECONDS, TrafficInterval

_POINTS = int(KEPT_SECONDS / SAMPLE_SECONDS)
_FEWEST_WINDOWS = 12  # a chart has room for at least so many: else a single bar would fill it
_LATEST_INTERVALS = 6  # half a minute: the rate "now"


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart with the words around it."""

    title: str
    now: str
    note: str
    chart: Markup
    range: str  # values from the lower edge to the upper
    left: str
    right: str


def traffic(name: str, intervals: Sequence[TrafficInterval], total: TrafficInterval) -> Plot:
    """Requests per second by outcome."""
    layers: dict[str, list[float]] = {"answered": [], "refused": [], "failed": []}
    for interval in intervals[-_POINTS:]:
        for layer, count in _by_outcome(interval, name).items():
            layers[layer].append(count / interval.seconds)
    highest = max([sum(values) for values in zip(*layers.values(), strict=True)], default=0.0)
    padded = [(layer, [0.0] * (_POINTS - len(values)) + values) for layer, values in layers.items()]
    last = intervals[-_LATEST_INTERVALS:]
    seconds = sum(interval.seconds for interval in last)
    now = sum(sum(_by_outcome(interval, name).values()) for interval in last) / seconds if seconds else 0.0
    counts = _by_outcome(total, name)
    note = [f"{counts['answered']:,.0f} answered"]
    note += [f"{counts[outcome]:,.0f} {outcome}" for outcome in ("refused", "failed") if counts[outcome]]
    return Plot(
        title="Requests",
        now=f"{formatting.number(now)} /s",
        note=", ".join(note) if any(counts.values()) else "no requests",
        chart=charts.bars(padded, f"Requests per second of the last 10 minutes, at most {formatting.number(highest)}"),
        range=f"0 – {formatting.number(highest)} /s" if highest else "",
        left="10 min ago",
        right="now",
    )


def _by_outcome(interval: TrafficInterval, name: str) -> dict[str, float]:
    rates = {"answered": 0.0, "refused": 0.0, "failed": 0.0}
    for status, count in interval.statuses(name).items():
        rates["answered" if status[0] == "2" else "failed" if status[0] == "5" else "refused"] += count
    return rates


def latency(name: str, intervals: Sequence[TrafficInterval], total: TrafficInterval) -> Plot:
    """Median and 95th percentile."""
    points: dict[str, list[charts.Point]] = {"median": [], "slow": []}
    for interval in intervals[-_POINTS:]:
        points["median"].append(interval.latency(0.5, name))
        points["slow"].append(interval.latency(0.95, name))
    highest = max([value for values in points.values() for value in values if value is not None], default=0.0)
    empty: list[charts.Point] = [None] * (_POINTS - len(points["slow"]))
    median, slow = (formatting.milliseconds(total.latency(share, name)) for share in (0.5, 0.95))
    return Plot(
        title="Latency",
        now=median,
        note="no requests" if total.latency(0.5, name) is None else f"median; 95 % within {slow}",
        chart=charts.lines(
            [("slow", empty + points["slow"]), ("median", empty + points["median"])],
            f"Latency of the last 10 minutes: median {median}, 95th percentile {slow}",
            top=highest or None,
        ),
        range=f"0 – {formatting.milliseconds(highest)}" if highest else "",
        left="10 min ago",
        right="now",
    )


def drift(windows: Sequence[DriftWindow]) -> Plot:
    """Drifted share of the importance, window by window."""
    last = windows[-1]
    layers: dict[str, list[float]] = {"quiet": [], "drift": [], "unjudged": []}
    kinds = {"drift": "drift", "no drift": "quiet", "not judged": "unjudged"}
    for window in windows:
        for layer, values in layers.items():
            height = max(window.drifted_importance, 0.02)  # shows that a window without drift was examined too
            values.append(height if kinds[window.verdict] == layer else 0.0)
    empty = [0.0] * (_FEWEST_WINDOWS - len(windows))
    alarms = sum(window.verdict == "drift" for window in windows)
    now = formatting.share(last.drifted_importance)
    return Plot(
        title="Drift",
        now=now,
        note=f"of the importance; {last.drifted} of {last.judged} features; {alarms} of {len(windows)} windows alarmed",
        chart=charts.bars(
            [(layer, empty + values) for layer, values in layers.items()],
            f"Drifted share of the importance in {len(windows)} windows, now {now}",
            top=1.0,
        ),
        range="0 – 100 %",
        left=formatting.instant(windows[0].until)[:10] if len(windows) > 1 else "",
        right=formatting.instant(last.until)[:10],
    )


def performance(windows: Sequence[PerformanceWindow]) -> Plot:
    """The metric with its interval, window by window."""
    last = windows[-1]
    same = [window for window in windows if window.metric == last.metric]
    empty: list[charts.Point] = [None] * (_FEWEST_WINDOWS - len(same))
    levels = [(name, value) for name, value in (("holdout", last.holdout), ("minimum", last.minimum)) if value]
    low = [window.interval[0] if window.interval else None for window in same]
    high = [window.interval[1] if window.interval else None for window in same]
    shown = [
        *(value for _, value in levels),
        *(value for values in (low, high, [window.value for window in same]) for value in values if value is not None),
    ]
    margin = 0.1 * (max(shown) - min(shown)) if shown else 0.0
    bottom, top = (min(shown) - margin, max(shown) + margin) if shown else (0.0, 1.0)
    note = [f"{last.metric}, {last.rows:,} labelled rows"]
    note += [f"{name} {value:.3g}" for name, value in levels]
    return Plot(
        title="Performance",
        now="–" if last.value is None else f"{last.value:.3f}",
        note=", ".join(note),
        chart=charts.lines(
            [("metric", empty + [window.value for window in same])],
            f"{last.metric} in {len(same)} windows with their 95 % intervals, now {last.value}",
            bottom=bottom,
            top=top,
            levels=levels,
            band=(empty + low, empty + high),
            dots=True,
        ),
        range=f"{bottom:.3g} – {top:.3g}",
        left=formatting.instant(same[0].until)[:10] if len(same) > 1 else "",
        right=formatting.instant(last.until)[:10],
    )
