"""Opens an online store by its address."""

from collections.abc import Callable

from ml_platform.features.online.store import OnlineStore
from ml_platform.sqlite_uri import sqlite_file


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


def _open_sqlite(uri: str) -> OnlineStore:
    from ml_platform.features.online.sqlite_store import SqliteOnlineStore

    if "?" in uri:
        raise ValueError(f"online store '{uri}': wanted sqlite:///<path> without options; write a ? of a path as %3F")
    try:
        file = sqlite_file(uri)
    except ValueError as error:
        raise ValueError(f"online store: {error}") from error
    return SqliteOnlineStore(str(file))


def _open_redis(uri: str) -> OnlineStore:
    from ml_platform.features.online.redis_store import RedisOnlineStore

    return RedisOnlineStore(uri)


_STORES: dict[str, Callable[[str], OnlineStore]] = {
    "sqlite": _open_sqlite,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
}


_ADDRESSES = ("sqlite:///<path>", "redis://<host>:<port>/<database>", "rediss://… (TLS)", "unix://<socket>")
