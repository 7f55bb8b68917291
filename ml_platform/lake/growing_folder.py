"""A folder that grows by files: each comes into the table once, whoever tries again after whatever crash.

The commit that appends a file's rows carries the file's name (an application transaction of Delta), so the rows and the
fact that they were read are one. The rejected rows are committed before, under the same name.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ml_platform.lake.constraints import loosen, tighten
from ml_platform.lake.contracts import ROW
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.evolution import fit, set_aside
from ml_platform.lake.ingest import IngestReport, quarantine_of, quarantined, validate
from ml_platform.lake.readers import changed_at, list_folder, read_rows
from ml_platform.lake.source_spec import FolderSource, SourceSpec, resolve
from ml_platform.lake.tables import Lake

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FolderFiles:
    """Files of a folder by what is to be done with them, each by its path below the folder."""

    new: tuple[str, ...]
    read: tuple[str, ...]
    changed: tuple[str, ...]  # changed since they were read: not read again
    unsettled: tuple[str, ...]  # new, but perhaps still being written
    changed_at: Mapping[str, int]  # in microseconds since 1970


def list_files(lake: Lake, spec: SourceSpec) -> FolderFiles:
    """Compare the folder with what the table has read.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    source = _source(spec)
    try:
        found = list_folder(resolve(source.path), source.pattern)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Make it, or correct folder.path of '{spec.name}'.") from None
    snapshot = lake.snapshot(spec.name) if lake.exists(spec.name) else None
    sorted_out: dict[str, list[str]] = {"new": [], "read": [], "changed": [], "unsettled": []}
    for file in found:
        read = snapshot.transaction_version(_transaction(file.name)) if snapshot else None
        if read is not None:
            sorted_out["read" if read == file.changed_at else "changed"].append(file.name)
        else:
            sorted_out["new" if file.age >= source.quiet_seconds else "unsettled"].append(file.name)
    groups = {state: tuple(names) for state, names in sorted_out.items()}
    return FolderFiles(**groups, changed_at={file.name: file.changed_at for file in found})


def load_new_files(lake: Lake, spec: SourceSpec, *, progress: Progress = lambda _line: None) -> IngestReport:
    """Append the rows of every file that was not read yet; those that break the contract go to the quarantine.

    A row whose primary key the table has already is quarantined too.

    Parameters
    ----------
    progress
        Told after each file how far it is.

    Raises
    ------
    SchemaMismatch
        If a file's columns are not the contract's, naming each such file, after all others have been read.
    """
    files, contract = list_files(lake, spec), spec.schema_class()
    loosen(lake, spec.name, contract)
    read = written = 0
    reasons: Counter[str] = Counter()
    broken = []
    for number, name in enumerate(files.new, start=1):
        try:
            original = _read(spec, name, files.changed_at[name])
            if original is None:
                progress(
                    f"{number} of {len(files.new)} files: {name} was changed meanwhile, and waits for the next run"
                )
                continue
            rows, accepted, why = _load(lake, spec, name, original, files.changed_at[name])
        except (FileNotFoundError, ValueError) as error:
            broken.append(f"{name}: {error}")
            continue
        read, written = read + rows, written + accepted
        reasons.update(why)
        progress(f"{number} of {len(files.new)} files, {read} rows: {name}")
    if broken:
        raise SchemaMismatch(
            f"{len(broken)} of {len(files.new)} files for '{spec.name}'", broken, "The others were read."
        )
    if not lake.exists(spec.name):
        lake.append(spec.name, contract.create_empty(), partition_by=spec.partition_by)
    unheld, counted = tighten(lake, spec.name, contract), dict(reasons.most_common())
    return IngestReport(spec.name, read, written, read - written, lake.version(spec.name), counted, unheld)


def _read(spec: SourceSpec, name: str, as_of: int) -> pl.DataFrame | None:
    """Read a file; None if it was changed since it was listed, and so perhaps while it was read."""
    source = _source(spec)
    rows = read_rows(spec, _path(source, name))
    if changed_at(resolve(source.path), name) != as_of:
        return None
    return rows if rows.columns else spec.schema_class().create_empty()  # of no bytes: no columns to judge


def _load(lake: Lake, spec: SourceSpec, name: str, original: pl.DataFrame, as_of: int) -> tuple[int, int, list[str]]:
    contract = spec.schema_class()
    known, extra = set_aside(original, contract, spec.evolution)
    verdict = validate(known, contract, where=f"{name} for '{spec.name}'")
    accepted, rejected = verdict.accepted, verdict.rejected
    if (key := contract.primary_key()) and lake.exists(spec.name):
        taken = accepted.lazy().join(lake.read(spec.name).select(key), on=key, how="semi").select(ROW).collect()
        reason = [f"the table has a row with this {', '.join(key)} already"]
        again = taken.with_columns(reasons=pl.lit(reason, dtype=pl.List(pl.String)))
        accepted = accepted.join(taken, on=ROW, how="anti", maintain_order="left")
        rejected = pl.concat([rejected, again]).sort(ROW)
    rows = fit(lake, spec.name, accepted.join(extra, on=ROW, maintain_order="left").drop(ROW), spec.evolution)
    once = (_transaction(name), as_of)
    if rejected.height:
        bad = quarantined(original, rejected, source=name, at=datetime.now(UTC))
        lake.append(quarantine_of(spec.name), bad, app_transaction=once)
    grows = spec.evolution == "add_columns"
    lake.append(spec.name, rows, partition_by=spec.partition_by, app_transaction=once, add_columns=grows)
    return original.height, accepted.height, rejected["reasons"].explode(empty_as_null=False).to_list()


def read_folder(spec: SourceSpec) -> pl.DataFrame:
    """Read all files at once."""
    source = _source(spec)
    files = list_folder(resolve(source.path), source.pattern)
    frames = [read_rows(spec, _path(source, file.name)) for file in files]
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
