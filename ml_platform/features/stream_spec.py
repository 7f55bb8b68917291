"""What `stream:` of a rolling view declares: where its events come from, and how late they may be."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_platform.spec.stream import StreamSource
from ml_platform.spec.types import Declared, Duration, PositiveDuration

# Columns of the raw table beside those of the events.
ARRIVED, TOO_LATE, PARTITION, POSITION = "__arrived_at", "__too_late", "__partition", "__position"
ON_TIME = f'"{TOO_LATE}" IS NOT TRUE'  # SQL condition: an event counts
ColumnType = Literal["number", "integer", "boolean", "string", "timestamp"]


class ViewStream(Declared):
    """Events that a rolling view gets as they come: each lands once in the view's source table, and in its windows."""

    source: StreamSource = Field(description="Where the events come from: one JSON object each.")
    columns: dict[str, ColumnType] = Field(
        min_length=1,
        description="Columns of the source table and the types of their values; an event has each of them, maybe null.",
    )
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="Column → field of the event, dots lead into objects (`cart.total`); a column that is not named is "
        "the field of its name.",
    )
    lateness: Duration = Field(
        timedelta(minutes=10),
        description="How long after its time an event may arrive and still count. A later one is kept in the table, "
        "marked, and counts in no window.",
    )
    clock: Literal["broker", "events"] = Field(
        "broker",
        description="When an event arrived: when the broker got it, or, for recorded events that are played again, the "
        "newest time of any event so far.",
    )
    ahead: Duration = Field(
        timedelta(minutes=1),
        description="How far its time may be ahead of its arrival; an event further ahead is refused, one less far "
        "waits until its time has come.",
    )
    commit_every: PositiveDuration = Field(
        timedelta(seconds=5), description="How often new events are committed to the source table."
    )
    max_lag: PositiveDuration = Field(
        timedelta(hours=1),
        description="How far the view's table may be behind the source table before training waits for it; it is "
        "computed anew twice in that time.",
    )
    max_batch: int = Field(2000, ge=1, le=100_000, description="Most events that are taken at once.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if own := sorted(name for name in self.columns if name.startswith("__")):
            raise ValueError(f"columns: {own}: names with __ in front are the platform's own; choose others")
        if unknown := sorted(set(self.fields) - set(self.columns)):
            raise ValueError(f"fields: {unknown} are no columns; there are {', '.join(self.columns)}")
        paths = [self.fields.get(name, name) for name in self.columns]
        for name, path in zip(self.columns, paths, strict=True):
            if not all(path.split(".")):
                raise ValueError(f"fields: '{name}': wanted a field, or fields joined by dots, found {path!r}")
            if inside := next((other for other in paths if other.startswith(f"{path}.")), None):
                raise ValueError(f"fields: '{path}' is a value, and '{inside}' is taken from inside it: choose one")
        if not timedelta(seconds=0.2) <= self.commit_every <= timedelta(hours=1):
            raise ValueError(f"commit_every: wanted 0.2 seconds to 1 hour, found {self.commit_every}")
        return self
