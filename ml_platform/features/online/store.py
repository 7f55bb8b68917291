"""The online store: the newest values of every entity of a feature view, which serving reads in microseconds."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

from ml_platform.registry.manifest import Input

if TYPE_CHECKING:
    import polars as pl


Key = tuple[Any, ...]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 (UTC)."""
    return (instant - _EPOCH) // _MICROSECOND


def to_instant(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return _EPOCH + timedelta(0, 0, micros)


class Row(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The newest values of one entity."""

    micros: int  # event time in microseconds since 1970 (UTC)
    values: dict[str, Any]  # feature → value
    view_hash: str = ""  # definition of the view that computed them

    @property
    def event_time(self) -> datetime:
        """Instant from which the values were known (UTC)."""
        return to_instant(self.micros)


class ViewSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a view's rows, kept in the online store so that pushed rows are checked without the lake."""

    entity: tuple[Input, ...]
    event_time: str
    columns: tuple[Input, ...]
    ttl_seconds: float | msgspec.UnsetType | None = msgspec.UNSET  # None: unlimited; unset: not recorded
    description: str = ""
    streamed: bool = False  # whether a stream keeps it up to date: see `ml_platform.features.streaming.timeline`

    @property
    def fields(self) -> tuple[Input, ...]:
        """All fields of a row, in order: entity, event time, features."""
        event_time = Input(
            name=self.event_time, type="timestamp", description="From when on the values were known (UTC)."
        )
        return (*self.entity, event_time, *self.columns)


class Definition(msgspec.Struct, frozen=True):
    """The definition of a view that computed its values in the store."""

    hash: str
    schema: ViewSchema | None  # None: written before schemas were recorded, or not by `publish_view`


class PushedRow(NamedTuple):
    """One row for `OnlineStore.push`."""

    key: Key
    event_time: datetime  # UTC
    values: tuple[Any, ...]  # in the order of the view's columns


class Mark(NamedTuple):
    """How far writing to a view had come at an instant, see `OnlineStore.mark`."""

    publications: int  # whole views written so far
    pushes: int


class Overtaken(RuntimeError):
    """Somebody else wrote the whole view since the mark: the rows may be older than theirs and were not written."""

    def __init__(self, view: str) -> None:
        super().__init__(f"online view '{view}': another publisher wrote it meanwhile; publish again")


class DefinitionChanged(RuntimeError):
    """Rows were pushed for another definition of a view than the one in the store."""

    def __init__(self, view: str, sent: str, found: str | None) -> None:
        contents = "no values of it" if found is None else f"the definition {found[:12]}"
        super().__init__(
            f"online view '{view}': rows of the definition {sent[:12]} were pushed, the store holds {contents}"
        )


class OnlineStore(Protocol):
    """What publishing writes and serving reads; safe with one writer and many readers, in any processes."""

    def write(
        self,
        view: str,
        entity: tuple[str, ...],
        frame: "pl.DataFrame",
        event_time: str = "event_time",
        *,
        view_hash: str = "",
        schema: ViewSchema | None = None,
        whole_since: Mark | None = None,
    ) -> int:
        """Store rows; return the number of entities changed. Writing the same rows again changes nothing.

        Without `whole_since` the frame has some rows of the view, and an older row never replaces a newer one. With it,
        the frame is the whole view, with all that was pushed up to the mark: what it lacks is deleted, and what it has
        replaces even newer rows. Only rows pushed since the mark stay, unless the frame has a newer one.

        When the definition (`view_hash`, or the columns) differs from the last one written, all rows of the last one
        are deleted: values of another definition are never read. A `schema` is recorded with the definition.

        Raises
        ------
        Overtaken
            If the whole view was written since the mark.
        """
        ...

    def mark(self, view: str) -> Mark:
        """Return how far writing has come; to be taken before the rows are read that `write` then gets as a whole."""
        ...

    def push(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """Store rows of the present definition as `write` does; return how many are older than the stored rows.

        Raises
        ------
        DefinitionChanged
            If the store holds the view with another definition, or not at all. No row is stored then.
        """
        ...

    def exists(self) -> bool:
        """Whether there is a store: an embedded one is a file, which may not be there yet, or may be gone."""
        ...

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Read many (view, key) pairs in one round trip, in their order; None for an entity never written."""
        ...

    def view_hash(self, view: str) -> str | None:
        """Return the hash of the view's definition in the store; None before the first write."""
        ...

    def definition(self, view: str) -> Definition | None:
        """Return the view's definition in the store, with its schema; None before the first write."""
        ...

    def views(self) -> list[str]:
        """Names of the views whose schema is recorded, sorted."""
        ...

    def newest(self, view: str) -> datetime | None:
        """Return the newest event time of a view's rows; None when it has none."""
        ...

    def written_at(self, view: str) -> datetime | None:
        """Return when a view was last written, even if that changed nothing; None when that was not recorded."""
        ...

    def counts(self) -> tuple[int, int]:
        """Return how many rows `read` was asked for since the start, and how many it fetched from the store."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def check_published_rows(view: str, entity: tuple[str, ...], frame: "pl.DataFrame", event_time: str) -> None:
    """Check that every row has a key and an event time.

    Raises
    ------
    ValueError
        If a row lacks one.
    """
    for name in (*entity, event_time):
        if nulls := frame.get_column(name).null_count():
            raise ValueError(f"online view '{view}': {nulls} of {frame.height} rows have no '{name}'")
