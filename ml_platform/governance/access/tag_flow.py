"""Tags of columns: declared, set by commands, and flowing to whatever is derived from a tagged column."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from ml_platform.governance.access.objects import parse_object, table_object
from ml_platform.governance.access.policy import Policy

if TYPE_CHECKING:
    from ml_platform.lineage.graph import ColumnGraph, Node

ALL_COLUMNS = "*"  # columns of a table with a tag that are not named otherwise
# A column's values are in what is copied, computed or aggregated from it; a model's score is no value of its inputs.
FLOWS: Final = frozenset({"copy", "projection", "aggregate", "read"})
_TRAINING_SET = "training_set:"

ColumnTags = Mapping[str, Mapping[str, frozenset[str]]]  # text of the table → column in lower case → tags
_Key = tuple[str, str]


class Tagged(Protocol):
    """What declares tags of columns: a `Protection`, or what is published of one."""

    @property
    def tags(self) -> Mapping[str, Iterable[str]]:
        """Column → its tags."""


def column_tags(policy: Policy, protections: Mapping[str, Tagged], graph: "ColumnGraph | None" = None) -> ColumnTags:
    """Tags of all columns that have some.

    A tag flows from a column along the edges by which its values do, until somebody removed it: it does not flow past a
    column that it was removed from.

    Parameters
    ----------
    policy
        With the tags that commands set and removed.
    protections
        With the tags that definitions declare, by the lake's names of tables.
    graph
        What columns are made of; None where tags do not flow.

    Examples
    --------
    >>> from ml_platform.governance.access.policy import Document
    >>> from ml_platform.lineage.graph import ColumnGraph, Edge, Node
    >>> from ml_platform.spec.protection import Protection
    >>> graph = ColumnGraph([Edge(Node("raw.a", "mail"), Node("features.b", "domain"), "projection")])
    >>> declared = {"raw/a": Protection(tags={"mail": ("pii",)})}
    >>> column_tags(Policy(Document()), declared, graph)["features.b"]
    {'domain': frozenset({'pii'})}
    """
    columns: dict[str, set[str]] = {}
    nodes: dict[_Key, list[Node]] = {}
    for node in graph.nodes if graph is not None else ():
        key = _key(node)
        columns.setdefault(key[0], set()).add(key[1])
        nodes.setdefault(key, []).append(node)
    tags: dict[_Key, set[str]] = {}
    removed: dict[_Key, set[str]] = {}
    for table, protection in protections.items():
        for column, declared in protection.tags.items():
            tags.setdefault((table_object(table).text, column.lower()), set()).update(declared)
    for change in policy.document.tags:
        wanted = parse_object(change.object)
        text = table_object(str(wanted.lake_table)).text
        names = [wanted.parts[2]] if wanted.kind == "column" else _names(text, columns, tags)
        for name in names:
            into, out_of = (removed, tags) if change.removed else (tags, removed)
            into.setdefault((text, name), set()).add(change.tag)
            out_of.setdefault((text, name), set()).discard(change.tag)
    if graph is not None:
        _flow(graph, nodes, tags, removed)
    result: dict[str, dict[str, frozenset[str]]] = {}
    for (text, column), ones in tags.items():
        result.setdefault(text, {})[column] = frozenset(ones)
    return result


def tag_sources(
    tags: ColumnTags, declared: ColumnTags, graph: "ColumnGraph"
) -> Mapping[tuple[str, str, str], tuple[tuple[str, str], ...]]:
    """Where the tags that have flown to columns were set.

    Parameters
    ----------
    tags, declared
        See `column_tags`: with the graph, and without it.
    graph
        What columns are made of.

    Returns
    -------
    Mapping
        Table, column and tag → tables and columns from which it flows; only of tags that were not set there.

    Examples
    --------
    >>> from ml_platform.governance.access.policy import Document
    >>> from ml_platform.lineage.graph import ColumnGraph, Edge, Node
    >>> from ml_platform.spec.protection import Protection
    >>> graph = ColumnGraph([Edge(Node("raw.a", "mail"), Node("features.b", "domain"), "projection")])
    >>> written = {"raw/a": Protection(tags={"mail": ("pii",)})}
    >>> both = (column_tags(Policy(Document()), written, one) for one in (graph, None))
    >>> tag_sources(*both, graph)
    {('features.b', 'domain', 'pii'): (('raw.a', 'mail'),)}
    """
    into: dict[_Key, list[_Key]] = {}
    for edge in graph.edges:
        if edge.kind in FLOWS:
            into.setdefault(_key(edge.target), []).append(_key(edge.source))

    def is_set(key: _Key, tag: str) -> bool:
        columns = declared.get(key[0], {})
        return tag in columns.get(key[1], ()) or tag in columns.get(ALL_COLUMNS, ())

    found: dict[tuple[str, str, str], tuple[_Key, ...]] = {}
    for text, columns in tags.items():
        for column, ones in columns.items():
            for tag in ones:
                if column == ALL_COLUMNS or is_set((text, column), tag):
                    continue
                seen, waiting, origins = {(text, column)}, [(text, column)], set()
                while waiting:
                    for source in into.get(waiting.pop(), ()):
                        if source in seen or tag not in tags.get(source[0], {}).get(source[1], ()):
                            continue
                        seen.add(source)
                        if is_set(source, tag):
                            origins.add(source)
                        else:
                            waiting.append(source)
                found[text, column, tag] = tuple(sorted(origins))
    return found


def _names(text: str, columns: Mapping[str, set[str]], tags: Mapping[_Key, set[str]]) -> list[str]:
    """All columns of a table that are known of, and the sign for the others."""
    return [*{*columns.get(text, ()), *(column for table, column in tags if table == text), ALL_COLUMNS}]


def _flow(
    graph: "ColumnGraph", nodes: Mapping[_Key, "list[Node]"], tags: dict[_Key, set[str]], removed: dict[_Key, set[str]]
) -> None:
    waiting = [(key, tag) for key, ones in tags.items() for tag in ones]
    while waiting:
        key, tag = waiting.pop()
        for node in nodes.get(key, ()):
            for edge in graph.edges_out_of(node):
                target = _key(edge.target)
                known = tags.setdefault(target, set())
                if edge.kind in FLOWS and tag not in known and tag not in removed.get(target, ()):
                    known.add(tag)
                    waiting.append((target, tag))


def _key(node: "Node") -> _Key:
    """Object and column of a node as texts of tables have them: the rows of a training set are in a table."""
    text = node.object.lower()
    if text.startswith(_TRAINING_SET):
        text = f"training_sets.{text.removeprefix(_TRAINING_SET)}"
    return text, node.column.lower()
