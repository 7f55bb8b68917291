"""The log of a Delta table as an erasure reads it: which files each version had, and what the log says of their rows.

Delta writes the smallest and largest values of a file's columns into its log, and predicates of writes: both can name
an entity. What the log says of a file that is gone is taken out of it; Delta does not need it.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ml_platform.atomic_files import replace_file
from ml_platform.lake.storage.lake_reader import LakeReader

if TYPE_CHECKING:
    import pyarrow.fs

_COMMIT = re.compile(r"(?:^|/)(\d{20})\.json$")
_CHECKPOINT = re.compile(r"(?:^|/)(\d{20})\.checkpoint.*\.parquet$")
ERASED = "[erased]"


@dataclass
class Lifetime:
    """From which version on a table had a file, and until before which one (None: it still has)."""

    added: int
    removed: int | None = None
    partition: dict[str, str | None] = field(default_factory=dict)


def files_of(lake: LakeReader, table: str) -> tuple[dict[str, Lifetime], set[str]]:
    """Data files that commits of a table name, by path below it, with their lifetimes; and files of its change feed."""
    files: dict[str, Lifetime] = {}
    changes: set[str] = set()
    for version, lines in _commits(lake.store(table)):
        for line in lines:
            if "add" in line:
                files[unquote(line["add"]["path"])] = Lifetime(
                    version, partition=line["add"].get("partitionValues") or {}
                )
            elif "remove" in line:
                path = unquote(line["remove"]["path"])
                files.setdefault(path, Lifetime(0)).removed = version
            elif "cdc" in line:
                changes.add(unquote(line["cdc"]["path"]))
    return files, changes


def lost_versions(files: dict[str, Lifetime], gone: Collection[str], newest: int) -> list[int]:
    """Versions that had one of these files."""
    lost: set[int] = set()
    for path in gone:
        if (life := files.get(path)) is not None:
            lost |= set(range(life.added, newest + 1 if life.removed is None else life.removed))
    return sorted(lost)


def scrub_log(
    lake: LakeReader, table: str, gone: Collection[str], texts: Collection[str], names: Collection[str]
) -> int:
    """Take out of a table's log what it says of files that are gone, and predicates that name an entity.

    A commit's file is replaced at once by one that says the same of everything else. Can be repeated.

    Returns
    -------
    int
        Commits and checkpoints that were rewritten or removed.
    """
    store, changed = lake.store(table), 0
    gone = set(gone)
    said = re.compile("|".join(rf"(?<![\w.-]){re.escape(text)}(?![\w.-])" for text in sorted(texts, key=len)[::-1]))
    for path in _files(store):
        if not _COMMIT.search(path):
            continue
        before = _read(store, path)
        lines = [json.loads(line) for line in before.splitlines() if line.strip()]
        if sum(_scrubbed(line, gone, said, names) for line in lines):
            _write(lake, table, path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            changed += 1
    return changed + _renew_checkpoints(lake, table, gone)


def log_bytes(lake: LakeReader, table: str) -> Iterator[tuple[str, bytes]]:
    """Every file of a table's log, with its bytes."""
    store = lake.store(table)
    for path in _files(store):
        yield path, _read(store, path)


def _scrubbed(line: dict[str, Any], gone: set[str], said: re.Pattern[str], names: Collection[str]) -> bool:
    """Change a line of the log; say whether anything was to be taken out."""
    action = line.get("add") or line.get("remove")
    if action is not None and unquote(action["path"]) in gone and action.get("stats"):
        rows = json.loads(action["stats"]).get("numRecords")
        left = json.dumps({"numRecords": rows}) if rows is not None else None
        if left != action["stats"]:
            action["stats"] = left
            return True
    parameters = (line.get("commitInfo") or {}).get("operationParameters") or {}
    changed = False
    for name, text in parameters.items():
        if isinstance(text, str) and any(one in text for one in names) and said.search(text):
            parameters[name] = said.sub(ERASED, text)
            changed = True
    return changed


def _renew_checkpoints(lake: LakeReader, table: str, gone: set[str]) -> int:
    """Replace checkpoints that have statistics of files that are gone by one of the newest version.

    Older ones are removed where every commit is still there to be read instead.
    """
    import polars as pl

    store = lake.store(table)
    stale = []
    for path in _files(store):
        if _CHECKPOINT.search(path):
            adds = pl.read_parquet(_read(store, path), columns=["add"])["add"].struct
            paths = adds.field("path").fill_null("").to_list()
            if any(unquote(name) in gone and stats for name, stats in zip(paths, adds.field("stats"), strict=True)):
                stale.append(path)
    if not stale:
        return 0
    commits = {int(match[1]) for path in _files(store) if (match := _COMMIT.search(path))}
    snapshot = lake.snapshot(table)
    snapshot.create_checkpoint()
    if commits >= set(range(snapshot.version() + 1)):
        for path in stale:
            if int(_CHECKPOINT.search(path)[1]) != snapshot.version():  # type: ignore[index]
                store.delete_file(path)
    return len(stale)


def _commits(store: "pyarrow.fs.FileSystem") -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for path in _files(store):
        if match := _COMMIT.search(path):
            yield int(match[1]), [json.loads(line) for line in _read(store, path).splitlines() if line.strip()]


def _files(store: "pyarrow.fs.FileSystem") -> list[str]:
    import pyarrow.fs

    selector = pyarrow.fs.FileSelector("_delta_log", recursive=True, allow_not_found=True)
    return sorted(info.path for info in store.get_file_info(selector) if info.type == pyarrow.fs.FileType.File)


def _read(store: "pyarrow.fs.FileSystem", path: str) -> bytes:
    with store.open_input_stream(path) as file:
        content: bytes = file.read()
    return content


def _write(lake: LakeReader, table: str, path: str, content: bytes) -> None:
    if lake.is_local:
        replace_file(Path(lake.location(table), path), content)
        return
    with lake.store(table).open_output_stream(path) as file:
        file.write(content)
