"""The online store: of every entity of a feature view the newest values, where serving reads them in microseconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

from ml_platform.registry.manifest import Input

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.features.views import FeatureView
    from ml_platform.lake.tables import Lake

Key = tuple[Any, ...]

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

    micros: int  # from when they were known, as microseconds since 1970 (UTC)
    values: dict[str, Any]  # feature → value

    @property
    def event_time(self) -> datetime:
        """From when they were known, UTC."""
        return to_instant(self.micros)


class ViewSchema(msgspec.Struct, frozen=True, kw_only=True):
    """Which fields a row of a view has, recorded beside its values: who pushes rows is checked without the lake."""

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
    """The definition of a view that its values in the store are of."""

    hash: str
    schema: ViewSchema | None  # None: written before schemas were recorded, or not by `publish_view`


class PushedRow(NamedTuple):
    """One row for `OnlineStore.push`."""

    key: Key
    event_time: datetime  # UTC
    values: tuple[Any, ...]  # in the order of the view's columns


class DefinitionChanged(RuntimeError):
    """Rows were pushed under another definition than the one that is in the store by now."""

    def __init__(self, view: str, sent: str, found: str | None) -> None:
        held = "no values of it" if found is None else f"the definition {found[:12]}"
        super().__init__(
            f"online view '{view}': rows of the definition {sent[:12]} were pushed, the store holds {held}"
        )


class OnlineStore(Protocol):
    """What publishing writes and serving reads; safe with one writer beside many readers, in other processes too."""

    def write(
        self,
        view: str,
        entity: tuple[str, ...],
        frame: "pl.DataFrame",
        event_time: str = "event_time",
        *,
        view_hash: str = "",
        schema: ViewSchema | None = None,
    ) -> int:
        """Keep the rows that are newer than what is stored of their entity; give the number of entities changed.

        Writing the same rows again changes nothing, and an older row never replaces a newer one. When the definition
        (`view_hash`, or the columns) differs from the last one written, what was stored under that one is gone: no
        entity is ever served values of another definition. A `schema` is recorded with the definition.
        """
        ...

    def push(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """Keep rows of the definition in force as `write` does; give how many are older than what the store then holds.

        Raises
        ------
        DefinitionChanged
            If the store holds the view under another definition, or not at all. Nothing is kept then.
        """
        ...

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Read many (view, key) pairs in one round trip, in their order; None for an entity never written."""
        ...

    def view_hash(self, view: str) -> str | None:
        """Give the definition that the view's values were last written by; None before the first write."""
        ...

    def definition(self, view: str) -> Definition | None:
        """Give that definition with the schema recorded for it; None before the first write."""
        ...

    def views(self) -> list[str]:
        """Names of the views whose schema is recorded, sorted."""
        ...

    def newest(self, view: str) -> datetime | None:
        """Give the newest event time stored of a view; None when it has no rows."""
        ...

    def written_at(self, view: str) -> datetime | None:
        """Give when a view was last written, whether or not that changed anything; None when nobody noted it."""
        ...

    def counts(self) -> tuple[int, int]:
        """Give how many rows were asked for by `read` since the start, and how many of them the store was asked for."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True)
class PublishReport:
    """What publishing a view came to."""

    rows: int  # entities whose newest row was offered to the store
    changed: int  # entities whose stored values changed
    newest: datetime | None
    version: int  # of the view's table


def open_online_store(uri: str) -> OnlineStore:
    """Open the online store at an address: `sqlite:///<path>`, embedded, or `redis://host:port/database`.

    Raises
    ------
    ValueError
        If no store is known for the address's scheme.

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
    """Refuse rows that no store can keep.

    Raises
    ------
    ValueError
        If a row has no key or no event time.
    """
    for name in (*entity, event_time):
        if nulls := frame.get_column(name).null_count():
            raise ValueError(f"online view '{view}': {nulls} of {frame.height} rows have no '{name}'")


def _open_sqlite(uri: str) -> OnlineStore:
    from ml_platform.features.online_sqlite import SqliteOnlineStore

    path = uri.removeprefix("sqlite://").removeprefix("/")
    if not path:
        raise ValueError(f"online store '{uri}': wanted sqlite:///<path>, found no path")
    return SqliteOnlineStore(path)


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


def latest_rows(lake: "Lake", view: "FeatureView", *, versions: Mapping[str, int] | None = None) -> "pl.DataFrame":
    """Take of each entity of a view the row that a request of today would want: newest, then last created.

    `versions` says of which versions of its tables (`pushed.view_tables`); the newest when None.
    """
    from ml_platform.features.pushed import read_view

    order = [view.event_time, *([view.created] if view.created else [])]
    return (
        read_view(lake, view, versions)
        .sort(order)
        .unique(list(view.entity), keep="last", maintain_order=True)
        .select(*view.entity, view.event_time, *view.columns)
        .collect()
    )


def publish_view(lake: "Lake", view: "FeatureView", store: OnlineStore) -> PublishReport:
    """Bring the newest row of every entity of a view into the online store, pushed rows too, and record its schema.

    Raises
    ------
    ml_platform.lake.errors.TableNotFound
        If the view has not been computed yet.
    ml_platform.features.definitions.ViewChanged
        If its table is of an older definition.
    """
    from ml_platform.features.definitions import require_definition
    from ml_platform.features.pushed import view_schema, view_tables

    versions = lake.versions(view_tables(lake, view))
    require_definition(lake, view, versions[view.table])
    frame = latest_rows(lake, view, versions=versions)
    schema = view_schema(view, frame.schema)
    changed = store.write(view.name, view.entity, frame, view.event_time, view_hash=view.hash, schema=schema)
    newest: datetime | None = frame.get_column(view.event_time).max()  # type: ignore[assignment]  # by its dtype
    return PublishReport(rows=frame.height, changed=changed, newest=newest, version=versions[view.table])
