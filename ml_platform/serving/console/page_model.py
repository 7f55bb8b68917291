"""What the pages show of a model: versions, traffic, latency, what monitoring found, features, refusals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.features.online.store import OnlineStore
from ml_platform.monitoring.status import DriftWindow, ModelStatus, PerformanceWindow
from ml_platform.registry.manifest import Derived, Input, Manifest
from ml_platform.serving.console import formatting, plots
from ml_platform.serving.console.history import History, TrafficInterval
from ml_platform.serving.models.descriptions import ModelDetail, traffic_shares
from ml_platform.serving.models.slots import EndpointState, ServedModel
from ml_platform.spec.input_rules import RULES

_DOOR = "at the door"  # in the place of a model

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

# Of what was refused before a model was asked, where the status means something else.
DOOR_WORDS = {
    "400": "no valid HTTP/1.1 request, or one without a host",
    "403": "the key lacks the role or the model; or no key, from another machine",
    "408": "the headers did not arrive in time",
    "421": "a Host that this server does not answer to",
    "431": "the headers are too large",
    "503": "keys or tokens cannot be checked",
}

VIOLATION_WORDS: dict[str, str] = {
    "null": "null, or left out",
    **{rule.kind: rule.broken_words for rule in RULES},
    "type": "a value of another type",
}


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
    card: str | None  # path of its model card, if it has one


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
        """Whether even its newest value is past the TTL now."""
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
        known = STATUS_WORDS | DOOR_WORDS if self.model == _DOOR else STATUS_WORDS
        return known.get(self.status, "see the API's description")


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
    trouble: str | None  # why the status cannot be read
    versions: Sequence[VersionLine]
    registered: str | None  # model whose versions they are, if it has pages of them
    plots: Sequence[plots.Plot]

    @property
    def drift(self) -> DriftWindow | None:
        """Newest comparison with the training data."""
        return self.status.drift[-1] if self.status and self.status.drift else None

    @property
    def performance(self) -> PerformanceWindow | None:
        """Newest measurement with labels."""
        return self.status.performance[-1] if self.status and self.status.performance else None


def model_view(  # noqa: PLR0917 - what a page is made of
    slot: EndpointState,
    about: ModelDetail,
    history: History,
    status: ModelStatus | None,
    trouble: str | None,
    cards: Collection[int],
) -> ModelView:
    """Gather everything that a model's page shows."""
    intervals, total = history.intervals(), history.total()
    drawn = [plots.traffic(slot.name, intervals, total), plots.latency(slot.name, intervals, total)]
    if status and status.drift:
        drawn.append(plots.drift(status.drift))
    if status and status.performance:
        drawn.append(plots.performance(status.performance))
    registered = slot.endpoint.model if slot.endpoint and not about.members else None
    return ModelView(about, status, trouble, _versions(slot, total, cards), registered, drawn)


def view_lines(slots: Mapping[str, EndpointState], online: OnlineStore, history: History) -> list[ViewLine]:
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
    at_the_door = sorted(ever.rejected_early().items())
    return lines + [
        RefusedLine(_DOOR, status, lately.rejected_early().get(status, 0.0), count)
        for status, count in at_the_door
        if count
    ]


def violation_lines(slot: EndpointState, inputs: Sequence[Input], history: History) -> list[ViolationLine]:
    """Values that broke the contract of a model's inputs, since the server started."""
    flagged = {(field.name, kind) for field in inputs for kind in field.flagged}
    lately = history.total().violations(slot.name)
    return [
        ViolationLine(*violation, violation in flagged, lately.get(violation, 0.0), count)
        for violation, count in sorted(history.since_start().violations(slot.name).items())
        if count
    ]


def _versions(slot: EndpointState, total: TrafficInterval, cards: Collection[int]) -> list[VersionLine]:
    share = traffic_shares(slot)
    return [
        VersionLine(
            version=model.version,
            role="live" if model in slot.served else "shadow",
            share=share.get(model.version, 0.0),
            family=model.manifest.family,
            digest=model.digest,
            trained=model.manifest.provenance.trained_until[:10],
            metrics=_shown_metrics(model.manifest),
            rows=total.rows(slot.name, model.version),
            median=formatting.milliseconds(total.latency(0.5, slot.name, model.version)),
            slow=formatting.milliseconds(total.latency(0.95, slot.name, model.version)),
            card=f"models/{model.manifest.model}/versions/{model.version}/card" if model.version in cards else None,
        )
        for model in (*slot.served, *slot.shadows)
    ]


def _shown_metrics(manifest: Manifest) -> dict[str, float]:
    """The gate's metric; of a version from before manifests named it, the first two that it has."""
    if manifest.metric is not None and manifest.metric in manifest.metrics:
        return {manifest.metric: manifest.metrics[manifest.metric]}
    return dict(list(manifest.metrics.items())[:2])


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
