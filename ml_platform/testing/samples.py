"""Rows that stand for a source when tests run: the first of the source itself, or a file beside the tests."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from ml_platform.lake.ingestion.ingest import IngestReport
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.registry import declared_sources
from ml_platform.lake.sources.source_spec import FileSource
from ml_platform.lake.storage.tables import Lake

SUFFIXES = (".csv", ".parquet", ".jsonl")


def sample_file(samples: Path | None, table: str) -> Path | None:
    """Find the sample of a table, `<samples>/<table>.csv`, `.parquet` or `.jsonl`; None if there is none.

    Raises
    ------
    AssertionError
        If there is more than one.
    """
    paths = [] if samples is None else [samples / f"{table}{suffix}" for suffix in SUFFIXES]
    there = [path for path in paths if path.is_file()]
    if len(there) > 1:
        raise AssertionError(f"wanted one sample of {table}, found {', '.join(map(str, there))}; remove all but one")
    return there[0] if there else None


def load_sample(lake: Lake, raw: RawTable, *, file: Path | None, days: int, rows: int) -> IngestReport:
    """Load the sample of a declared table into a lake, through its contract.

    Parameters
    ----------
    lake
        Where to.
    raw
        The table.
    file
        Sample file; the source is read when None.
    days
        How many of its first days are read of a table with a calendar, when the source is read.
    rows
        How many of its first rows are kept of another table.
    """
    if file is not None:
        return _from_file(raw, file).load(lake)
    if raw.calendar is None:
        return replace(raw, read=lambda start, end: raw.read(start, end).head(rows)).load(lake)
    first = raw.calendar.first
    return raw.load(lake, first, min(first + timedelta(days=days), raw.calendar.last + timedelta(days=1)))


def _from_file(raw: RawTable, file: Path) -> RawTable:
    """Put a file in place of a table's source; contract and conversion stay."""
    spec = declared_sources().get(raw.name)
    if spec is not None:
        declared = spec.file or spec.folder
        options = declared.model_dump(include=set(Files.model_fields) - {"format"}) if declared is not None else {}
        source = FileSource(path=str(file.resolve()), **options)
        return raw_table(spec.model_copy(update={"file": source, "folder": None, "sql": None}))

    def read(_start: date | None, _end: date | None) -> pl.DataFrame:
        return read_file(file)

    return replace(raw, read=read, source=str(file))
