"""OpenLineage events of materialisations: what ran, what it read and wrote, and which columns made which.

Core schema 2-0-2, column lineage 1-2-0; see https://openlineage.io/spec. Edges that count for every column of an output
alike (rows are filtered, joined, grouped by them) are given once for the dataset.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from ml_platform.lineage.graph import DIRECT, Edge, Kind, Node
from ml_platform.lineage.objects import Lineage

PRODUCER = "urn:ml-platform:engine"
_SPEC = "https://openlineage.io/spec"
EventType = Literal["START", "COMPLETE", "FAIL"]
# The subtypes that the specification names, for our kinds.
_SUBTYPES: Mapping[Kind, str] = {
    "copy": "IDENTITY",
    "projection": "TRANSFORMATION",
    "aggregate": "AGGREGATION",
    "input": "TRANSFORMATION",
    "label": "TRANSFORMATION",
    "read": "TRANSFORMATION",
    "filter": "FILTER",
    "join": "JOIN",
    "group": "GROUP_BY",
    "order": "SORT",
    "window": "WINDOW",
    "spine": "FILTER",
    "lookup_key": "JOIN",
    "as_of": "JOIN",
}


class Column(msgspec.Struct, frozen=True):
    """A column of an output as it was written."""

    name: str
    type: str = ""
    description: str = ""


class Materialisation(msgspec.Struct, frozen=True, kw_only=True):
    """One step that makes an object, and what is known of it at that moment."""

    object: str
    run_id: str  # of the orchestrator
    step: str
    job: str
    columns: tuple[Column, ...] = ()
    version: int | None = None
    rows: int | None = None
    input_versions: Mapping[str, int] = {}  # object → version read
    sql: str = ""
    code: str = ""
    error: str = ""


def run_event(
    kind: EventType, at: datetime, lineage: Lineage, one: Materialisation, *, namespace: str
) -> dict[str, Any]:
    """Make the event of one step.

    Parameters
    ----------
    kind
        What happened to the step.
    at
        When (with time zone).
    lineage
        Gives inputs, owners and column edges.
    one
        The step.
    namespace
        Of datasets and jobs: tells several platforms apart.

    Examples
    --------
    >>> from datetime import UTC
    >>> from ml_platform.lineage.graph import ColumnGraph
    >>> lineage = Lineage(ColumnGraph([Edge(Node("raw.a", "x"), Node("features.b", "y"), "aggregate")]), {})
    >>> step = Materialisation(object="features.b", run_id="0b1c", step="features__b", job="features")
    >>> event = run_event("START", datetime(2024, 1, 1, tzinfo=UTC), lineage, step, namespace="shop")
    >>> event["eventType"], [one["name"] for one in event["inputs"]], [one["name"] for one in event["outputs"]]
    ('START', ['raw.a'], ['features.b'])
    """
    edges = [edge for column in lineage.graph.columns(one.object) for edge in _edges_into(lineage, one.object, column)]
    inputs = sorted({edge.source.object for edge in edges})
    job_facets: dict[str, Any] = {
        "jobType": _facet(
            "2-0-4/JobTypeJobFacet", processingType="BATCH", integration="ML_PLATFORM", jobType="MATERIALISATION"
        )
    }
    if owner := lineage.info(one.object).owner:
        job_facets["ownership"] = _facet("1-0-1/OwnershipJobFacet", owners=[{"name": owner, "type": "OWNER"}])
    if one.sql:
        job_facets["sql"] = _facet("1-1-0/SQLJobFacet", query=one.sql, dialect="duckdb")
    if one.code:
        job_facets["sourceCode"] = _facet("1-0-1/SourceCodeJobFacet", language="python", sourceCode=one.code)
    run_facets: dict[str, Any] = {
        "parent": _facet(
            "1-2-0/ParentRunFacet",
            run={"runId": _uuid(one.run_id)},
            job={"namespace": namespace, "name": one.job},
        )
    }
    if one.error:
        run_facets["errorMessage"] = _facet(
            "1-0-1/ErrorMessageRunFacet", message=one.error, programmingLanguage="python"
        )
    output: dict[str, Any] = {
        "namespace": namespace,
        "name": one.object,
        "facets": _output_facets(lineage, one, edges, namespace),
    }
    if kind == "COMPLETE" and one.rows is not None:
        output["outputFacets"] = {
            "outputStatistics": _facet("1-0-2/OutputStatisticsOutputDatasetFacet", rowCount=one.rows)
        }
    return {
        "eventType": kind,
        "eventTime": at.isoformat(),
        "producer": PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": _uuid(f"{one.run_id}:{one.step}:{one.object}"), "facets": run_facets},
        "job": {"namespace": namespace, "name": one.object, "facets": job_facets},
        "inputs": [_input(lineage, name, one.input_versions.get(name), namespace) for name in inputs],
        "outputs": [output],
    }


def _edges_into(lineage: Lineage, object_: str, column: str) -> Iterable[Edge]:
    """Edges into a column from other objects; those within the object are followed back."""
    seen, open_ = set[Node](), [(Node(object_, column), True)]
    while open_:
        node, flows = open_.pop()
        if node in seen:
            continue
        seen.add(node)
        for edge in lineage.graph.edges_into(node):
            if edge.source.object == object_:
                open_.append((edge.source, flows and edge.direct))
            else:
                kind = edge.kind if flows or not edge.direct else "join"
                yield Edge(edge.source, Node(object_, column), kind)


def _input(lineage: Lineage, name: str, version: int | None, namespace: str) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "schema": _facet(
            "1-2-0/SchemaDatasetFacet", fields=[{"name": column} for column in lineage.graph.columns(name)]
        )
    }
    _common(facets, lineage, name, version)
    return {"namespace": namespace, "name": name, "facets": facets}


def _output_facets(lineage: Lineage, one: Materialisation, edges: list[Edge], namespace: str) -> dict[str, Any]:
    columns = one.columns or tuple(Column(name) for name in lineage.graph.columns(one.object))
    fields = [{key: value for key, value in msgspec.structs.asdict(column).items() if value} for column in columns]
    facets: dict[str, Any] = {"schema": _facet("1-2-0/SchemaDatasetFacet", fields=fields)}
    _common(facets, lineage, one.object, one.version)
    if edges:
        facets["columnLineage"] = column_lineage_facet(edges, namespace)
    return facets


def _common(facets: dict[str, Any], lineage: Lineage, name: str, version: int | None) -> None:
    info = lineage.info(name)
    if info.owner:
        facets["ownership"] = _facet("1-0-1/OwnershipDatasetFacet", owners=[{"name": info.owner, "type": "OWNER"}])
    if info.description:
        facets["documentation"] = _facet("1-1-0/DocumentationDatasetFacet", description=info.description)
    if version is not None:
        facets["version"] = _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=str(version))


def column_lineage_facet(edges: Iterable[Edge], namespace: str) -> dict[str, Any]:
    """The facet of an output whose columns are the targets of the edges."""
    by_target: dict[str, dict[tuple[str, str], set[Kind]]] = {}
    for edge in edges:
        into = by_target.setdefault(edge.target.column, {})
        into.setdefault((edge.source.object, edge.source.column), set()).add(edge.kind)
    indirect = [
        {(source, kind) for source, kinds in used.items() for kind in kinds if kind not in DIRECT}
        for used in by_target.values()
    ]
    shared = set.intersection(*indirect) if len(indirect) > 1 else set()
    fields = {}
    for column, used in sorted(by_target.items()):
        own = {source: {kind for kind in kinds if (source, kind) not in shared} for source, kinds in used.items()}
        fields[column] = {
            "inputFields": [_field(source, kinds, namespace) for source, kinds in sorted(own.items()) if kinds]
        }
    whole: dict[tuple[str, str], set[Kind]] = {}
    for source, kind in shared:
        whole.setdefault(source, set()).add(kind)
    return _facet(
        "1-2-0/ColumnLineageDatasetFacet",
        fields=fields,
        dataset=[_field(source, kinds, namespace) for source, kinds in sorted(whole.items())],
    )


def _field(source: tuple[str, str], kinds: Iterable[Kind], namespace: str) -> dict[str, Any]:
    transformations = [
        {
            "type": "DIRECT" if kind in DIRECT else "INDIRECT",
            "subtype": _SUBTYPES[kind],
            "description": kind,
            "masking": False,
        }
        for kind in sorted(kinds)
    ]
    return {"namespace": namespace, "name": source[0], "field": source[1], "transformations": transformations}


def _facet(schema: str, **content: Any) -> dict[str, Any]:
    name = schema.rpartition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{_SPEC}/facets/{schema}.json#/$defs/{name}", **content}


def _uuid(text: str) -> str:
    """A run's id as OpenLineage wants it; the same for the same text."""
    try:
        return str(UUID(text))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"{PRODUCER}/{text}"))
