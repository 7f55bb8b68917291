"""The online store: of every entity of a feature view the newest values, where serving reads them in microseconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.features.views import FeatureView
    from ml_platform.lake.tables import Lake

Key = tuple[Any, ...]


class Row(msgspec.Struct, frozen=True):
    """The newest values of one entity."""

    event_time: datetime  # from when they were known, UTC
    values: dict[str, Any]  # feature → value


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
    ) -> int:
        """Keep the rows that are newer than what is stored of their entity; give the number of entities changed.

        Writing the same rows again changes nothing, and an older row never replaces a newer one. When the definition
        (`view_hash`, or the columns) differs from the last one written, what was stored under that one is gone: no
        entity is ever served values of another definition.
        """
        ...

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Read many (view, key) pairs in one round trip, in their order; None for an entity never written."""
        ...

    def view_hash(self, view: str) -> str | None:
        """Give the definition that the view's values were last written by; None before the first write."""
        ...

    def newest(self, view: str) -> datetime | None:
        """Give the newest event time stored of a view; None when it has no rows."""
        ...

    def written_at(self, view: str) -> datetime | None:
        """Give when a view was last written, whether or not that changed anything; None when nobody noted it."""
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


def latest_rows(lake: "Lake", view: "FeatureView", *, version: int | None = None) -> "pl.DataFrame":
    """Take of each entity in a view's table the row that a request of today would want: newest, then last created."""
    order = [view.event_time, *([view.created] if view.created else [])]
    return (
        lake.read(view.table, version=version)
        .sort(order)
        .unique(list(view.entity), keep="last", maintain_order=True)
        .select(*view.entity, view.event_time, *view.columns)
        .collect()
    )


def publish_view(lake: "Lake", view: "FeatureView", store: OnlineStore) -> PublishReport:
    """Bring the newest row of every entity from a view's table into the online store.

    Raises
    ------
    ml_platform.lake.errors.TableNotFound
        If the view has not been computed yet.
    ml_platform.features.definitions.ViewChanged
        If its table is of an older definition.
    """
    from ml_platform.features.definitions import require_definition

    version = lake.version(view.table)
    require_definition(lake, view, version)
    frame = latest_rows(lake, view, version=version)
    changed = store.write(view.name, view.entity, frame, view.event_time, view_hash=view.hash)
    newest: datetime | None = frame.get_column(view.event_time).max()  # type: ignore[assignment]  # by its dtype
    return PublishReport(rows=frame.height, changed=changed, newest=newest, version=version)
