"""The column graph of a project: from its files, and from the manifests of what is registered and serves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from ml_platform.features.online.pushed_rows import pushed_table
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.lineage.model_edges import (
    Model,
    endpoint_edges,
    label_edges,
    lookup_edges,
    model_edges,
    model_objects,
    predictions_edges,
    report_edges,
    training_set_edges,
    version_edges,
    version_object,
)
from ml_platform.lineage.objects import Lineage, ObjectInfo
from ml_platform.lineage.table_edges import (
    contract_notes,
    online_edges,
    online_object,
    source_edges,
    stream_edges,
    table_objects,
    untraced_edges,
    view_edges,
)
from ml_platform.lineage.table_types import TableTypes, sql_table
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake


@dataclass(frozen=True)
class Declared:
    """What a project declares."""

    tables: Mapping[str, RawTable]
    views: Mapping[str, FeatureView]
    models: Mapping[Path, ModelSpec]  # by the path of the defs.yaml
    services: tuple[FeatureServiceSpec, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)  # of raw tables, as far as they are declared


def read_project() -> Declared:
    """Read the current project's declarations (raises SpecError and ValueError where they are wrong)."""
    from ml_platform.features.views.load import load_views
    from ml_platform.lake.sources.registry import declared_sources, declared_tables
    from ml_platform.project import current_project
    from ml_platform.spec_yaml import check_project, check_services

    defs = current_project().defs
    views = load_views(defs / "features")
    columns = {name: view.columns.keys() for name, view in views.items()}
    return Declared(
        tables=declared_tables(),
        views=views,
        models=check_project(defs, columns),
        services=tuple(service for _, service in check_services(defs, columns)),
        owners={name: spec.owner for name, spec in declared_sources().items()},
    )


class _Builder:
    """Collects edges; what cannot be traced is a problem, and the rest of the graph is there."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.nodes: list[Node] = []
        self.objects: dict[str, ObjectInfo] = {}
        self.notes: dict[str, tuple[str, ...]] = {}
        self.problems: list[str] = []

    def add(self, what: str, edges: Any) -> bool:
        """Add edges as they are made; whether all could be."""
        try:
            self.edges += edges
        except (duckdb.Error, LookupError, ValueError, OSError) as error:
            self.problems.append(f"{what}: its columns cannot be traced: {error}")
            return False
        return True


def build_lineage(
    declared: Declared, lake: "Lake | None" = None, store: ReleaseStore | None = None
) -> tuple[Lineage, list[str]]:
    """Build the graph of a project, and say what could not be traced.

    Parameters
    ----------
    declared
        The project's tables, views, models and services.
    lake
        For tables that nothing declares, and those of pushed rows.
    store
        For registered versions and endpoints.
    """
    builder = _Builder()

    def stored(table: str) -> Mapping[str, Any] | None:
        try:
            return lake.schema(table) if lake is not None else None
        except TableNotFound:
            return None

    types = TableTypes(declared.tables, declared.views, stored)
    builder.objects |= table_objects(declared.tables, declared.views, declared.owners)
    for table in declared.tables.values():
        builder.add(table.name, source_edges(table))
        builder.notes |= contract_notes(table)
        builder.nodes += [Node(sql_table(table.name), name) for name in table.contract.columns()]
    for view in declared.views.values():
        builder.nodes += [Node(sql_table(view.table), name) for name in (*view.keys, *view.columns)]
        if view.stream is not None:
            builder.add(f"stream of {view.name}", stream_edges(view))
        if not builder.add(f"view {view.name}", view_edges(view, types)):
            builder.edges += untraced_edges(view, types)
        pushed = lake is not None and lake.exists(pushed_table(view))
        builder.add(f"online {view.name}", online_edges(view, pushed))
    for path, spec in declared.models.items():
        _add_model(builder, spec, path.parent, declared.views, types, store)
    for service in declared.services:
        _add_service(builder, service, declared.views)
    if store is not None:
        _add_compositions(builder, store)
    graph = ColumnGraph(builder.edges, builder.nodes)
    known = {name: info for name, info in builder.objects.items() if name in graph.objects}
    return Lineage(graph, known, builder.notes), builder.problems


def _add_model(  # noqa: PLR0917 - private
    builder: _Builder,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    types: TableTypes,
    store: ReleaseStore | None,
) -> None:
    what = f"model {spec.name}"
    try:
        model = Model.read(spec, folder, views)
    except (ValueError, KeyError) as error:
        builder.problems.append(f"{what}: its columns cannot be traced: {error}")
        return
    builder.objects |= model_objects(model)
    builder.add(what, training_set_edges(model, types))
    builder.add(what, model_edges(model))
    serving, endpoints = _versions(builder, model, store)
    scoring = serving or [model.name]
    inputs = [field.name for field in spec.inputs]
    log = f"inference_log.{spec.name}"
    for endpoint in endpoints or [f"endpoint:{spec.name}"]:
        builder.objects[endpoint] = ObjectInfo(
            kind="endpoint",
            owner=spec.owner,
            description=f"POST /predict/{endpoint.partition(':')[2]}",
            facts=(f"page /models/{spec.name}/console",) if endpoints else ("nothing is released",),
        )
        builder.nodes += [Node(endpoint, name) for name in inputs]
        builder.add(what, endpoint_edges(endpoint, inputs, model, scoring, log))
    builder.add(what, predictions_edges(model, types, scoring))
    scored = [f"predictions.{spec.name}", log]
    if spec.stream is not None:
        scored += _add_stream(builder, spec, f"endpoint:{spec.name}", inputs)
    builder.add(what, report_edges(model, scored[:2]))
    builder.add(what, label_edges(model, types))


def _versions(builder: _Builder, model: Model, store: ReleaseStore | None) -> tuple[list[str], list[str]]:
    """Add the versions that serve; give their names and those of their endpoints."""
    if store is None:
        return [], []
    serving, endpoints = [], []
    for name, endpoint in sorted(store.readable_documents()[0].items()):
        if endpoint.model != model.spec.name or not endpoint.targets:
            continue
        endpoints.append(f"endpoint:{name}")
        for target in endpoint.targets:
            version = version_object(model.spec.name, target.version)
            try:
                manifest = store.load_manifest(target.digest)
            except (BundleRefused, OSError) as error:
                builder.problems.append(f"{version}: its manifest cannot be read: {error}")
                continue
            share = "shadow" if target.mode == "shadow" else f"{target.share:.0%}"
            facts = (f"serves {share} of {name}", f"trained on version {manifest.provenance.training_set_version}")
            builder.objects[version] = ObjectInfo(
                kind="version", owner=manifest.owner, description=manifest.description.strip(), facts=facts
            )
            builder.add(version, version_edges(model, manifest, version))
            serving.append(version)
    return list(dict.fromkeys(serving)), endpoints


def _add_stream(builder: _Builder, spec: ModelSpec, endpoint: str, inputs: list[str]) -> list[str]:
    """Add the messages that a model answers, and the tables of its answers; give their names."""
    assert spec.stream is not None
    source = f"stream:{spec.name}"
    builder.objects[source] = ObjectInfo(
        kind="stream", owner=spec.owner, description=f"messages of {spec.stream.source.type}"
    )
    mapping = spec.stream.mapping.inputs
    for name in inputs:
        builder.edges.append(Edge(Node(source, mapping.get(name, name)), Node(endpoint, name), "copy"))
    sink = spec.stream.sink
    topics = [f"stream:{sink.topic}"] if sink.topic else []
    answers = [*topics, *([sql_table(sink.table)] if sink.table else [])]
    for answer in answers:
        builder.objects[answer] = ObjectInfo(kind="predictions", owner=spec.owner, description="answers of a stream")
        for name in ("score", "prediction"):
            builder.edges.append(Edge(Node(endpoint, name), Node(answer, name), "copy"))
    return answers


def _add_service(builder: _Builder, service: FeatureServiceSpec, views: Mapping[str, FeatureView]) -> None:
    name = f"service:{service.name}"
    builder.objects[name] = ObjectInfo(
        kind="service",
        owner=service.owner,
        description=service.description.strip(),
        facts=(f"POST /features/{service.name}/lookup",),
    )
    for one in service.views:
        view = views.get(one.view)
        if view is None:
            builder.problems.append(f"service {service.name}: there is no view '{one.view}'")
            continue
        columns = [f"{one.alias}__{feature}" for feature in one.features or tuple(view.columns)]
        keys = {column: one.keys.get(column, column) for column in view.entity}
        builder.add(name, lookup_edges(online_object(view), view, columns, name, keys, None))


def _add_compositions(builder: _Builder, store: ReleaseStore) -> None:
    for name, composition in CompositionStore(store).readable()[0].items():
        endpoint = f"endpoint:{name}"
        builder.objects[endpoint] = ObjectInfo(
            kind="endpoint", owner=composition.owner, description=composition.description.strip()
        )
        for member in composition.members:
            for column in ("score", "prediction"):
                builder.edges.append(Edge(Node(f"endpoint:{member}", column), Node(endpoint, column), "projection"))
