"""The online store: the newest values of every entity of a feature view, which serving reads in microseconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

from ml_platform.registry.manifest import Input
from ml_platform.sqlite_uri import sqlite_file

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from ml_platform.features.views import FeatureView
    from ml_platform.lake.tables import Lake

Key = tuple[Any, ...]

_TRIES = 5  # to publish a view, while others publish it

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 (UTC)."""
    return (instant - _EPOCH) // _MICROSECOND


def to_instant(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return _EPOCH + timedelta(0, 0, micros)


class Row(msgspec.Struct, frozen=True):
    """The newest values of one entity."""

    micros: int  # event time in microseconds since 1970 (UTC)
    values: dict[str, Any]  # feature → value

    @property
    def event_time(self) -> datetime:
        """Instant from which the values were known (UTC)."""
        return to_instant(self.micros)


class ViewSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a view's rows, kept in the online store so that pushed rows are checked without the lake."""

    entity: tuple[Input, ...]
    event_time: str
    columns: tuple[Input, ...]

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
        held = "no values of it" if found is None else f"the definition {found[:12]}"
        super().__init__(
            f"online view '{view}': rows of the definition {sent[:12]} were pushed, the store holds {held}"
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


@dataclass(frozen=True)
class PublishReport:
    """The result of publishing a view."""

    rows: int  # entities whose newest row is in the store
    changed: int  # entities whose stored values changed or were deleted
    newest: datetime | None
    version: int  # of the view's table


def open_online_store(uri: str) -> OnlineStore:
    """Open the online store at an address: `sqlite:///<path>` (embedded) or `redis://host:port/database`.

    Raises
    ------
    ValueError
        If there is no store for the address's scheme.

    Examples
    --------
    >>> import tempfile
    >>> with open_online_store(f"sqlite:///{tempfile.mkdtemp()}/online.db") as store:
    ...     store.read([("weather", ("EWR",))])
    [None]
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme not in _STORES:
        raise ValueError(f"online store: no store for the scheme '{scheme}'; there are {', '.join(_ADDRESSES)}")
    return _STORES[scheme](uri)


def check_rows(view: str, entity: tuple[str, ...], frame: "pl.DataFrame", event_time: str) -> None:
    """Check that every row has a key and an event time.

    Raises
    ------
    ValueError
        If a row lacks one.
    """
    for name in (*entity, event_time):
        if nulls := frame.get_column(name).null_count():
            raise ValueError(f"online view '{view}': {nulls} of {frame.height} rows have no '{name}'")


def _open_sqlite(uri: str) -> OnlineStore:
    from ml_platform.features.online_sqlite import SqliteOnlineStore

    if "?" in uri:
        raise ValueError(f"online store '{uri}': wanted sqlite:///<path> without options; write a ? of a path as %3F")
    try:
        file = sqlite_file(uri)
    except ValueError as error:
        raise ValueError(f"online store: {error}") from error
    return SqliteOnlineStore(str(file))


def _open_redis(uri: str) -> OnlineStore:
    from ml_platform.features.online_redis import RedisOnlineStore

    return RedisOnlineStore(uri)


_STORES: dict[str, Callable[[str], OnlineStore]] = {
    "sqlite": _open_sqlite,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
}
_ADDRESSES = ("sqlite:///<path>", "redis://<host>:<port>/<database>", "rediss://… (TLS)", "unix://<socket>")


def latest_rows(
    lake: "Lake",
    view: "FeatureView",
    *,
    versions: Mapping[str, int] | None = None,
    waiting: "pl.DataFrame | None" = None,
) -> "pl.DataFrame":
    """Read the newest row of each entity of a view; between equal event times the one created last.

    `versions` are those of its tables (`pushed.view_tables`), the newest when None; `waiting` as for
    `pushed.read_view`.
    """
    from ml_platform.features.pushed import read_view

    order = [view.event_time, *([view.created] if view.created else [])]
    return (
        read_view(lake, view, versions, waiting=waiting)
        .sort(order)
        .unique(list(view.entity), keep="last", maintain_order=True)
        .select(*view.entity, view.event_time, *view.columns)
        .collect()
    )


def publish_view(
    lake: "Lake", view: "FeatureView", store: OnlineStore, *, push_log: "Path | None" = None
) -> PublishReport:
    """Make the online store hold the newest row of every entity of a view, pushed rows included, and no other row.

    What the view's tables do not have any more leaves the store: an entity, or a row newer than those that are left.

    Parameters
    ----------
    lake
        Where the view's tables are.
    view
        The view.
    store
        What serving reads.
    push_log
        The platform's `push_log_dir`, with the pushed rows that are not in the lake yet. Without it all pushed rows
        stay that were never seen in the lake.

    Raises
    ------
    ml_platform.lake.errors.TableNotFound
        If the view has not been computed yet.
    ml_platform.features.definitions.ViewChanged
        If another definition computed its table.
    Overtaken
        If other publishers of the view were faster again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return _publish_once(lake, view, store, push_log)
        except Overtaken:
            continue
    return _publish_once(lake, view, store, push_log)


def _publish_once(lake: "Lake", view: "FeatureView", store: OnlineStore, push_log: "Path | None") -> PublishReport:
    from ml_platform.features.definitions import require_definition
    from ml_platform.features.pushed import view_schema, view_tables, waiting_rows

    # In this order: a push is logged, then stored and counted, then ingested. So what was pushed by the mark is waiting
    # in the log or in these versions of the tables, and if it is in neither, then it was withdrawn.
    mark = store.mark(view.name)
    waiting = waiting_rows(push_log, view) if push_log is not None else None
    versions = lake.versions(view_tables(lake, view))
    require_definition(lake, view, versions[view.table])
    frame = latest_rows(lake, view, versions=versions, waiting=waiting)
    changed = store.write(
        view.name,
        view.entity,
        frame,
        view.event_time,
        view_hash=view.hash,
        schema=view_schema(view, frame.schema),
        whole_since=mark if push_log is not None else mark._replace(pushes=0),
    )
    newest: datetime | None = frame.get_column(view.event_time).max()  # type: ignore[assignment]  # by its dtype
    return PublishReport(rows=frame.height, changed=changed, newest=newest, version=versions[view.table])
