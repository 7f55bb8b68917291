"""Column lineage for the UI, by `ml_platform.lineage`: what each column of an asset depends on, and how."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.lineage.model_edges import (
    Model,
    endpoint_edges,
    model_edges,
    predictions_edges,
    training_set_edges,
    version_object,
)
from ml_platform.lineage.table_edges import online_edges, online_object, view_edges
from ml_platform.lineage.table_types import TableTypes, sql_table
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake

KEY, HOW, WRONG = "dagster/column_lineage", "column uses", "column lineage"
Metadata = dict[str, Any]


def _never_failing(make: Callable[..., Metadata]) -> Callable[..., Metadata]:
    """Say in the metadata why columns could not be traced: what was made is made, whatever is known of its columns."""

    @wraps(make)
    def made(*arguments: Any, **named: Any) -> Metadata:
        try:
            return make(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - a step must not fail for what is only shown
            return {WRONG: f"could not be traced: {error}"}

    return made


@_never_failing
def view_lineage(view: FeatureView, lake: "Lake") -> Metadata:
    """Metadata of a view's table: the columns of its sources, those of filters, joins and windows included."""
    return _metadata(view_edges(view, _types(lake, [view])), sql_table(view.table))


@_never_failing
def online_lineage(view: FeatureView, *, pushed: bool) -> Metadata:
    """Metadata of a view's online values."""
    return _metadata(online_edges(view, pushed), online_object(view))


@_never_failing
def training_set_lineage(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], lake: "Lake") -> Metadata:
    """Metadata of a training set: spine, look-ups with keys and instants, label."""
    model = Model.read(spec, folder, views)
    return _metadata(training_set_edges(model, _types(lake, views.values())), model.training_set)


@_never_failing
def model_lineage(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> Metadata:
    """Metadata of a trained model: the columns of its training set."""
    model = Model.read(spec, folder, views)
    return _metadata(model_edges(model), model.name)


@_never_failing
def predictions_lineage(
    spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], lake: "Lake", version: int
) -> Metadata:
    """Metadata of batch scores, made by a version."""
    model, scoring = Model.read(spec, folder, views), version_object(spec.name, version)
    edges = predictions_edges(model, _types(lake, views.values()), [scoring])
    return _metadata(edges, f"predictions.{spec.name}")


@_never_failing
def inference_log_lineage(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> Metadata:
    """Metadata of what serving answered: the online values and the model that served."""
    model, log = Model.read(spec, folder, views), f"inference_log.{spec.name}"
    inputs = [field.name for field in spec.inputs]
    scoring = version_object(spec.name, 0)
    return _metadata(endpoint_edges(f"endpoint:{spec.name}", inputs, model, [scoring], log), log)


def asset_key(object_: str) -> dg.AssetKey | None:
    """Asset that makes an object of the graph; None for what no asset makes.

    Examples
    --------
    >>> asset_key("features.weather"), asset_key("model:toy@7"), asset_key("source:flights")
    (AssetKey(['features', 'weather']), AssetKey(['toy', 'release']), None)
    """
    kind, separator, name = object_.partition(":")
    if not separator:
        schema, _, table = object_.partition(".")
        own = {"predictions": "predictions", "inference_log": "inference_log"}.get(schema)
        return dg.AssetKey([table, own] if own else [schema, *table.split("/")])
    model, _, version = name.partition("@")
    last = {"training_set": "training_set", "model": "release" if version else "trained_model"}.get(kind)
    return dg.AssetKey([model, last]) if last else None


def _types(lake: "Lake", views: Iterable[FeatureView]) -> TableTypes:
    """Types of the tables as they are in the lake; of views as they are declared."""
    return TableTypes({}, {view.name: view for view in views}, lake.schema)


def _metadata(edges: Iterable[Edge], target: str) -> dict[str, Any]:
    """Column lineage of an object, and how each column is used; through its own columns and those of no asset."""
    graph = ColumnGraph(edges)
    deps: dict[str, list[dg.TableColumnDep]] = {}
    uses: dict[str, dict[str, list[str]]] = {}
    for column in graph.columns(target):
        behind = _behind(graph, Node(target, column))
        deps[column] = [
            dg.TableColumnDep(asset_key=key, column_name=node.column)
            for node in sorted(behind)
            if (key := asset_key(node.object)) is not None
        ]
        uses[column] = {str(node): sorted(behind[node]) for node in sorted(behind)}
    return {KEY: dg.TableColumnLineage(deps_by_column=deps), HOW: dg.MetadataValue.json(uses)}


def _behind(graph: ColumnGraph, node: Node) -> dict[Node, set[str]]:
    found: dict[Node, set[str]] = {}
    seen, open_ = {node}, [node]
    while open_:
        current = open_.pop()
        for edge in graph.edges_into(current):
            is_passed = edge.source.object == node.object or asset_key(edge.source.object) is None
            if not is_passed or not graph.edges_into(edge.source):
                found.setdefault(edge.source, set()).add(edge.kind)
            if is_passed and edge.source not in seen:
                seen.add(edge.source)
                open_.append(edge.source)
    return found
