"""What breaks if a column is dropped or changed: everything downstream of it, with owners, and by which way."""

from collections.abc import Iterable, Mapping

import msgspec

from ml_platform.lineage.graph import DIRECT, Kind, Node
from ml_platform.lineage.objects import Lineage, ObjectKind

# The checks in Dagster that judge objects of a kind; `<model>` assets have theirs per model.
CHECKS: Mapping[str, tuple[str, ...]] = {
    "view": ("has_rows", "no_empty_feature"),
    "online": ("fresh",),
    "training_set": ("no_leakage", "no_suspects", "no_label_outliers"),
}
_ORDER: tuple[ObjectKind, ...] = (
    "table", "pushed", "view", "online", "service", "training_set", "model", "version", "endpoint", "predictions",
    "log", "report", "stream", "source",
)  # fmt: skip


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """One object that depends on a column."""

    object: str
    kind: ObjectKind
    owner: str
    columns: tuple[str, ...]  # of it, that depend on the column
    at_first_hand: bool  # whether it reads the column itself
    values: bool  # whether values flow, or the column only decides which rows there are
    how: tuple[Kind, ...]  # kinds of the edges that end at it on the way
    checks: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """What depends on some columns."""

    columns: tuple[str, ...]
    notes: tuple[str, ...]  # what their own contract says of them
    affected: tuple[Affected, ...]

    @property
    def owners(self) -> tuple[str, ...]:
        """Who answers for what breaks."""
        return tuple(sorted({one.owner for one in self.affected if one.owner}))


def impact_of(lineage: Lineage, nodes: Iterable[Node]) -> Impact:
    """Collect everything that depends on some columns, in the order in which it is made.

    Examples
    --------
    >>> from ml_platform.lineage.graph import ColumnGraph, Edge
    >>> delay, late = Node("raw.flights", "delay"), Node("features.carriers", "late_share")
    >>> impact = impact_of(Lineage(ColumnGraph([Edge(delay, late, "aggregate")]), {}), [delay])
    >>> [(one.object, one.columns, one.at_first_hand) for one in impact.affected]
    [('features.carriers', ('late_share',), True)]
    """
    starts = list(nodes)
    graph = lineage.graph
    reached = {node for start in starts for node in graph.downstream(start)} - set(starts)
    flowing = {node for start in starts for node in graph.downstream(start, direct_only=True)}
    by_object: dict[str, list[Node]] = {}
    for node in sorted(reached):
        by_object.setdefault(node.object, []).append(node)
    affected = []
    for name, columns in by_object.items():
        info = lineage.info(name)
        first = [edge for node in columns for edge in graph.edges_into(node) if edge.source in starts]
        within = {*starts, *reached}
        every = {edge.kind for node in columns for edge in graph.edges_into(node) if edge.source in within}
        affected.append(
            Affected(
                object=name,
                kind=info.kind,
                owner=info.owner,
                columns=tuple(node.column for node in columns),
                at_first_hand=bool(first),
                values=any(node in flowing for node in columns),
                how=tuple(sorted({edge.kind for edge in first} or every, key=lambda kind: (kind not in DIRECT, kind))),
                checks=CHECKS.get(info.kind, ()),
                facts=info.facts,
            )
        )
    affected.sort(key=lambda one: (_ORDER.index(one.kind), one.object))
    notes = tuple(f"{node}: {', '.join(lineage.notes[str(node)])}" for node in starts if str(node) in lineage.notes)
    return Impact(columns=tuple(map(str, starts)), notes=notes, affected=tuple(affected))
