"""Checks of the lake: every table opens, its files are there, its protocol is known, the contracts load."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ml_platform.doctor.findings import Finding, error, ok, warning
from ml_platform.environments import without_passwords
from ml_platform.lake.errors import StoreUnreachable
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow.fs
    from deltalake import DeltaTable


def tables(settings: Settings) -> Iterator[Finding]:
    """Open every table of the lake and look for the files of its newest version."""
    from deltalake import DeltaTable

    from ml_platform.lake.storage.snapshots import missing_files

    lake = Lake(settings.lake_uri)
    try:
        names, broken = lake.tables(), 0
    except StoreUnreachable as problem:
        remedy = "see ML_PLATFORM_LAKE_URI and the variables of its store"
        yield error("tables", without_passwords(str(problem)), remedy)
        return
    for name in names:
        try:
            opened: DeltaTable = lake.snapshot(name)
            missing, damaged = missing_files(opened, lake.store(name)), _damaged_files(opened, lake.store(name))
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
        if missing or damaged:
            broken += 1
            wrong = f"lacks {missing}" if missing else f"has another size than was written in {damaged}"
            yield error(
                "tables",
                f"{name} at version {opened.version()} {wrong} of its {len(opened.file_uris())} files",
                f"restore {lake.location(name)} from a backup"
                + (f", or ml-platform tables restore {name} --version <older>" if may_restore(name) else ""),
            )
    without_log = _folders_without_log(lake, names)
    for folder in without_log:
        yield warning(
            "tables",
            f"{folder} holds Parquet files and no _delta_log, so it is no table",
            "restore it from a backup, or remove it where it is not the lake's",
        )
    if not broken and not without_log:
        yield ok("tables", f"{len(names)} in {lake.uri}, all with their files")


def may_restore(table: str) -> bool:
    """Whether an older version of a table is of use: audit log and ledger only grow, and are verified whole."""
    return not table.startswith("governance/")


def _damaged_files(snapshot: "DeltaTable", store: "pyarrow.fs.FileSystem") -> int:
    """Count a snapshot's files that are there in another size than its log says; `store` is rooted at the table."""
    import polars as pl
    import pyarrow.fs

    written = pl.DataFrame(snapshot.get_add_actions(flatten=True)).select("path", "size_bytes").rows()
    infos = store.get_file_info([unquote(path) for path, _ in written])
    return sum(
        info.type == pyarrow.fs.FileType.File and info.size != size
        for info, (_, size) in zip(infos, written, strict=True)
    )


def _folders_without_log(lake: Lake, names: list[str]) -> list[Path]:
    """Folders of a lake on disk with Parquet files that belong to no table."""
    root = Path(lake.uri)
    if not lake.is_local or not root.is_dir():
        return []
    tables = {root / name for name in names}
    folders = {path.parent for path in root.rglob("*.parquet")}
    return sorted(folder for folder in folders if not tables.intersection((folder, *folder.parents)))


def contracts(_: Settings) -> Iterator[Finding]:
    """Load the contracts of the raw tables that the project declares."""
    from ml_platform.lake.sources.registry import declared_tables

    try:
        declared = declared_tables()
    except Exception as problem:  # noqa: BLE001 - the project's own modules are imported
        yield error("contracts", f"{type(problem).__name__}: {problem}", "dg check defs names file, line and key")
        return
    yield ok("contracts", f"{len(declared)} raw tables are declared")
