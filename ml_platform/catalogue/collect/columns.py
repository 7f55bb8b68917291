"""What the column graph and the access policy say of entries: lineage of each column, and tags with where from."""

import re
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ml_platform.catalogue.document import Column, ColumnLineage, ColumnRef, Entry
from ml_platform.governance.access.objects import table_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.tag_flow import ALL_COLUMNS, column_tags, tag_sources
from ml_platform.lineage.graph import ColumnGraph, Edge
from ml_platform.spec.protection import Protection

_VERSION = re.compile(r"model:(?P<model>.+)@(?P<version>\d+)")


def entry_name(object_: str) -> str:
    """What the catalogue calls an object of the column graph; online values are those of their view.

    Examples
    --------
    >>> entry_name("model:late@3"), entry_name("online.weather"), entry_name("raw.flights")
    ('version:late@v3', 'features.weather', 'raw.flights')
    """
    if match := _VERSION.fullmatch(object_):
        return f"version:{match['model']}@v{match['version']}"
    schema, _, rest = object_.partition(".")
    return f"features.{rest}" if schema == "online" else object_


def with_lineage(entries: Sequence[Entry], graph: ColumnGraph) -> list[Entry]:
    """Let entries say what they and their columns are made of, and made into, by the column graph.

    What the graph does not know, such as notebooks, or could not trace keeps what its declaration names.
    """
    names = {one.name for one in entries}
    upstream: dict[str, set[str]] = {}
    into: dict[tuple[str, str], set[ColumnRef]] = {}
    out_of: dict[tuple[str, str], set[ColumnRef]] = {}
    for edge in graph.edges:
        source, target = _ends(edge)
        if source.entry == target.entry or source.entry not in names or target.entry not in names:
            continue
        upstream.setdefault(target.entry, set()).add(source.entry)
        into.setdefault((target.entry, target.column), set()).add(source)
        out_of.setdefault((source.entry, source.column), set()).add(target)
    objects = {entry_name(one): one for one in graph.objects if not one.startswith("online.")}
    made = []
    for entry in entries:
        object_ = objects.get(entry.name)
        if object_ is None:
            made.append(entry)
            continue
        lineage = (
            ColumnLineage(
                name=column,
                upstream=_ordered(into.get((entry.name, column), ())),
                downstream=_ordered(out_of.get((entry.name, column), ())),
            )
            for column in graph.columns(object_)
        )
        made.append(
            replace(
                entry,
                upstream=tuple(sorted(upstream[entry.name])) if entry.name in upstream else entry.upstream,
                graph_name=object_,
                lineage=tuple(one for one in lineage if one.upstream or one.downstream),
            )
        )
    return made


def _ends(edge: Edge) -> tuple[ColumnRef, ColumnRef]:
    source, target = edge.source, edge.target
    return (
        ColumnRef(entry_name(source.object), source.column, edge.direct),
        ColumnRef(entry_name(target.object), target.column, edge.direct),
    )


def _ordered(refs: "set[ColumnRef] | tuple[()]") -> tuple[ColumnRef, ...]:
    """Each column once, those from or to which values flow first."""
    flows = {(one.entry, one.column) for one in refs if one.is_direct}
    kept = [one for one in refs if one.is_direct or (one.entry, one.column) not in flows]
    return tuple(sorted(kept, key=lambda one: (not one.is_direct, one.entry, one.column)))


def with_tags(
    entries: Sequence[Entry], policy: Policy, protections: Mapping[str, Protection], graph: ColumnGraph
) -> list[Entry]:
    """Let columns say their tags: declared, set by commands, and flowing to them, with where from."""
    tags, declared = column_tags(policy, protections, graph), column_tags(policy, protections)
    if not any(tags.values()):
        return list(entries)
    sources = tag_sources(tags, declared, graph)
    names = {_tag_key(one): one.name for one in entries}
    spelled = {(_tag_key(one), column.name.lower()): column.name for one in entries for column in one.columns}

    def tagged(entry: Entry, column: Column) -> Column:
        key, name = _tag_key(entry), column.name.lower()
        of_table = tags.get(key, {})
        ones = sorted({*column.tags, *of_table.get(name, of_table.get(ALL_COLUMNS, ()))})
        flowing = {
            tag: tuple(
                ColumnRef(names[text], spelled.get((text, origin), origin))
                for text, origin in sources[key, name, tag]
                if text in names
            )
            for tag in ones
            if (key, name, tag) in sources and tag not in column.tags
        }
        return replace(column, tags=tuple(ones), flowing=flowing)

    return [
        replace(one, columns=tuple(tagged(one, column) for column in one.columns)) if _tag_key(one) in tags else one
        for one in entries
    ]


def _tag_key(entry: Entry) -> str:
    """The name under which tags of an entry's columns are kept."""
    if entry.kind == "training set":
        return f"training_sets.{entry.title}".lower()
    return table_object(entry.table).text if entry.table else entry.name.lower()
