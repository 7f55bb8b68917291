"""Edges up to the views: sources and streams → raw tables → views → online store."""

from collections.abc import Iterator, Mapping

from ml_platform.features.online.pushed_rows import pushed_table
from ml_platform.features.stream_spec import ARRIVED, POSITION, TOO_LATE
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lineage.graph import Edge, Kind, Node
from ml_platform.lineage.objects import ObjectInfo
from ml_platform.lineage.python_columns import transform_uses, view_uses
from ml_platform.lineage.sql_columns import sql_columns
from ml_platform.lineage.table_types import TableTypes, sql_table


def source_edges(table: RawTable) -> Iterator[Edge]:
    """From the columns of a source to those of its raw table: by name, or through its `transform`."""
    source, target = source_object(table), sql_table(table.name)
    columns = list(table.contract.columns())
    if table.transform is None or table.raw_contract is None:
        yield from (Edge(Node(source, name), Node(target, name), "copy") for name in columns)
        return
    uses = transform_uses(table.transform, list(table.raw_contract.columns()), columns)
    for column, used in uses.items():
        for name, kinds in used.items():
            yield from (Edge(Node(source, name), Node(target, column), kind) for kind in kinds)


def source_object(table: RawTable) -> str:
    """Name of a raw table's source in the graph."""
    return f"source:{table.name.partition('/')[2]}"


def stream_object(view: FeatureView) -> str:
    """Name of a view's stream in the graph: by the table that it fills, since views share it."""
    assert view.rolling is not None
    return f"stream:{view.rolling.source.partition('/')[2]}"


def stream_edges(view: FeatureView) -> Iterator[Edge]:
    """From the fields of a stream's events to the columns of the raw table that they land in."""
    assert view.stream is not None
    assert view.rolling is not None
    stream, table = stream_object(view), sql_table(view.rolling.source)
    for column in view.stream.columns:
        yield Edge(Node(stream, view.stream.fields.get(column, column)), Node(table, column), "copy")
    time = Node(stream, view.stream.fields.get(view.rolling.time, view.rolling.time))
    for own in (ARRIVED, TOO_LATE):
        yield Edge(time, Node(table, own), "projection")
    yield Edge(Node(stream, POSITION), Node(table, POSITION), "copy")


def view_edges(view: FeatureView, types: TableTypes) -> Iterator[Edge]:
    """From the tables that a view reads to its columns, by its query or function."""
    target = sql_table(view.table)
    if view.sql:
        uses = sql_columns(view.sql, types.of_query(view.sql))
    else:
        uses = {
            output: {(sql_table(table), name): kinds for (table, name), kinds in used.items()}
            for output, used in view_uses(view, {table: types.schema(table) for table in view.source_tables}).items()
        }
    for column, used in uses.items():
        for (table, name), kinds in used.items():
            yield from (Edge(Node(table, name), Node(target, column), kind) for kind in kinds)
    for table, name in view.incremental.times.items() if view.incremental else ():  # which days are computed anew
        yield from (Edge(Node(sql_table(table), name), Node(target, column), "filter") for column in uses)


def untraced_edges(view: FeatureView, types: TableTypes) -> Iterator[Edge]:
    """From every column that a view may read to each of its own: where it cannot be traced, nothing is ruled out."""
    for table in view.source_tables:
        try:
            names = list(types.schema(table))
        except LookupError:
            continue
        for name in names:
            ends = (*view.keys, *view.columns)
            yield from (Edge(Node(sql_table(table), name), Node(sql_table(view.table), end), "read") for end in ends)


def contract_notes(table: RawTable) -> dict[str, tuple[str, ...]]:
    """What a raw table's contract and partitions say of each of its columns."""
    rules = _rules(table)
    notes = {}
    for name, column in table.contract.columns().items():
        said = [f"contract {table.contract.__name__}"]
        if column.primary_key:
            said.append("primary key")
        if name in table.table_partitions:
            said.append("partition")
        said += [f"rule {rule}" for rule, columns in rules.items() if name in columns]
        notes[str(Node(sql_table(table.name), name))] = tuple(said)
    return notes


def _rules(table: RawTable) -> dict[str, set[str]]:
    """The rules of a contract over several columns → those columns; only a private method of dataframely has them."""
    rules = table.contract._schema_validation_rules()
    return {name: set(rule.expr.meta.root_names()) for name, rule in rules.items() if name != "primary_key"}


def online_object(view: FeatureView) -> str:
    """Name of a view's newest values in the graph."""
    return f"online.{view.name}"


def online_edges(view: FeatureView, pushed: bool) -> Iterator[Edge]:
    """From a view's rows, computed and pushed, to the newest ones of each entity, where serving reads them."""
    online = online_object(view)
    tables = [sql_table(view.table), *([sql_table(pushed_table(view))] if pushed else [])]
    for table in tables:
        for column in (*view.keys, *view.columns):
            yield Edge(Node(table, column), Node(online, column), "copy")
            deciding: dict[str, Kind] = {**dict.fromkeys(view.entity, "group"), view.event_time: "as_of"}
            if view.created is not None:
                deciding[view.created] = "as_of"
            yield from (
                Edge(Node(table, name), Node(online, column), kind) for name, kind in deciding.items() if name != column
            )


def table_objects(
    tables: Mapping[str, RawTable], views: Mapping[str, FeatureView], owners: Mapping[str, str]
) -> dict[str, ObjectInfo]:
    """What is known of sources, streams, raw tables, views and their online values."""
    objects = {}
    for table in tables.values():
        objects[source_object(table)] = ObjectInfo(kind="source", description=table.source)
        objects[sql_table(table.name)] = ObjectInfo(
            kind="table",
            owner=owners.get(table.name, ""),
            description=table.description,
            facts=(f"contract {table.contract.__name__}",),
        )
    for view in views.values():
        if view.stream is not None and view.rolling is not None:
            objects[stream_object(view)] = ObjectInfo(kind="stream", description=view.stream.source.type)
            objects.setdefault(sql_table(view.rolling.source), ObjectInfo(kind="table", owner=view.owner))
        known = ObjectInfo(
            kind="view", owner=view.owner, description=view.description.strip(), sql=view.sql, code=view.code
        )
        objects[sql_table(view.table)] = known
        objects[online_object(view)] = ObjectInfo(kind="online", owner=view.owner, description=known.description)
        objects[sql_table(pushed_table(view))] = ObjectInfo(kind="pushed", owner=view.owner)
    return objects
