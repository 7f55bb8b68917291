"""Checks of the lake: every table opens, its files are there, its protocol is known, the contracts load."""

from collections.abc import Iterator

from ml_platform.doctor.findings import Finding, error, ok
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings


def tables(settings: Settings) -> Iterator[Finding]:
    """Open every table of the lake and look for the files of its newest version."""
    from deltalake import DeltaTable

    from ml_platform.lake.storage.snapshots import missing_files

    lake = Lake(settings.lake_uri)
    names, broken = lake.tables(), 0
    for name in names:
        try:
            opened: DeltaTable = lake.snapshot(name)
            missing = missing_files(opened, lake.store(name))
        except Exception as problem:  # noqa: BLE001 - whatever Delta's reader makes of a damaged log
            broken += 1
            first_line = str(problem).strip().split("\n", maxsplit=1)[0]
            yield error(
                "tables",
                f"{name} cannot be opened: {first_line}",
                f"restore {lake.location(name)} from a backup; where only the newest file of its _delta_log is torn, "
                "remove that file, and load what it held again",
            )
            continue
        if missing:
            broken += 1
            yield error(
                "tables",
                f"{name} at version {opened.version()} lacks {missing} of its {len(opened.file_uris())} files",
                f"restore {lake.location(name)} from a backup, or ml-platform tables restore {name} --version <older>",
            )
    if not broken:
        yield ok("tables", f"{len(names)} in {lake.uri}, all with their files")


def contracts(_: Settings) -> Iterator[Finding]:
    """Load the contracts of the raw tables that the project declares."""
    from ml_platform.lake.sources.registry import declared_tables

    try:
        declared = declared_tables()
    except Exception as problem:  # noqa: BLE001 - the project's own modules are imported
        yield error("contracts", f"{type(problem).__name__}: {problem}", "dg check defs names file, line and key")
        return
    yield ok("contracts", f"{len(declared)} raw tables are declared")
