"""Incremental computation: only the days of a view that changed source rows can affect, with the same result as all."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import duckdb
import polars as pl
from deltalake.exceptions import DeltaError

from ml_platform.features.incremental_spec import DAY_COLUMN, Incremental, Span
from ml_platform.features.views.batches import view_batches
from ml_platform.features.views.view import FeatureView
from ml_platform.instants import earlier
from ml_platform.lake.storage.commits import KEEPS_ROWS
from ml_platform.lake.storage.snapshots import needs_delta_reader
from ml_platform.lake.storage.tables import Lake

STATE = "governance/feature_sources"

_DAY = timedelta(days=1)
_INSTANT = pl.Datetime("us", "UTC")
_SCHEMA: dict[str, Any] = {
    "view": pl.String,
    "hash": pl.String,
    "source": pl.String,
    "version": pl.Int64,
    "newest": _INSTANT,
    "computed": pl.Int64,  # version of the view's own table
}


def changed_spans(lake: Lake, view: FeatureView, versions: Mapping[str, int]) -> list[Span] | None:
    """Days of the view that must be computed again for these versions of its sources; None: all of them.

    Raises
    ------
    ValueError
        If a source has no time column declared, or one that is not of a time type.
    """
    incremental = _declared(view)
    for table, column in incremental.times.items():
        _check_time(view, table, column, lake.read(table, version=versions[table]).collect_schema())
    state = _state(lake, view)
    if state is None or set(state) != set(versions):
        return None
    spans: list[Span] = []
    for table, (version, newest) in state.items():
        if version == versions[table]:
            continue
        column = incremental.times[table]
        days, now = changed_days(lake, table, column, version, versions[table]), _newest(lake, table, column, versions)
        if days is None or newest is None or now is None:
            return None
        spans += [(day, _end(day, incremental.look_back)) for day in days]
        if now != newest:  # the end of the data moved, on which rows near it depend
            spans.append((min(now, newest).date(), None))
    return _merged(spans)


def compute_span(
    lake: Lake, view: FeatureView, versions: Mapping[str, int], span: Span, connection: duckdb.DuckDBPyConnection
) -> pl.DataFrame:
    """Compute the rows of the view whose event time is in a span of days, from only the source rows they need."""
    incremental = _declared(view)
    start = datetime.combine(span[0], time(), UTC)
    since = incremental.times, earlier(start, incremental.look_back)
    batches = view_batches(lake, view, versions, connection, since=since)
    at = pl.col(view.event_time)
    inside = at >= start if span[1] is None else (at >= start) & (at < datetime.combine(span[1], time(), UTC))
    return pl.concat(frame.filter(inside) for frame in batches)


def write_all(lake: Lake, view: FeatureView, batches: Callable[[], Iterable[pl.DataFrame]]) -> int:
    """Replace the view's whole table, partitioned by day if it is incremental or was; return the version."""
    by_days = lake.exists(view.table) and DAY_COLUMN in lake.schema(view.table)
    if view.incremental is None and not (by_days and DAY_COLUMN not in {*view.columns, *view.keys}):
        return lake.replace_in_batches(view.table, batches)
    return lake.replace_in_batches(
        view.table, lambda: (_with_day(view, frame) for frame in batches()), partition_by=(DAY_COLUMN,)
    )


def write_span(lake: Lake, view: FeatureView, frame: pl.DataFrame, span: Span) -> int:
    """Replace a span of days of the view's table; return the version."""
    where = f"{DAY_COLUMN} >= '{span[0]}'" + (f" AND {DAY_COLUMN} < '{span[1]}'" if span[1] else "")
    return lake.replace(view.table, _with_day(view, frame), where=where)


def _with_day(view: FeatureView, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(view.event_time).dt.date().alias(DAY_COLUMN))


def changed_days(lake: Lake, table: str, column: str, old: int, new: int) -> set[date] | None:
    """UTC days of the rows in which two versions differ; None when that cannot be determined.

    Only files that belong to just one of the versions are read. Rows that only moved to another file, as by compaction,
    cancel out.
    """
    try:
        snapshots = [lake.snapshot(table, version) for version in (old, new)]
        if any(map(needs_delta_reader, snapshots)):
            return None
        before, after = (set(snapshot.file_uris()) for snapshot in snapshots)
        removed, added = (_day_sums(lake, files, column) for files in (before - after, after - before))
    except (LookupError, OSError, DeltaError, pl.exceptions.PolarsError):
        return None  # files of the old version were deleted by maintenance
    if removed is None or added is None:
        return None
    days = set(removed) | set(added)
    return {day for day in days if day is not None and removed.get(day) != added.get(day)} if None not in days else None


def record_sources(lake: Lake, view: FeatureView, versions: Mapping[str, int], computed: int) -> None:
    """Record the versions of the sources from which a version of the view's table was computed."""
    times = _declared(view).times if view.incremental else {}
    rows = [
        {
            "view": view.name,
            "hash": _declaration_hash(view),
            "source": table,
            "version": version,
            "newest": _newest(lake, table, times[table], versions) if times else None,
            "computed": computed,
        }
        for table, version in versions.items()
    ]
    where = f"view = '{view.name}'" if lake.exists(STATE) else None
    lake.replace(STATE, pl.DataFrame(rows, schema=_SCHEMA), where=where, partition_by=("view",), add_columns=True)


def computed_from(lake: Lake, view: FeatureView) -> tuple[int, dict[str, int]] | None:
    """Version of a view's table that was computed last by its definition, and those of the sources; None if unknown."""
    rows = _records(lake, view)
    return (rows[0]["computed"], {row["source"]: row["version"] for row in rows}) if rows else None


def _end(day: date, look_back: timedelta) -> date | None:
    """Day after the last one that rows of a day can affect; None: there is no such day."""
    days = look_back // _DAY + 2
    return day + days * _DAY if days <= (date.max - day).days else None


def _declared(view: FeatureView) -> Incremental:
    if view.incremental is None:
        raise ValueError(f"view '{view.name}' does not declare `incremental`")
    sources, named = set(view.source_tables), set(view.incremental.times)
    if missing := sorted(sources - named):
        raise ValueError(
            f"view '{view.name}': incremental.times must name the time column of every source; missing {missing}"
        )
    if surplus := sorted(named - sources):
        raise ValueError(f"view '{view.name}': incremental.times names {surplus}, which the view does not read")
    return view.incremental


def _check_time(view: FeatureView, table: str, column: str, schema: pl.Schema) -> None:
    """Refuse a time column that is not of a time type, before anything is computed."""
    dtype = schema.get(column)
    if dtype not in (pl.Date(), _INSTANT):
        has = "there is no such column" if dtype is None else f"it is {dtype}"
        raise ValueError(
            f"view '{view.name}': incremental.times wants a timestamp or a date of {table}, found '{column}': "
            f"{has}; choose one of {[name for name, dtype in schema.items() if dtype.is_temporal()]}"
        )


def _newest(lake: Lake, table: str, column: str, versions: Mapping[str, int]) -> datetime | None:
    newest = lake.read(table, version=versions[table]).select(pl.col(column).max().cast(_INSTANT)).collect().item()
    return newest if isinstance(newest, datetime) else None


def _declaration_hash(view: FeatureView) -> str:
    """Hash of the view with its incremental declaration: when a wrong one is corrected, all rows are computed again."""
    if view.incremental is None:
        return view.hash
    declaration = _declared(view).model_dump_json()
    return hashlib.sha256(f"{view.hash} {declaration}".encode()).hexdigest()


def _state(lake: Lake, view: FeatureView) -> dict[str, tuple[int, datetime | None]] | None:
    """Source → version and newest time from which the table was computed.

    None when another definition computed it, or somebody else wrote to it since (for example restored a version).
    """
    rows = _records(lake, view)
    if not rows or not _untouched(lake, view.table, rows[0]["computed"]):
        return None
    return {row["source"]: (row["version"], row["newest"]) for row in rows}


def _records(lake: Lake, view: FeatureView) -> list[dict[str, Any]]:
    """Rows of `STATE` about a view and its definition."""
    if not lake.exists(STATE) or not lake.exists(view.table):
        return []
    ours = (pl.col("view") == view.name) & (pl.col("hash") == _declaration_hash(view))
    return lake.read(STATE).filter(ours).collect().to_dicts()


def _untouched(lake: Lake, table: str, since: int) -> bool:
    """Whether a table still has the rows of an earlier version."""
    now = lake.version(table)
    if now == since:
        return True
    unchanged = lake.history(table).filter(pl.col("operation").is_in(KEEPS_ROWS)).get_column("version").to_list()
    return now > since and set(range(since + 1, now + 1)) <= set(unchanged)


def _day_sums(lake: Lake, files: Iterable[str], column: str) -> dict[date | None, tuple[int, int]] | None:
    """Day → number of rows and sum of their hashes, over some files of a table; None if they lack the time column."""
    sums: dict[date | None, tuple[int, int]] = {}
    for file in sorted(files):
        scan = pl.scan_parquet(file, storage_options=lake.storage_options, hive_partitioning=False)
        names = sorted(scan.collect_schema().names())
        folder = pl.lit(file.rsplit("/", 1)[0]).alias("__file_folder")  # partition columns are not in the file
        if column not in names:
            return None
        counted = (
            scan.group_by(pl.col(column).cast(_INSTANT).dt.date().alias("day"))
            .agg(rows=pl.len(), hash=(pl.struct(*names, folder).hash() % 2**32).sum())
            .collect(engine="streaming")
        )
        for day, rows, total in counted.iter_rows():
            known = sums.get(day, (0, 0))
            sums[day] = (known[0] + rows, known[1] + total)
    return sums


def _merged(spans: list[Span]) -> list[Span]:
    """Sort spans, and join those that overlap or touch."""
    merged: list[Span] = []
    for first, end in sorted(spans, key=lambda span: span[0]):
        last = merged[-1] if merged else None
        if last is None or (last[1] is not None and first > last[1]):
            merged.append((first, end))
        elif last[1] is not None and (end is None or end > last[1]):
            merged[-1] = (last[0], end)
    return merged
