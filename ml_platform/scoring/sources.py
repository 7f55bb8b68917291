"""Where rows to score come from: a table at a version, Parquet, CSV or JSON lines, or a query over the lake.

A source is first described, by what decides its rows, and then opened as parts. Tables and Parquet files are read where
they are; what has no parts of its own (text, a query's result) is written once as Parquet files of parts.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from ml_platform.atomic_files import replace_file
from ml_platform.inference.parts import PART_ROWS, ROW_GROUP, Files, Part
from ml_platform.lake.names import is_table, sql_name
from ml_platform.lake.query import sql
from ml_platform.lake.query.overlays import Overlays
from ml_platform.lake.sources.csv_reader import csv_frames
from ml_platform.lake.sources.dialect_inference import guess_dialect
from ml_platform.lake.sources.file_readers import file_format, read_file
from ml_platform.lake.sources.file_spec import FileFormat
from ml_platform.lake.sources.file_spec import Files as Dialect
from ml_platform.lake.sources.stored_files import list_folder
from ml_platform.lake.storage.snapshots import needs_delta_reader, read_arrow
from ml_platform.lake.storage.tables import Lake

_QUERY = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:select|with|from)\s", re.IGNORECASE | re.DOTALL)
_STAGED = "staged.json"
_READ_ROWS = 100_000  # of a query's result, held at a time


@dataclass(frozen=True)
class Rows:
    """A source that is open: its parts and columns.

    Attributes
    ----------
    parts
        In the source's order.
    schema
        Its columns and their types.
    texts
        Whether texts stand for values of other types.
    read
        Where the files are.
    """

    parts: Sequence[Part]
    schema: Mapping[str, pl.DataType]
    texts: bool = False
    read: Files = field(default_factory=Files)


@dataclass(frozen=True)
class Source:
    """A source as it was named.

    Attributes
    ----------
    kind, label
        What it is, and how its rows are marked.
    identity
        What decides its rows: versions, or sizes and times of files.
    """

    kind: Literal["table", "query", "files"]
    label: str
    identity: Mapping[str, Any]
    _open: Callable[[Path], Rows] = field(repr=False)
    _files: Sequence[Path] = ()
    _folder: Path | None = None

    def has(self, path: Path) -> bool:
        """Whether a file is one of the source's, or would be."""
        own = {path, path.resolve()}
        return any(not own.isdisjoint({file, file.resolve()}) for file in self._files) or (
            self._folder is not None and path.parent == self._folder
        )

    def open(self, folder: Path) -> Rows:
        """Give the parts; what has to be written for that goes into a folder, once."""
        return self._open(folder)


class _Staged(msgspec.Struct):
    """What a folder of parts has."""

    rows: list[int]


def find_source(lake: Lake, text: str, overlays: Overlays | None = None) -> Source:
    """Find what a text names: a table of the lake, SQL, or a file or folder.

    Parameters
    ----------
    lake
        Where the tables are.
    text
        `raw/orders`, `raw/orders@3` for a version of it, a `SELECT`, or a path.
    overlays
        For the query, see `ml_platform.lake.query.sql.attach`.

    Raises
    ------
    LookupError, FileNotFoundError, ValueError
        When there is no such table or file, or it is of no kind that can be read.
    """
    if _QUERY.match(text):
        return _query(lake, text, overlays)
    table, _, version = text.partition("@")
    if is_table(table) and (not version or version.isdigit()) and _means_table(lake, table, text):
        return _table(lake, table, int(version) if version else None)
    if "://" in text:
        raise ValueError(f"{text}: only local files are read; make the object a table of the lake (SourceTable)")
    return _files(Path(text))


def _means_table(lake: Lake, table: str, text: str) -> bool:
    """Whether a name that both a table and a file could have is that of a table."""
    return lake.exists(table) or not (Path(text).exists() or Path(text).suffix)


def _table(lake: Lake, table: str, version: int | None) -> Source:
    snapshot, access = lake.open_granted(table, version)
    identity = {"table": table, "version": snapshot.version(), **_as_granted(lake, {table: snapshot.version()})}
    if not access.is_whole:
        select, pins = f"SELECT * FROM {'.'.join(sql_name(table))}", {table: snapshot.version()}
        return Source(
            "table",
            table,
            identity,
            lambda folder: _staged(
                folder, lambda: sql.query_batches(lake, select, versions=pins, rows=_READ_ROWS), None
            ),
        )
    lake.record_read(table, snapshot.version(), [field.name for field in snapshot.schema().fields], None)

    def opened(folder: Path) -> Rows:
        # By an empty scan, which maps Delta's types as reading does.
        schema = dict(lake.read(table, version=snapshot.version()).collect_schema())
        if needs_delta_reader(snapshot):
            return _staged(folder, lambda: iter([pl.DataFrame(read_arrow(snapshot))]), schema)
        import pyarrow.dataset as ds

        read = Files() if lake.is_local else Files(lake.location(table), lake.storage_options)
        stretches = []
        for fragment in sorted(snapshot.to_pyarrow_dataset().get_fragments(), key=lambda one: str(one.path)):
            path = f"{lake.location(table)}/{fragment.path}" if lake.is_local else fragment.path
            constants = ds.get_partition_keys(fragment.partition_expression)
            counts = [
                fragment.metadata.row_group(number).num_rows for number in range(fragment.metadata.num_row_groups)
            ]
            stretches.append((path, counts, {name: constants[name] for name in constants if name in schema}))
        return Rows(_parts(stretches), schema, read=read)

    return Source("table", table, identity, opened)


def _as_granted(lake: Lake, versions: Mapping[str, int]) -> dict[str, str]:
    """What else decides the rows where a guard does: rows that were written for one principal are for no other."""
    if lake.guard is None:
        return {}
    granted = {table: str(lake.open_granted(table, version)[1]) for table, version in sorted(versions.items())}
    return {"as": lake.principal, "granted": hashlib.sha256(str(granted).encode()).hexdigest()}


def _query(lake: Lake, text: str, overlays: Overlays | None) -> Source:
    tables = sorted(sql.referenced_tables(text))
    pinned = lake.versions(tables)
    seen = _as_granted(lake, pinned)
    for table in tables:
        overlay = overlays(table, pinned[table]) if overlays is not None else None
        if overlay is not None and (whole := lake.without_guard()).exists(overlay.table):
            pinned[overlay.table] = whole.version(overlay.table)

    def opened(folder: Path) -> Rows:
        return _staged(
            folder, lambda: sql.query_batches(lake, text, versions=pinned, overlays=overlays, rows=_READ_ROWS), None
        )

    label = f"query {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Source("query", label, {"query": text, "tables": pinned, **seen}, opened)


def _files(path: Path) -> Source:
    place = path.expanduser().resolve()
    if not place.exists():
        raise FileNotFoundError(
            f"{path}: there is no such table of the lake, file or folder; say a table (raw/orders), a path, or a SELECT"
        )
    files = [place] if place.is_file() else [place / one.name for one in list_folder(place, "*") if "." in one.name]
    if not files:
        raise ValueError(f"{place} has no files")
    kinds = {file_format(file, Dialect()) for file in files}
    if len(kinds) > 1:
        raise ValueError(f"{place} has files of several kinds ({', '.join(sorted(kinds))}); say one of them")
    (kind,) = kinds
    if empty := [file for file in files if not file.stat().st_size]:
        raise ValueError(f"{empty[0]} is empty: it has neither columns nor rows")
    sizes = {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    return Source(
        "files",
        str(place),
        {"files": sizes},
        lambda folder: _open_files(files, kind, folder),
        files,
        place if place.is_dir() else None,
    )


def _open_files(files: Sequence[Path], kind: FileFormat, folder: Path) -> Rows:
    if kind == "parquet":
        return _open_parquet(files)
    if kind == "csv":
        dialect = guess_dialect(files[0]).files
        return _staged(
            folder, lambda: (frame for file in files for frame in csv_frames(file, dialect)), None, texts=True
        )
    return _staged(folder, lambda: (read_file(file) for file in files), None)


def _open_parquet(files: Sequence[Path]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema: dict[str, pl.DataType] = {}
    stretches: list[tuple[str, list[int], dict[str, Any]]] = []
    for file in files:
        try:
            metadata = pq.read_metadata(file)
            found = pl.read_parquet_schema(file)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"{file} cannot be read as Parquet: {error}") from error
        for name, dtype in found.items():
            if schema.setdefault(name, dtype) != dtype:
                raise ValueError(f"{file}: column '{name}' is {dtype}, in the files before it is {schema[name]}")
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        stretches.append((str(file), counts, {}))
    return Rows(_parts(stretches), schema)


def _parts(stretches: Iterable[tuple[str, Sequence[int], Mapping[str, Any]]]) -> list[Part]:
    """Cut files into parts, each some row groups of one file."""
    parts: list[Part] = []
    first = 0
    for path, counts, constants in stretches:
        groups: list[int] = []
        rows = 0
        for number, count in enumerate(counts):
            groups.append(number)
            rows += count
            if rows >= PART_ROWS or number == len(counts) - 1:
                if rows:
                    parts.append(Part(len(parts), path, tuple(groups), first, rows, constants))
                first, groups, rows = first + rows, [], 0
    return parts


def _staged(
    folder: Path,
    frames: Callable[[], Iterator[pl.DataFrame]],
    schema: Mapping[str, pl.DataType] | None,
    *,
    texts: bool = False,
) -> Rows:
    """Write frames as files of parts, unless that was done; a folder without the list of its files is begun anew."""
    marker = folder / _STAGED
    if not marker.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rows = _write_parts(folder, frames())
        replace_file(marker, msgspec.json.encode(_Staged(rows)))
    counts = msgspec.json.decode(marker.read_bytes(), type=_Staged).rows
    found = dict(pl.read_parquet_schema(folder / _part_name(0)))
    parts, first = [], 0
    for number, count in enumerate(counts):
        if count:
            parts.append(Part(number, str(folder / _part_name(number)), None, first, count))
        first += count
    return Rows(parts, schema or found, texts=texts)


def _write_parts(folder: Path, frames: Iterator[pl.DataFrame]) -> list[int]:
    """Write frames of one schema as files of about `PART_ROWS` rows, one at least; returns the rows of each."""
    import pyarrow.parquet as pq

    counts: list[int] = []
    writer: pq.ParquetWriter | None = None
    first: pl.Schema | None = None
    try:
        for whole in frames:
            if first is not None and whole.schema != first:
                raise ValueError(f"the source's columns change: {dict(first)}, then {dict(whole.schema)}")
            if not whole.columns:
                raise ValueError("the source has no columns")
            first = whole.schema
            for frame in whole.iter_slices(ROW_GROUP) if whole.height else [whole]:
                table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
                if writer is None:
                    writer = pq.ParquetWriter(folder / _part_name(len(counts)), table.schema, compression="lz4")
                    counts.append(0)
                writer.write_table(table)
                counts[-1] += frame.height
                if counts[-1] >= PART_ROWS:
                    writer.close()
                    writer = None
    finally:
        if writer is not None:
            writer.close()
    if not counts:
        raise ValueError("the source has no columns and no rows")
    return counts


def _part_name(number: int) -> str:
    return f"rows-{number:05d}.parquet"
