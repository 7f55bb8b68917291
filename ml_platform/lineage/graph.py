"""The column graph: which column of which object is made of, or depends on, which others."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Kind = Literal[
    "copy",  # the same value under this or another name
    "projection",  # computed from it, row by row
    "aggregate",  # computed from it over several rows
    "input",  # a feature that a model's score is computed from
    "label",  # what a model learns to predict
    "filter",  # decides which rows count: WHERE, HAVING, FILTER, IN, EXISTS
    "join",
    "group",  # GROUP BY, DISTINCT, set operations without ALL
    "order",  # ORDER BY of a query or an aggregate
    "window",  # PARTITION BY and ORDER BY of a window, and QUALIFY
    "spine",  # a column of the spine that decides which rows there are, or from when on their label is known
    "lookup_key",  # the key by which a feature is looked up
    "as_of",  # the instant as of which a feature is looked up
    "read",  # read by a query in a way that could not be told: values may flow
]

# Kinds by which values flow; by the others a column only decides which rows there are, or where values come from.
DIRECT: frozenset[Kind] = frozenset({"copy", "projection", "aggregate", "input", "label", "read"})


class Node(NamedTuple):
    """A column of an object: `Node("raw.flights", "tailnum")`.

    Objects are named as in the catalogue: `raw.flights`, `features.carrier_reliability`, `training_set:flight_delay`,
    `model:flight_delay`.
    """

    object: str
    column: str

    def __str__(self) -> str:
        return f"{self.object}.{self.column}"


class Edge(NamedTuple):
    """Says that `target` depends on `source`."""

    source: Node
    target: Node
    kind: Kind

    @property
    def direct(self) -> bool:
        """Whether values flow along the edge."""
        return self.kind in DIRECT


class ColumnGraph:
    """Columns and what they depend on; immutable.

    Parameters
    ----------
    edges
        Edges in any order; repeated ones count once.
    nodes
        Columns that may have no edge.

    Examples
    --------
    >>> delay, late = Node("raw.flights", "delay"), Node("features.carriers", "late_share")
    >>> time = Node("raw.flights", "landed_at")
    >>> graph = ColumnGraph([Edge(delay, late, "aggregate"), Edge(time, late, "window")])
    >>> [str(node) for node in graph.upstream(late)]
    ['raw.flights.delay', 'raw.flights.landed_at']
    >>> graph.upstream(late, direct_only=True) == [delay]
    True
    """

    def __init__(self, edges: Iterable[Edge] = (), nodes: Iterable[Node] = ()) -> None:
        self._edges = tuple(sorted(set(edges)))
        self._into: dict[Node, list[Edge]] = {}
        self._out_of: dict[Node, list[Edge]] = {}
        for edge in self._edges:
            self._into.setdefault(edge.target, []).append(edge)
            self._out_of.setdefault(edge.source, []).append(edge)
        self._nodes = frozenset({*nodes, *self._into, *self._out_of})
        self._columns: dict[str, list[str]] = {}
        for node in sorted(self._nodes):
            self._columns.setdefault(node.object, []).append(node.column)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, sorted."""
        return self._edges

    @property
    def nodes(self) -> frozenset[Node]:
        """All columns."""
        return self._nodes

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of all objects, sorted."""
        return tuple(self._columns)

    def columns(self, object_: str) -> tuple[str, ...]:
        """Columns of an object, sorted; none if there is no such object."""
        return tuple(self._columns.get(object_, ()))

    def edges_into(self, node: Node) -> tuple[Edge, ...]:
        """Edges that end at a column: what it depends on at first hand."""
        return tuple(self._into.get(node, ()))

    def edges_out_of(self, node: Node) -> tuple[Edge, ...]:
        """Edges that start at a column: what depends on it at first hand."""
        return tuple(self._out_of.get(node, ()))

    def upstream(self, node: Node, *, direct_only: bool = False) -> list[Node]:
        """Columns that a column depends on, nearest first; with `direct_only` those whose values flow into it."""
        return list(self._reach(node, self._into, direct_only, forward=False))

    def downstream(self, node: Node, *, direct_only: bool = False) -> list[Node]:
        """Columns that depend on a column, nearest first; with `direct_only` those that its values flow into."""
        return list(self._reach(node, self._out_of, direct_only, forward=True))

    def around(self, starts: Iterable[Node], *, upstream: bool = True, downstream: bool = True) -> "ColumnGraph":
        """The part of the graph that leads to some columns, or away from them."""
        kept = set(starts) & self._nodes
        for node in tuple(kept):
            if upstream:
                kept |= set(self.upstream(node))
            if downstream:
                kept |= set(self.downstream(node))
        return ColumnGraph((edge for edge in self._edges if edge.source in kept and edge.target in kept), kept)

    def object_edges(self) -> dict[tuple[str, str], set[Kind]]:
        """Pairs of objects, one of which depends on the other → the kinds of the edges between their columns."""
        pairs: dict[tuple[str, str], set[Kind]] = {}
        for edge in self._edges:
            if edge.source.object != edge.target.object:
                pairs.setdefault((edge.source.object, edge.target.object), set()).add(edge.kind)
        return pairs

    def __or__(self, other: "ColumnGraph") -> "ColumnGraph":
        return ColumnGraph((*self._edges, *other._edges), (*self._nodes, *other._nodes))

    @staticmethod
    def _reach(start: Node, edges: dict[Node, list[Edge]], direct_only: bool, *, forward: bool) -> Iterator[Node]:
        seen, queue = {start}, deque([start])
        while queue:
            for edge in edges.get(queue.popleft(), ()):
                node = edge.target if forward else edge.source
                if node not in seen and (edge.direct or not direct_only):
                    seen.add(node)
                    queue.append(node)
                    yield node
