"""Erases entities from Delta tables: from the newest version, from older ones, and from what the log says of both."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import polars as pl

from ml_platform.governance.erasure.delta_log import Lifetime, files_of, log_bytes, lost_versions, scrub_log
from ml_platform.governance.erasure.subjects import Subjects
from ml_platform.lake.storage.merge import remove
from ml_platform.lake.storage.tables import Lake

_ROUNDS = 20  # of writers who had begun before the suppression and commit meanwhile
_ABANDONED = timedelta(days=1)  # a file that no commit names and that is older was left by a killed writer


@dataclass
class TableErasure:
    """What was done to one table.

    Attributes
    ----------
    rows_removed
        From the newest version.
    files_deleted, bytes_deleted
        Of older versions that had a row of an entity.
    versions_lost
        Versions that cannot be read any more: all that had such a file.
    log_changed
        Commits and checkpoints out of which their values were taken.
    remains
        What is still there, in words.
    """

    table: str
    rows_searched: int = 0
    rows_removed: int = 0
    files_searched: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    versions_lost: list[int] = field(default_factory=list)
    log_changed: int = 0
    remains: list[str] = field(default_factory=list)


def rows_of(lake: Lake, table: str, subjects: Subjects) -> tuple[int, dict[str, pl.Series]]:
    """How many rows of a table's newest version are of the entities, and by which values of which columns."""
    return _found(lake.read(table), table, subjects)


def rows_of_version(lake: Lake, table: str, version: int, subjects: Subjects) -> int:
    """How many rows of a version are of the entities (raises LookupError where it cannot be read)."""
    return _found(lake.read(table, version=version), table, subjects)[0]


def _found(rows: pl.LazyFrame, table: str, subjects: Subjects) -> tuple[int, dict[str, pl.Series]]:
    names = subjects.columns(table, rows.collect_schema().names())
    if not names:
        return 0, {}
    count = 0
    values: dict[str, list[pl.Series]] = {}
    for part in rows.select(names).collect_batches():
        mask = subjects.mask(table, part)
        count += int(mask.sum())
        if mask.any():
            for name in names:
                values.setdefault(name, []).append(part[name].filter(subjects.matches(table, part[name])))
    return count, {name: found for name, parts in values.items() if len(found := pl.concat(parts).unique())}


def erase_from_table(
    lake: Lake,
    table: str,
    everyone: Sequence[Subjects],
    *,
    known: frozenset[str] = frozenset(),
    note: Callable[[list[str]], None] = lambda _: None,
) -> TableErasure:
    """Erase entities from a table; others may read and write it meanwhile, and none of their rows is lost.

    Parameters
    ----------
    known
        Files that an erasure which was killed had begun to delete.
    note
        Called with the files to delete, before the first one is.
    """
    done = TableErasure(table, rows_searched=_height(lake, table))
    for one in everyone:
        for _ in range(_ROUNDS):
            count, values = rows_of(lake, table, one)
            if not values:
                break
            for name, found in values.items():
                remove(lake, table, pl.DataFrame({name: found}))
            done.rows_removed += count
        else:
            done.remains.append(
                f"{table}: writers bring rows back as fast as they are removed; stop them, run it again"
            )
    _erase_files(lake, everyone, done, known, note)
    return done


def search_table(lake: Lake, table: str, everyone: Sequence[Subjects]) -> list[str]:
    """Say where entities still are in a table: rows, files of older versions, bytes of the log."""
    found = []
    if count := max((rows_of(lake, table, one)[0] for one in everyone), default=0):
        found.append(f"{table}: {count:,} rows of its newest version")
    found += [
        f"{table}: file {path} of older versions"
        for path, _, life in _old_files(lake, table)
        if _holds(lake, table, path, life, everyone)
    ]
    return found + [
        f"{table}: {path}"
        for path, content in log_bytes(lake, table)
        if any(one.stands_in(content) for one in everyone)
    ]


def _erase_files(
    lake: Lake,
    everyone: Sequence[Subjects],
    done: TableErasure,
    known: frozenset[str],
    note: Callable[[list[str]], None],
) -> None:
    table = done.table
    store = lake.store(table)
    files, _ = files_of(lake, table)
    doomed, young = [], []
    for path, info, life in _old_files(lake, table):
        done.files_searched += 1
        if not _holds(lake, table, path, life, everyone):
            continue
        named = path in files or path.startswith("_change_data/")
        if named or info.mtime < datetime.now(UTC) - _ABANDONED:
            doomed.append((path, info.size))
        else:
            young.append(path)
    if doomed:
        note([path for path, _ in doomed])
        lake.sync(table)
    for path, size in doomed:
        try:
            store.delete_file(path)
        except FileNotFoundError:  # a vacuum was faster
            continue
        done.files_deleted += 1
        done.bytes_deleted += size
    gone = {*known, *(path for path, _ in doomed)}
    declared = [one.declaration for one in everyone]
    names = {name for one in declared for name in (*one.names, *one.tables.get(table, ()))}
    texts = {text for one in everyone for text in one.texts}
    if gone or any(table in one.tables for one in declared):
        done.log_changed = scrub_log(lake, table, gone, texts, names)
    done.versions_lost = lost_versions(files_of(lake, table)[0], gone, lake.version(table))
    done.remains += [
        f"{table}: {path} was written by somebody who has not committed it; run it again in a day" for path in young
    ]


def _old_files(lake: Lake, table: str) -> Iterator[tuple[str, Any, Lifetime]]:
    """Every data file below a table that its newest version does not read, with its facts."""
    import pyarrow.fs

    store, files = lake.store(table), files_of(lake, table)[0]
    active = {unquote(path) for path in pl.DataFrame(lake.snapshot(table).get_add_actions())["path"]}
    for info in store.get_file_info(pyarrow.fs.FileSelector("", recursive=True)):
        if info.type != pyarrow.fs.FileType.File or not info.path.endswith(".parquet"):
            continue
        if info.path.startswith("_delta_log/") or info.path in active or unquote(info.path) in active:
            continue
        yield info.path, info, files.get(info.path) or files.get(unquote(info.path)) or Lifetime(0)


def _holds(lake: Lake, table: str, path: str, life: Lifetime, everyone: Sequence[Subjects]) -> bool:
    """Whether a file has a row of the entities."""
    import pyarrow.parquet

    try:
        with lake.store(table).open_input_file(path) as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            inside = set(parquet.schema_arrow.names)
            wanted = set()
            for one in everyone:
                names = one.columns(table, [*inside, *life.partition])
                if any(life.partition[name] in one.texts for name in names if name not in inside):
                    return True
                wanted |= inside.intersection(names)
            for number in range(parquet.num_row_groups) if wanted else ():
                rows = pl.DataFrame(parquet.read_row_group(number, columns=sorted(wanted)))
                if any(one.mask(table, rows).any() for one in everyone):
                    return True
    except FileNotFoundError:  # vacuumed meanwhile
        return False
    return False


def _height(lake: Lake, table: str) -> int:
    return int(lake.read(table).select(pl.len()).collect().item())
