"""Edges from the views on: spine and look-ups → training set → model → endpoint, predictions, logs → reports."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.features.point_in_time.lookup import feature_column
from ml_platform.features.training_sets.build import feature_infos
from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.feature_definitions import request_features
from ml_platform.features.training_sets.spine import spine_text
from ml_platform.features.views.view import FeatureView
from ml_platform.lineage.graph import DIRECT, Edge, Kind, Node
from ml_platform.lineage.objects import ObjectInfo
from ml_platform.lineage.sql_columns import sql_columns
from ml_platform.lineage.table_edges import online_object
from ml_platform.lineage.table_types import TableTypes, sql_table
from ml_platform.registry.manifest import Manifest, feature_of
from ml_platform.spec.model import ModelSpec

SCORE, PREDICTION = "score", "prediction"
DRIFT, PERFORMANCE = Node("monitoring.drift", "severity"), "monitoring.performance"  # tables of `monitoring`


@dataclass(frozen=True)
class Model:
    """A model as its files declare it."""

    spec: ModelSpec
    folder: Path
    features: tuple[FeatureInfo, ...]
    derived: Mapping[str, tuple[str, ...]]  # feature computed from the request → columns in its expression
    views: Mapping[str, FeatureView]

    @classmethod
    def read(cls, spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> "Model":
        """Read a model's request features (raises ValueError where they do not compile)."""
        request = request_features(spec, folder)
        names = {name: tuple(feature.expression.meta.root_names()) for name, feature in request.items()}
        return cls(spec, folder, feature_infos(spec, request, views), names, views)

    @property
    def training_set(self) -> str:
        """Name of its training set in the graph."""
        return f"training_set:{self.spec.name}"

    @property
    def name(self) -> str:
        """Name of the model in the graph."""
        return f"model:{self.spec.name}"


def training_set_edges(model: Model, types: TableTypes) -> Iterator[Edge]:
    """From the tables of the spine and the looked-up views to the columns of a training set."""
    spec, target = model.spec, model.training_set
    text = spine_text(spec, model.folder)
    uses = sql_columns(text, types.of_query(text))
    own = {spec.id, spec.timestamp, spec.label_available_at, spec.target, *([spec.weight] if spec.weight else [])}
    own |= {field.name for field in spec.inputs}
    columns = {*own, *model.derived, *(info.name for info in model.features)}
    for column, used in uses.items():
        if column in own:
            for (table, name), kinds in used.items():
                yield from (Edge(Node(table, name), Node(target, column), kind) for kind in kinds)
    for name in (spec.target, spec.label_available_at, *([spec.id] if spec.sample < 1 else [])):
        for behind, kinds in uses.get(name, {}).items():  # rows whose label is not known are left out
            if kinds & DIRECT:
                yield from (Edge(Node(*behind), Node(target, other), "spine") for other in sorted(columns - {name}))
    yield from _derived_edges(model.derived, target)
    for lookup in spec.lookups:
        view = model.views[lookup.view]
        looked_up = [feature_column(lookup.alias, name) for name in lookup.features or view.columns]
        created = view.created if lookup.knowledge_time else None
        keys = {column: lookup.keys.get(column, column) for column in view.entity}
        yield from lookup_edges(sql_table(view.table), view, looked_up, target, keys, spec.timestamp, created)


def lookup_edges(  # noqa: PLR0917 - in the order of the way: source, view, columns, target
    source: str,
    view: FeatureView,
    columns: Iterable[str],
    target: str,
    keys: Mapping[str, str],
    timestamp: str | None,
    created: str | None = None,
) -> Iterator[Edge]:
    """From a view's rows to looked-up columns: the feature's value, by the keys, as of the instant."""
    for column in columns:
        end = Node(target, column)
        yield Edge(Node(source, feature_of(view.name, column)), end, "copy")
        for entity, key in keys.items():
            yield Edge(Node(source, entity), end, "lookup_key")
            yield Edge(Node(target, key), end, "lookup_key")
        for time in (view.event_time, created):
            if time is not None:
                yield Edge(Node(source, time), end, "as_of")
        if timestamp is not None:
            yield Edge(Node(target, timestamp), end, "as_of")


def _derived_edges(derived: Mapping[str, tuple[str, ...]], target: str) -> Iterator[Edge]:
    for name, used in derived.items():
        yield from (Edge(Node(target, column), Node(target, name), "projection") for column in used)


def model_edges(model: Model) -> Iterator[Edge]:
    """From a training set to the model that its declaration makes: what a score is computed from, and learnt from."""
    spec, target = model.spec, model.name
    score = Node(target, SCORE)
    for info in model.features:
        yield Edge(Node(model.training_set, info.name), Node(target, info.name), "input")
        yield Edge(Node(target, info.name), score, "input")
    yield Edge(Node(model.training_set, spec.target), score, "label")
    deciding = {spec.timestamp, spec.label_available_at, *([spec.id] if spec.sample < 1 else [])}
    yield from (
        Edge(Node(model.training_set, name), score, "spine") for name in sorted(deciding)
    )  # which rows, and when
    if spec.weight is not None:
        yield Edge(Node(model.training_set, spec.weight), score, "projection")
    yield Edge(score, Node(target, PREDICTION), "projection")


def version_object(name: str, version: int) -> str:
    """Name of a version in the graph: `model:flight_delay@7`."""
    return f"model:{name}@{version}"


def version_edges(model: Model, manifest: Manifest, target: str) -> Iterator[Edge]:
    """From the training set, or a view whose feature it lacks by now, to a registered version, by its manifest."""
    training_set, score = model.training_set, Node(target, SCORE)
    declared = {info.name for info in model.features}
    for feature in manifest.features:
        node = Node(target, feature.name)
        view = feature.source.removeprefix("view:")
        if feature.name in declared:
            yield Edge(Node(training_set, feature.name), node, "input")
        elif view in model.views:
            yield Edge(Node(sql_table(model.views[view].table), feature_of(view, feature.name)), node, "input")
        if feature.importance > 0:
            yield Edge(node, score, "input")
    yield Edge(Node(training_set, manifest.target), score, "label")
    yield Edge(score, Node(target, PREDICTION), "projection")


def endpoint_edges(
    endpoint: str, inputs: Iterable[str], model: Model, scores: Iterable[str], log: str
) -> Iterator[Edge]:
    """From online values, the request and the versions that answer to an endpoint's answers and their log.

    Parameters
    ----------
    endpoint, log
        Names of the endpoint and its log in the graph.
    inputs
        Fields of a request.
    model
        Whose features are looked up.
    scores
        Objects that score: the versions that serve, or the declared model where none does.
    """
    spec = model.spec
    yield from _derived_edges(model.derived, endpoint)
    for lookup in spec.lookups:
        view = model.views[lookup.view]
        looked_up = [feature_column(lookup.alias, name) for name in lookup.features or view.columns]
        keys = {column: lookup.keys.get(column, column) for column in view.entity}
        yield from lookup_edges(online_object(view), view, looked_up, endpoint, keys, spec.timestamp)
    for info in model.features:
        yield Edge(Node(endpoint, info.name), Node(endpoint, SCORE), "input")
    for scoring in scores:
        yield Edge(Node(scoring, SCORE), Node(endpoint, SCORE), "copy")
        yield Edge(Node(scoring, PREDICTION), Node(endpoint, PREDICTION), "copy")
    yield Edge(Node(endpoint, SCORE), Node(endpoint, PREDICTION), "projection")
    redacted = {*spec.inference_log.redact}
    for name in (SCORE, PREDICTION, *(info.name for info in model.features)):
        if name not in redacted and not redacted & set(model.derived.get(name, ())):
            yield Edge(Node(endpoint, name), Node(log, name), "copy")
    for name in inputs:
        if name not in redacted and name not in {info.name for info in model.features}:
            yield Edge(Node(endpoint, name), Node(log, "inputs"), "projection")


def predictions_edges(model: Model, types: TableTypes, scores: Iterable[str]) -> Iterator[Edge]:
    """From spine, views and the version that serves to a model's batch table."""
    spec, target = model.spec, f"predictions.{model.spec.name}"
    text = spine_text(spec, model.folder)
    uses = sql_columns(text, types.of_query(text))
    named = {spec.id: "id", spec.timestamp: "as_of"}
    given = {name: name for name in {*(field.name for field in spec.inputs), *model.derived}} | named
    features = {info.name for info in model.features}
    stored = {name: column for name, column in given.items() if name in features or name in named}

    def behind(name: str) -> dict[tuple[str, str], set[Kind]]:
        """Columns of tables that a column of the spine, or one computed from it, is made of."""
        if name in model.derived:
            found: dict[tuple[str, str], set[Kind]] = {}
            for used in model.derived[name]:
                for column, kinds in behind(used).items():
                    found.setdefault(column, set()).update("projection" if kind == "copy" else kind for kind in kinds)
            return found
        return {column: set(kinds) for column, kinds in uses.get(name, {}).items()}

    for name, column in stored.items():
        for table, kinds in behind(name).items():
            yield from (Edge(Node(*table), Node(target, column), kind) for kind in kinds)
    for lookup in spec.lookups:
        view = model.views[lookup.view]
        for feature in lookup.features or view.columns:
            end = Node(target, feature_column(lookup.alias, feature))
            yield Edge(Node(sql_table(view.table), feature), end, "copy")
            for entity in view.entity:
                yield Edge(Node(sql_table(view.table), entity), end, "lookup_key")
                yield from (Edge(Node(*table), end, "lookup_key") for table in behind(lookup.keys.get(entity, entity)))
            yield Edge(Node(sql_table(view.table), view.event_time), end, "as_of")
            yield from (Edge(Node(*table), end, "as_of") for table in behind(spec.timestamp))
    for name in sorted(features):
        yield Edge(Node(target, name), Node(target, SCORE), "input")
    for scoring in scores:
        yield Edge(Node(scoring, SCORE), Node(target, SCORE), "copy")
        yield Edge(Node(scoring, PREDICTION), Node(target, PREDICTION), "copy")


def report_edges(model: Model, scored: Iterable[str]) -> Iterator[Edge]:
    """From scored rows and labels to the tables of monitoring: drift per column, performance per day."""
    spec = model.spec
    performance = Node(PERFORMANCE, spec.metric)
    for table in scored:
        for name in (SCORE, *(info.name for info in model.features)):
            yield Edge(Node(table, name), DRIFT, "aggregate")
        yield Edge(Node(table, SCORE), performance, "aggregate")
        yield Edge(Node(table, PREDICTION), performance, "aggregate")
    for info in model.features:
        yield Edge(Node(model.training_set, info.name), DRIFT, "aggregate")  # what drift is measured against


def label_edges(model: Model, types: TableTypes) -> Iterator[Edge]:
    """From the tables of the spine to performance: the label, and when it is known."""
    spec, performance = model.spec, Node(PERFORMANCE, model.spec.metric)
    text = spine_text(spec, model.folder)
    uses = sql_columns(text, types.of_query(text))
    outers: dict[str, Kind] = {spec.target: "label", spec.label_available_at: "filter", spec.id: "join"}
    for name, outer in outers.items():
        for column, kinds in uses.get(name, {}).items():
            yield from (Edge(Node(*column), performance, outer if kind in DIRECT else kind) for kind in kinds)


def model_objects(model: Model) -> dict[str, ObjectInfo]:
    """What is known of a model, its training set, and where its answers go."""
    spec = model.spec
    return {
        model.training_set: ObjectInfo(
            kind="training_set", owner=spec.owner, sql=spine_text(spec, model.folder).strip()
        ),
        model.name: ObjectInfo(kind="model", owner=spec.owner, description=spec.description.strip()),
        f"predictions.{spec.name}": ObjectInfo(kind="predictions", owner=spec.owner),
        f"inference_log.{spec.name}": ObjectInfo(kind="log", owner=spec.owner),
        DRIFT.object: ObjectInfo(kind="report", description="Drift of every column, by window."),
        PERFORMANCE: ObjectInfo(kind="report", description="Metrics of every day whose labels are known."),
    }
