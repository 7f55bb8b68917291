"""Pushed rows in the lake: ingested from serving's log into `pushed/<view>__<definition>`, and read with computed rows.

Rows that a view's query computes are in `features/<view>`, pushed rows in a separate table. No computation writes
there, so none can lose a pushed row. Everything that reads a view (training sets, publishing, skew, freshness) reads
both through `read_view`, each table at its own version; SQL does so through `pushed_overlays`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl

from ml_platform.features.online.push_log import DEFINITION_DIGITS, Pushed, stream
from ml_platform.features.online.store import ViewSchema
from ml_platform.features.views.declared_types import DTYPES, UTC_MICROSECONDS
from ml_platform.features.views.recorded_definitions import computed_hash
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.names import sql_name
from ml_platform.lake.query import sql
from ml_platform.lake.query.overlays import Overlay, Overlays
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Input
from ml_platform.segment_log.ingest import Ingested, ingest_segments
from ml_platform.segment_log.lag import log_lag, waiting_lines

PUSHED_AT, CALLER, REQUEST, ROW = "__pushed_at", "__caller", "__request_id", "__row"
_SENT_AT = "__sent_at"

_decode = msgspec.json.Decoder(Pushed).decode


def pushed_table(view: FeatureView) -> str:
    """Lake table of the rows pushed for the present definition of a view."""
    return _table(view.name, view.hash[:DEFINITION_DIGITS])


def view_tables(lake: Lake, view: FeatureView) -> tuple[str, ...]:
    """Tables that hold the rows of a view: its own, and that of pushed rows if there is one."""
    pushed = pushed_table(view)
    return (view.table, pushed) if lake.without_guard().exists(pushed) else (view.table,)


def read_view(
    lake: Lake,
    view: FeatureView,
    versions: Mapping[str, int] | None = None,
    *,
    waiting: pl.DataFrame | None = None,
) -> pl.LazyFrame:
    """Scan the rows of a view, computed and pushed.

    Among rows with equal keys a pushed one replaces the computed one, and the one pushed last the others. In a view
    with a `created` column, `created` of a pushed row is the instant of the push.

    Parameters
    ----------
    lake
        Where the tables are.
    view
        The view.
    versions
        Versions of `view_tables`, the newest when None; without a version for the pushed rows none are read.
    waiting
        Pushed rows that are not in the lake yet (`waiting_rows`); they count like those that are.

    Raises
    ------
    AccessDenied
        If the lake's guard grants nothing of the view. Columns, masks and rows are those that it grants of the view's
        own table.
    """
    if versions is None:
        versions = lake.versions(view_tables(lake, view))
    if lake.guard is not None:
        opened, access = lake.open_granted(view.table, versions[view.table])
        lake.record_read(view.table, opened.version(), list(access.columns or view.columns), None)
        if not access.is_whole:
            return _granted_rows(lake, view, versions, waiting)
        lake = lake.without_guard()
    computed = lake.read(view.table, version=versions[view.table])
    table = pushed_table(view)
    sent = [lake.read(table, version=versions[table])] if table in versions else []
    sent += [waiting.lazy()] if waiting is not None else []
    if not sent:
        return computed
    keys = list(view.keys)
    names = [*keys, *view.columns]
    dtypes = computed.select(names).collect_schema()
    values = [pl.col(PUSHED_AT if name == view.created else name).cast(dtypes[name]).alias(name) for name in names]
    pushed = (
        pl.concat(rows.select(*values, pl.col(PUSHED_AT).alias(_SENT_AT), REQUEST, ROW) for rows in sent)
        .sort(_SENT_AT, REQUEST, ROW)
        .unique(keys, keep="last", maintain_order=True)
        .select(names)
    )
    return pl.concat([computed.select(names).join(pushed, on=keys, how="anti"), pushed])


def _granted_rows(
    lake: Lake, view: FeatureView, versions: Mapping[str, int], waiting: pl.DataFrame | None
) -> pl.LazyFrame:
    """Rows of a view for whom a part of them is granted: computed and pushed ones, then the filter and masks."""
    if waiting is not None:
        lake.check_whole(view.table)  # raises
    pushed = pushed_table(view)

    def overlay(table: str, _: int) -> Overlay | None:
        return _overlay(view) if table == view.table and pushed in versions else None

    pins = {table: version for table, version in versions.items() if table in {view.table, pushed}}
    select = f"SELECT * FROM {'.'.join(sql_name(view.table))}"
    return sql.query(lake.without_reads(), select, versions=pins, tables=[view.table], overlays=overlay).lazy()


def pushed_overlays(lake: Lake, views: Callable[[], Mapping[str, FeatureView]]) -> Overlays:
    """Make the `overlays` for `ml_platform.lake.query.sql` with which a view's table has the rows of `read_view`.

    Parameters
    ----------
    lake
        Where the tables are.
    views
        Gives the views by name; called only when rows were pushed to a view that the SQL names.
    """

    lake = lake.without_guard()  # an overlay is a part of its view, and guarded as that

    def overlay(table: str, version: int) -> Overlay | None:
        schema, _, name = table.partition("/")
        if schema != "features" or not any(other.startswith(_table(name, "")) for other in lake.tables()):
            return None
        view = views().get(name)
        if view is None or computed_hash(lake, name, version) not in {None, view.hash}:
            return None  # another definition computed this version, so the pushed rows do not belong to it
        return _overlay(view)

    return overlay


def _overlay(view: FeatureView) -> Overlay:
    created = {view.created: PUSHED_AT} if view.created else {}
    return Overlay(pushed_table(view), view.keys, tuple(view.columns), (PUSHED_AT, REQUEST, ROW), created)


def view_schema(view: FeatureView, dtypes: pl.Schema) -> ViewSchema | None:
    """Schema of a view's pushed rows, given the types of its rows; None if JSON cannot carry an entity column."""
    entity = [_key_field(name, dtypes[name]) for name in view.entity]
    if None in entity:
        return None
    columns = (
        Input(name=name, type=column.type, description=column.description, unit=column.unit)
        for name, column in view.columns.items()
    )
    return ViewSchema(
        entity=tuple(filter(None, entity)),
        event_time=view.event_time,
        columns=tuple(columns),
        ttl_seconds=view.ttl.total_seconds() if view.ttl else None,
        description=view.description,
        streamed=view.stream is not None,
    )


def ingest_pushed(lake: Lake, folder: Path, view: str) -> list[Ingested]:
    """Ingest the rows pushed to a view since the last run into its tables, each row exactly once.

    Parameters
    ----------
    lake
        Where the tables are.
    folder
        The platform's `push_log_dir`.
    view
        Name of the view.

    Returns
    -------
    list
        A report for each definition for which rows were ever pushed.
    """
    return [
        ingest_segments(lake, table, segments, _read, written_at=PUSHED_AT)
        for table, segments in _streams(folder, view)
    ]


def has_pushed(folder: Path, view: str) -> bool:
    """Whether rows pushed to a view wait for `ingest_pushed`."""
    return any(log_lag(segments).waiting_bytes for _, segments in _streams(folder, view))


def waiting_rows(folder: Path, view: FeatureView) -> pl.DataFrame | None:
    """Read the rows pushed for the present definition of a view that `ingest_pushed` has not taken yet, if any.

    Rows that it takes meanwhile may be among them. A line that is being written is not.
    """
    rows = [_read(lines, "")[0] for lines in waiting_lines(folder / stream(view.name, view.hash))]
    frames = [frame for frame in rows if frame is not None]
    return pl.concat(frames) if frames else None


def _streams(folder: Path, view: str) -> Iterator[tuple[str, Path]]:
    for segments in sorted((folder / view).glob("*/")):
        yield _table(view, segments.name), segments


def _table(view: str, definition: str) -> str:
    return f"pushed/{view}__{definition}"


def _key_field(name: str, dtype: pl.DataType) -> Input | None:
    """Field of an entity column, with the bounds of its integer type; None for an unsupported type."""
    if dtype.is_integer():
        low, high = pl.select(pl.lit(0, dtype).lower_bound().alias("low"), pl.lit(0, dtype).upper_bound()).row(0)
        bounded = dtype != pl.Int64  # requests are checked for 64 bits anyway, and a double cannot hold the bounds
        return Input(name=name, type="integer", **({"minimum": low, "maximum": high} if bounded else {}))
    if dtype == pl.String:
        return Input(name=name, type="string")
    if dtype == pl.Boolean:
        return Input(name=name, type="boolean")
    return Input(name=name, type="timestamp") if dtype == UTC_MICROSECONDS else None


def _read(chunk: bytes, _: str) -> tuple[pl.DataFrame | None, int]:
    """Read the rows of a chunk of lines; also count the torn lines."""
    sent, torn = [], 0
    for line in filter(None, chunk.split(b"\n")):
        try:
            sent.append(_decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            torn += 1
    return _frame(sent) if sent else None, torn


def _frame(sent: Sequence[Pushed]) -> pl.DataFrame:
    """Make rows of the table; all requests of one stream have the same types."""
    types = sent[0].types
    timestamps = [name for name, type_ in types.items() if type_ == "timestamp"]
    schema = {
        **{name: DTYPES["integer" if type_ == "timestamp" else type_] for name, type_ in types.items()},
        PUSHED_AT: UTC_MICROSECONDS,
        CALLER: pl.String(),
        REQUEST: pl.String(),
        ROW: pl.Int64(),
    }
    rows = [
        (*row, pushed.time, pushed.caller, pushed.request_id, number)
        for pushed in sent
        for number, row in enumerate(pushed.rows)
    ]
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col(timestamps).cast(UTC_MICROSECONDS))
