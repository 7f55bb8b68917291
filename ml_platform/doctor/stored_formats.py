"""Which formats the data on disk has, for an engine that is to read it."""

import sqlite3
from contextlib import suppress

from ml_platform.doctor.databases import online_format
from ml_platform.formats import DELTA_READER, DELTA_WRITER, MANIFEST, ONLINE
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import manifest_format
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file


def stored_formats(settings: Settings) -> dict[str, list[int]]:
    """Return the numbers of all formats that are stored, by the names of `ml_platform.formats`.

    What cannot be read at all is left out: the other checks tell of it.
    """
    formats: dict[str, set[int]] = {}
    for path in (ReleaseStore(settings.releases_dir).folder / "bundles").glob("*/manifest.json"):
        try:
            formats.setdefault(MANIFEST.name, set()).add(manifest_format(path.read_bytes()))
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            continue
    if is_sqlite(settings.online_uri) and sqlite_file(settings.online_uri).exists():
        with suppress(sqlite3.Error):
            formats[ONLINE.name] = {online_format(sqlite_file(settings.online_uri))}
    lake = Lake(settings.lake_uri)
    for name in lake.tables():
        try:
            protocol = lake.snapshot(name).protocol()
        except Exception:  # noqa: BLE001 - the check of the tables names it
            continue
        formats.setdefault(DELTA_READER.name, set()).add(protocol.min_reader_version)
        formats.setdefault(DELTA_WRITER.name, set()).add(protocol.min_writer_version)
    return {name: sorted(numbers) for name, numbers in formats.items()}
