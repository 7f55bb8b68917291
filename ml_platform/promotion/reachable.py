"""Whether the stores of another environment can be reached from here, found out before anything is changed there.

MLflow asks a server that is down again and again, for minutes; a connection is refused at once.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ml_platform.environments import without_passwords
from ml_platform.lake.errors import StoreUnreachable
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "redis": 6379, "rediss": 6379}
_SECONDS = 5.0


def unreachable(settings: Settings) -> list[str]:
    """Say which stores of an environment cannot be worked with from here, and why; empty when all can."""
    return [*_folders(settings), *_servers(settings), *_lake(settings)]


def _folders(settings: Settings) -> Iterator[str]:
    lake = Path(settings.lake_uri) if "://" not in settings.lake_uri else settings.home
    for folder in dict.fromkeys((settings.home, settings.releases_dir, lake)):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            yield f"{folder}: {there} is not a folder"
        elif not os.access(there, os.W_OK):
            yield f"{folder}: {there} is not writable for this user"


def _servers(settings: Settings) -> Iterator[str]:
    for uri in (settings.tracking_uri, settings.online_uri):
        parts = urlsplit(uri)
        scheme = parts.scheme.partition("+")[0]
        if is_sqlite(uri) or scheme not in _PORTS or not parts.hostname:
            continue
        try:
            socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout=_SECONDS).close()
        except OSError as error:
            yield f"{without_passwords(uri)} does not answer: {error}"


def _lake(settings: Settings) -> Iterator[str]:
    if "://" not in settings.lake_uri:
        return
    try:
        Lake(settings.lake_uri).tables()
    except StoreUnreachable as error:
        yield str(error)
