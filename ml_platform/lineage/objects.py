"""What a column graph is about: its objects with their kinds, owners and descriptions, and how texts name columns."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

import msgspec

from ml_platform.lineage.graph import ColumnGraph, Edge, Kind, Node

ObjectKind = Literal[
    "source",
    "stream",
    "table",
    "view",
    "pushed",
    "online",
    "training_set",
    "model",
    "version",
    "endpoint",
    "service",
    "predictions",
    "log",
    "report",
]


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a graph."""

    kind: ObjectKind
    owner: str = ""
    description: str = ""
    sql: str = ""  # the query of a view or spine
    code: str = ""  # the Python of a view
    facts: tuple[str, ...] = ()  # what else to know: its page, its share of the traffic


class Lineage(msgspec.Struct, frozen=True):
    """A column graph with what is known of its objects."""

    graph: ColumnGraph
    objects: dict[str, ObjectInfo]
    notes: dict[str, tuple[str, ...]] = {}  # column → what else hangs on it: rules of its contract, partitions

    def info(self, object_: str) -> ObjectInfo:
        """What is known of an object of the graph."""
        return self.objects.get(object_, ObjectInfo(kind="table"))

    def find(self, text: str) -> list[Node]:
        """Columns that a text names: one, or all of an object.

        Raises
        ------
        LookupError
            If there is no such column or object, with the nearest names.
        """
        whole = self._same(text, self.graph.objects)
        if whole is not None:
            return [Node(whole, column) for column in self.graph.columns(whole)]
        known: dict[str, Node] = {str(node): node for node in self.graph.nodes}
        column = self._same(text, known)
        if column is not None:
            return [known[column]]
        object_ = self._same(text.rpartition(".")[0], self.graph.objects)
        if object_ is not None:
            columns = self.graph.columns(object_)
            raise LookupError(
                f"{object_} has no column '{text.rpartition('.')[2]}'{_nearest(text.rpartition('.')[2], columns)} "
                f"It has: {', '.join(columns)}"
            )
        raise LookupError(
            f"nothing in the project is called '{text}'{_nearest(text, [*self.graph.objects, *known])} "
            f"Objects: {', '.join(self.graph.objects) or 'none'}"
        )

    @staticmethod
    def _same(text: str, names: Iterable[str]) -> str | None:
        """The name that is meant: `raw/flights` is `raw.flights`, and case does not count, as in SQL."""
        wanted = {text.lower(), text.replace("/", ".", 1).lower()}
        return next((name for name in names if name.lower() in wanted), None)


def _nearest(text: str, names: Iterable[str]) -> str:
    near = get_close_matches(text, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else "."


class LineageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A graph as it is stored and sent; edges refer to columns by their positions."""

    format: int = 1
    made_at: str
    objects: dict[str, ObjectInfo]
    columns: list[tuple[str, str]]  # object, column
    edges: list[tuple[int, int, Kind]]  # source, target, how
    notes: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []


def document_of(lineage: Lineage, made_at: str, problems: Iterable[str] = ()) -> LineageDocument:
    """Make the document of a graph."""
    columns = sorted(lineage.graph.nodes)
    places = {node: number for number, node in enumerate(columns)}
    return LineageDocument(
        made_at=made_at,
        objects=lineage.objects,
        columns=[(node.object, node.column) for node in columns],
        edges=[(places[edge.source], places[edge.target], edge.kind) for edge in lineage.graph.edges],
        notes=lineage.notes,
        problems=list(problems),
    )


def lineage_of(document: LineageDocument) -> Lineage:
    """Read a graph from its document."""
    nodes = [Node(*column) for column in document.columns]
    edges = (Edge(nodes[source], nodes[target], kind) for source, target, kind in document.edges)
    return Lineage(ColumnGraph(edges, nodes), document.objects, document.notes)
