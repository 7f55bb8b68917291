"""What the pages show of a model: versions, traffic, latency, what monitoring found, features, refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ml_platform.features.online import OnlineStore
from ml_platform.monitoring.status import DriftWindow, ModelStatus, PerformanceWindow
from ml_platform.registry.manifest import Derived, Input
from serving.console import charts, words
from serving.console.history import KEPT_SECONDS, SAMPLE_SECONDS, History, Interval
from serving.documents import ModelDetail, traffic_shares
from serving.state import ServedModel, Slot

_POINTS = int(KEPT_SECONDS / SAMPLE_SECONDS)
_FEWEST_WINDOWS = 12  # that a chart has room for: a single bar would else fill it
_LATEST_INTERVALS = 6  # half a minute: the rate "now"

STATUS_WORDS = {
    "400": "the body is not JSON",
    "401": "no valid key",
    "403": "the key lacks the role or the model",
    "404": "no such model or version",
    "408": "the body did not arrive in time",
    "413": "the body is too large",
    "415": "the body's encoding is not supported",
    "422": "rows do not fit the signature",
    "429": "too many requests",
    "500": "the server failed: its log has the reason",
    "503": "busy, or release, online store or log failed",
}

VIOLATION_WORDS = {
    "null": "null, or left out",
    "range": "a number outside its range",
    "allowed": "a value that is not among those allowed",
    "type": "a value of another type",
}


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


@dataclass(frozen=True, slots=True)
class VersionLine:
    """One version in the table."""

    version: int
    role: str  # live or shadow
    share: float
    family: str
    digest: str
    trained: str
    metrics: Mapping[str, float]
    rows: float  # answered or shadowed in the last minutes
    median: str
    slow: str


@dataclass(frozen=True, slots=True)
class ViewLine:
    """One feature view as the online store holds it."""

    name: str
    models: Sequence[str]
    newest: datetime | None
    written: datetime | None
    ttl_seconds: float | None
    missing: float  # look-ups without a value in the last minutes
    rows: float  # rows looked up in the last minutes

    @property
    def stale(self) -> bool:
        """Whether a request of now would find its newest value too old."""
        if self.newest is None or self.ttl_seconds is None:
            return False
        return (datetime.now(UTC) - self.newest).total_seconds() > self.ttl_seconds


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """Requests that were not answered with a prediction."""

    model: str
    status: str
    lately: float
    ever: float

    @property
    def meaning(self) -> str:
        """The status in words."""
        return STATUS_WORDS.get(self.status, "see the API's description")


@dataclass(frozen=True, slots=True)
class ViolationLine:
    """Values of one input that break its contract in one way."""

    field: str
    kind: str
    is_flagged: bool  # answered with a flag; else refused
    lately: float
    ever: float

    @property
    def meaning(self) -> str:
        """What was found, in words."""
        return VIOLATION_WORDS.get(self.kind, self.kind)


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model."""

    about: ModelDetail
    status: ModelStatus | None
    trouble: str | None  # why the status cannot be told
    versions: Sequence[VersionLine]
    plots: Sequence[Plot]

    @property
    def drift(self) -> DriftWindow | None:
        """Newest comparison with the training data."""
        return self.status.drift[-1] if self.status and self.status.drift else None

    @property
    def performance(self) -> PerformanceWindow | None:
        """Newest measurement with labels."""
        return self.status.performance[-1] if self.status and self.status.performance else None


def model_view(
    slot: Slot, about: ModelDetail, history: History, status: ModelStatus | None, trouble: str | None
) -> ModelView:
    """Gather what is known of a model."""
    intervals, total = history.intervals(), history.total()
    plots = [_traffic(slot.name, intervals, total), _latency(slot.name, intervals, total)]
    if status and status.drift:
        plots.append(_drift(status.drift))
    if status and status.performance:
        plots.append(_performance(status.performance))
    return ModelView(about, status, trouble, _versions(slot, total), plots)


def view_lines(slots: Mapping[str, Slot], online: OnlineStore, history: History) -> list[ViewLine]:
    """Every view that a served model looks up (raises what the online store raises)."""
    total = history.total()
    users: dict[str, dict[str, ServedModel]] = {}
    for slot in slots.values():
        for model in (*slot.served, *slot.shadows):
            for lookup in model.manifest.lookups:
                users.setdefault(lookup.view, {})[slot.name] = model
    lines = []
    for view, models in sorted(users.items()):
        ttls = [one.ttl_seconds for model in models.values() for one in model.manifest.lookups if one.view == view]
        line = ViewLine(
            name=view,
            models=sorted(models),
            newest=online.newest(view),
            written=online.written_at(view),
            ttl_seconds=min((ttl for ttl in ttls if ttl is not None), default=None),
            missing=sum(total.not_found(name, view) for name in models),
            rows=sum(total.rows(name, one.version) for name in models for one in slots[name].served),
        )
        lines.append(line)
    return lines


def refused_lines(models: Sequence[str], history: History) -> list[RefusedLine]:
    """Requests that got no prediction, since the server started."""
    lately, ever = history.total(), history.since_start()
    lines = [
        RefusedLine(model, status, lately.statuses(model).get(status, 0.0), count)
        for model in (*models, "unknown")
        for status, count in sorted(ever.statuses(model).items())
        if status != "200" and count
    ]
    at_the_door = sorted(ever.turned_away().items())
    return lines + [
        RefusedLine("at the door", status, lately.turned_away().get(status, 0.0), count)
        for status, count in at_the_door
        if count
    ]


def violation_lines(slot: Slot, inputs: Sequence[Input], history: History) -> list[ViolationLine]:
    """Values that broke the contract of a model's inputs, since the server started."""
    flagged = {(field.name, kind) for field in inputs for kind in field.flagged}
    lately = history.total().violations(slot.name)
    return [
        ViolationLine(*found, found in flagged, lately.get(found, 0.0), count)
        for found, count in sorted(history.since_start().violations(slot.name).items())
        if count
    ]


def _versions(slot: Slot, total: Interval) -> list[VersionLine]:
    share = traffic_shares(slot)
    return [
        VersionLine(
            version=model.version,
            role="live" if model in slot.served else "shadow",
            share=share.get(model.version, 0.0),
            family=model.manifest.family,
            digest=model.digest,
            trained=model.manifest.provenance.trained_until[:10],
            metrics=model.manifest.metrics,
            rows=total.rows(slot.name, model.version),
            median=words.milliseconds(total.latency(0.5, slot.name, model.version)),
            slow=words.milliseconds(total.latency(0.95, slot.name, model.version)),
        )
        for model in (*slot.served, *slot.shadows)
    ]


def _traffic(name: str, intervals: Sequence[Interval], total: Interval) -> Plot:
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
    told = [f"{counts['answered']:,.0f} answered"]
    told += [f"{counts[outcome]:,.0f} {outcome}" for outcome in ("refused", "failed") if counts[outcome]]
    return Plot(
        title="Requests",
        now=f"{words.number(now)} /s",
        note=", ".join(told) if any(counts.values()) else "no requests",
        chart=charts.bars(padded, f"Requests per second of the last 10 minutes, at most {words.number(highest)}"),
        range=f"0 – {words.number(highest)} /s" if highest else "",
        left="10 min ago",
        right="now",
    )


def _by_outcome(interval: Interval, name: str) -> dict[str, float]:
    found = {"answered": 0.0, "refused": 0.0, "failed": 0.0}
    for status, count in interval.statuses(name).items():
        found["answered" if status[0] == "2" else "failed" if status[0] == "5" else "refused"] += count
    return found


def _latency(name: str, intervals: Sequence[Interval], total: Interval) -> Plot:
    points: dict[str, list[charts.Point]] = {"median": [], "slow": []}
    for interval in intervals[-_POINTS:]:
        points["median"].append(interval.latency(0.5, name))
        points["slow"].append(interval.latency(0.95, name))
    highest = max([value for values in points.values() for value in values if value is not None], default=0.0)
    empty: list[charts.Point] = [None] * (_POINTS - len(points["slow"]))
    median, slow = (words.milliseconds(total.latency(share, name)) for share in (0.5, 0.95))
    return Plot(
        title="Latency",
        now=median,
        note="no requests" if total.latency(0.5, name) is None else f"median; 95 % within {slow}",
        chart=charts.lines(
            [("slow", empty + points["slow"]), ("median", empty + points["median"])],
            f"Latency of the last 10 minutes: median {median}, 95th percentile {slow}",
            top=highest or None,
        ),
        range=f"0 – {words.milliseconds(highest)}" if highest else "",
        left="10 min ago",
        right="now",
    )


def _drift(windows: Sequence[DriftWindow]) -> Plot:
    last = windows[-1]
    layers: dict[str, list[float]] = {"quiet": [], "drift": [], "unjudged": []}
    kinds = {"drift": "drift", "no drift": "quiet", "not judged": "unjudged"}
    for window in windows:
        for layer, values in layers.items():
            height = max(window.drifted_importance, 0.02)  # no drift at all is still a window that was looked at
            values.append(height if kinds[window.verdict] == layer else 0.0)
    empty = [0.0] * (_FEWEST_WINDOWS - len(windows))
    alarms = sum(window.verdict == "drift" for window in windows)
    return Plot(
        title="Drift",
        now=words.share(last.drifted_importance),
        note=f"of the importance; {last.drifted} of {last.judged} features; {alarms} of {len(windows)} windows alarmed",
        chart=charts.bars(
            [(layer, empty + values) for layer, values in layers.items()],
            f"Drifted share of the importance in {len(windows)} windows, now {words.share(last.drifted_importance)}",
            top=1.0,
        ),
        range="0 – 100 %",
        left=words.instant(windows[0].until)[:10] if len(windows) > 1 else "",
        right=words.instant(last.until)[:10],
    )


def _performance(windows: Sequence[PerformanceWindow]) -> Plot:
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
    told = [f"{last.metric}, {last.rows:,} labelled rows"]
    told += [f"{name} {value:.3g}" for name, value in levels]
    return Plot(
        title="Performance",
        now="–" if last.value is None else f"{last.value:.3f}",
        note=", ".join(told),
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
        left=words.instant(same[0].until)[:10] if len(same) > 1 else "",
        right=words.instant(last.until)[:10],
    )


def result_names(model: ServedModel) -> dict[str, dict[str, Any]]:
    """Description and unit of every feature, for the page that shows their values."""
    fields: dict[str, Input | Derived] = {field.name: field for field in model.manifest.inputs}
    fields |= {field.name: field for field in model.manifest.derived}
    names = {}
    for feature in model.manifest.features:
        field = fields.get(feature.name)
        about = {
            "description": feature.description or (field.description if field else ""),
            "unit": feature.unit or (field.unit if field else None),
            "source": feature.source,
        }
        names[feature.name] = {key: value for key, value in about.items() if value}
    return names
