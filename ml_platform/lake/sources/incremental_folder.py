"""Ingests a folder to which files are added: each file is ingested exactly once, even after crashes.

The commit that appends rows of files also records the files' names (each as a Delta application transaction), so both
happen or neither. Rejected rows are committed before, in the same way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ml_platform.lake.contracts.contract import ROW
from ml_platform.lake.contracts.delta_constraints import loosen, tighten
from ml_platform.lake.contracts.schema_evolution import fit, put_back, set_aside
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import IngestReport, Progress, quarantine_of, quarantined, validate
from ml_platform.lake.sources.file_readers import read_source_file
from ml_platform.lake.sources.source_spec import FolderSource, SourceSpec, resolve
from ml_platform.lake.sources.stored_files import changed_at, list_folder
from ml_platform.lake.storage.merge import append_once
from ml_platform.lake.storage.tables import Lake

_FILES, _ROWS = 200, 500_000  # most files and rows, about, in one commit
_FILE = "ingest_file"


@dataclass(frozen=True)
class FolderFiles:
    """Files of a folder by their state; each is named by its path in the folder."""

    new: tuple[str, ...]
    read: tuple[str, ...]
    changed: tuple[str, ...]  # after they were read; they are not read again
    unsettled: tuple[str, ...]  # new, but perhaps still being written
    changed_at: Mapping[str, int]  # in microseconds since 1970


def list_files(lake: Lake, spec: SourceSpec) -> FolderFiles:
    """List the folder's files, and which of them the table has.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    source = _source(spec)
    try:
        files = list_folder(resolve(source.path), source.pattern)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Make it, or correct folder.path of '{spec.name}'.") from None
    done = lake.deliveries(spec.name, lake.version(spec.name)) if lake.exists(spec.name) else {}
    sorted_out: dict[str, list[str]] = {"new": [], "read": [], "changed": [], "unsettled": []}
    for file in files:
        read = done.get(_transaction(file.name))
        if read is not None:
            sorted_out["read" if read == file.changed_at else "changed"].append(file.name)
        else:
            sorted_out["new" if file.age >= source.quiet_seconds else "unsettled"].append(file.name)
    groups = {state: tuple(names) for state, names in sorted_out.items()}
    return FolderFiles(**groups, changed_at={file.name: file.changed_at for file in files})


def load_new_files(lake: Lake, spec: SourceSpec, *, progress: Progress = lambda _line: None) -> IngestReport:
    """Append the rows of every file that was not read yet; rows that break the contract go to the quarantine.

    Rows whose primary key is already in the table are quarantined too. Small files are committed together.

    Parameters
    ----------
    progress
        Called with a line of text after each commit.

    Raises
    ------
    SchemaMismatch
        After all other files were read, if some could not be; the message names each and why.
    """
    files, contract = list_files(lake, spec), spec.schema_class()
    loosen(lake, spec.name, contract)
    waiting: list[_File] = []
    broken: list[str] = []
    read = written = 0
    reasons: Counter[str] = Counter()

    def commit(number: int) -> None:
        nonlocal read, written
        try:
            accepted, rejected = _commit(lake, spec, waiting)
        except ValueError as error:  # about the table's columns or constraints, so it concerns all these files
            broken.extend(_problem(file.name, error) for file in waiting)
        else:
            read, written = read + accepted + rejected.height, written + accepted
            reasons.update(rejected["reasons"].explode(empty_as_null=False).to_list())
            progress(f"{number} of {len(files.new)} files, {read} rows: {waiting[-1].name}")
        waiting.clear()

    for number, name in enumerate(files.new, start=1):
        try:
            file = _read(spec, name, files.changed_at[name])
        except (FileNotFoundError, ValueError) as error:
            broken.append(_problem(name, error))
            continue
        if file is None:
            progress(f"{number} of {len(files.new)} files: {name} was changed meanwhile, it is left for the next run")
            continue
        if waiting and file.accepted.schema != waiting[0].accepted.schema:
            commit(number - 1)
        waiting.append(file)
        if len(waiting) == _FILES or sum(one.original.height for one in waiting) >= _ROWS:
            commit(number)
    if waiting:
        commit(len(files.new))
    if broken:
        raise SchemaMismatch(
            f"{len(broken)} of {len(files.new)} files for '{spec.name}'", broken, "The others were read."
        )
    if not lake.exists(spec.name):
        lake.append(spec.name, contract.create_empty(), partition_by=spec.partition_by)
    unheld, counted = tighten(lake, spec.name, contract), dict(reasons.most_common())
    return IngestReport(spec.name, read, written, read - written, lake.version(spec.name), counted, unheld)


@dataclass(frozen=True)
class _File:
    """A file that was read: its original rows, those that meet the contract, and the rejected ones with reasons."""

    name: str
    changed_at: int
    original: pl.DataFrame
    accepted: pl.DataFrame
    rejected: pl.DataFrame


def _read(spec: SourceSpec, name: str, as_of: int) -> _File | None:
    """Read a file; None if it was changed since it was listed, perhaps while it was read."""
    source, contract = _source(spec), spec.schema_class()
    rows = read_source_file(spec, _path(source, name))
    if changed_at(resolve(source.path), name) != as_of:
        return None
    rows = rows if rows.columns else contract.create_empty()  # an empty file has no columns to check
    known, extra = set_aside(rows, contract, spec.evolution)
    verdict = validate(known, contract, where=f"{name} for '{spec.name}'")
    return _File(name, as_of, rows, put_back(verdict.accepted, extra), verdict.rejected)


def _commit(lake: Lake, spec: SourceSpec, files: Sequence[_File]) -> tuple[int, pl.DataFrame]:
    """Append files that have the same columns; return the number of rows appended, and the rejected rows."""
    rows = pl.concat(file.accepted.with_columns(pl.lit(file.name).alias(_FILE)) for file in files)
    again = _again(lake, spec, rows)
    rejected = pl.concat(file.rejected.with_columns(pl.lit(file.name).alias(_FILE)) for file in files)
    rejected = pl.concat([rejected, again])
    rows = rows.join(again, on=[_FILE, ROW], how="anti", maintain_order="left")
    fitted = fit(lake, spec.name, rows.drop(ROW, _FILE), spec.evolution)
    if rejected.height:
        now, of_file = datetime.now(UTC), {file.name: rejected.filter(pl.col(_FILE) == file.name) for file in files}
        bad = pl.concat(
            quarantined(file.original, of_file[file.name].sort(ROW), source=file.name, at=now) for file in files
        )
        # A file that is read again after a restore is quarantined again only if it was changed.
        states = {file.name: f"{_transaction(file.name)}@{file.changed_at}" for file in files}
        append_once(
            lake,
            quarantine_of(spec.name),
            bad,
            names=bad["source"].replace_strict(states),
            numbers={states[file.name]: file.changed_at for file in files},
        )
    append_once(
        lake,
        spec.name,
        fitted,
        names=rows.select(pl.lit(_transaction("")) + pl.col(_FILE)).to_series(),
        numbers={_transaction(file.name): file.changed_at for file in files},
        partition_by=spec.partition_by,
        add_columns=spec.evolution == "add_columns",
    )
    return rows.height, rejected


def _again(lake: Lake, spec: SourceSpec, rows: pl.DataFrame) -> pl.DataFrame:
    """Reject rows whose primary key is in the table already, or in an earlier row."""
    repeated = rows.clear()
    if key := spec.schema_class().primary_key():
        first = rows.select(pl.struct(key).is_first_distinct()).to_series()
        repeated = rows.filter(~first)
        if lake.exists(spec.name):
            in_table = rows.filter(first).lazy().join(lake.read(spec.name).select(key), on=key, how="semi").collect()
            repeated = pl.concat([repeated, in_table])
    reason = [f"the table has a row with this {', '.join(key)} already"]
    return repeated.select(ROW, pl.lit(reason, dtype=pl.List(pl.String)).alias("reasons"), _FILE)


def _problem(name: str, error: Exception) -> str:
    return f"{name}: {str(error).removesuffix('.')}"


def read_folder(spec: SourceSpec) -> pl.DataFrame:
    """Read all files into one frame."""
    source = _source(spec)
    files = list_folder(resolve(source.path), source.pattern)
    frames = [read_source_file(spec, _path(source, file.name)) for file in files]
    return pl.concat(frames, how="diagonal")


def _path(source: FolderSource, name: str) -> Path | str:
    folder = resolve(source.path)
    return folder / name if isinstance(folder, Path) else f"{folder}/{name}"


def _source(spec: SourceSpec) -> FolderSource:
    if spec.folder is None:
        raise ValueError(f"'{spec.name}' does not read a folder.")
    return spec.folder


def _transaction(name: str) -> str:
    return f"file/{name}"
