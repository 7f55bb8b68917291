"""A graph, an impact and a version's rows as text for the terminal, and a graph in the language of Graphviz."""

from collections.abc import Iterable, Iterator

from ml_platform.lineage.graph import DIRECT, ColumnGraph, Node
from ml_platform.lineage.impact import Impact
from ml_platform.lineage.version_sources import VersionSources

_FEATURES = 15  # of a version that are listed
_COLUMNS = 6  # of an object that are listed in one line


def column_lines(graph: ColumnGraph, starts: Iterable[Node], *, upstream: bool, downstream: bool) -> Iterator[str]:
    """What some columns are made of and what is made of them, at first hand and further on."""
    for number, start in enumerate(starts):
        if number:
            yield ""
        yield str(start)
        for is_wanted, title, reached, edges in (
            (upstream, "depends on", graph.upstream(start), graph.edges_into(start)),
            (downstream, "is used by", graph.downstream(start), graph.edges_out_of(start)),
        ):
            if is_wanted:
                near: dict[Node, list[str]] = {}
                for edge in edges:
                    near.setdefault(edge.source if title == "depends on" else edge.target, []).append(edge.kind)
                yield f"  {title} {'nothing' if not reached else ''}".rstrip()
                yield from (f"    {node}  ({', '.join(kinds)})" for node, kinds in near.items())
                yield from _further([node for node in reached if node not in near])


def _further(nodes: list[Node]) -> Iterator[str]:
    by_object: dict[str, list[str]] = {}
    for node in nodes:
        by_object.setdefault(node.object, []).append(node.column)
    if by_object:
        yield "    further on:"
    for name, columns in by_object.items():
        yield f"      {name}: {_some(columns)}"


def _some(columns: Iterable[str]) -> str:
    listed = list(columns)
    more = f" and {len(listed) - _COLUMNS} more" if len(listed) > _COLUMNS else ""
    return ", ".join(listed[:_COLUMNS]) + more


def impact_lines(impact: Impact) -> Iterator[str]:
    """What breaks, each object in a line with the owner and what of it depends on the columns."""
    yield f"If {', '.join(impact.columns[:3])}{' …' if len(impact.columns) > 3 else ''} is dropped:"
    yield from (f"  {note}" for note in impact.notes)
    if not impact.affected:
        yield "  nothing else reads it."
        return
    for one in impact.affected:
        hand = "reads it" if one.at_first_hand else "further on"
        flow = "" if one.values else "; no value of it"
        yield f"  {one.kind:<12} {one.object}  ({hand}: {', '.join(one.how)}{flow})"
        details = [_some(one.columns), *one.facts]
        details += [f"checks {', '.join(one.checks)}"] if one.checks else []
        details += [f"owner {one.owner}"] if one.owner else []
        yield f"               {'; '.join(details)}"
    serving = [one.object for one in impact.affected if one.kind == "version"]
    yield (
        f"{len(impact.affected)} objects depend on it"
        + (f"; now serving: {', '.join(serving)}" if serving else "")
        + (f". Tell {', '.join(impact.owners)}." if impact.owners else ".")
    )


def version_lines(sources: VersionSources) -> Iterator[str]:
    """The tables, rows and features behind a version, with the commands that read them."""
    yield f"{sources.model} version {sources.version} ({sources.digest[:12]}), code {sources.code_version}"
    yield f"learnt from {sources.training_rows:,} rows, {sources.trained_from} to {sources.trained_until}"
    yield from (f"  {note}" for note in sources.notes)
    for table in sources.tables:
        yield ""
        if table.problem:
            yield f"{table.table} version {table.version} ({table.role}): can no longer be read: {table.problem}"
            continue
        written = f", written {table.written_at}" if table.written_at else ""
        yield (
            f"{table.table} version {table.version} ({table.role}): {table.rows:,} rows in {table.files:,} files, "
            f"{table.bytes:,} bytes{written}"
        )
        yield f"  rows: {table.where or 'all'}"
        if table.from_files:
            yield f"  from {_some(table.from_files)}"
        yield f"  {table.command}"
    yield ""
    yield "features by importance:"
    for name, source, importance in sources.features[:_FEATURES]:
        yield f"  {importance:6.1%}  {name}  ({source})"
    if len(sources.features) > _FEATURES:
        yield f"  and {len(sources.features) - _FEATURES} more"


def dot(graph: ColumnGraph) -> str:
    """Write a graph for Graphviz: a box of columns per object, indirect edges dashed.

    Examples
    --------
    >>> from ml_platform.lineage.graph import Edge
    >>> print(dot(ColumnGraph([Edge(Node("raw.a", "x"), Node("features.b", "y"), "filter")])).splitlines()[-2])
      "raw.a":"x" -> "features.b":"y" [label="filter", style=dashed];
    """
    lines = ["digraph lineage {", "  rankdir=LR; node [shape=plaintext];"]
    for name in graph.objects:
        rows = "".join(
            f'<TR><TD PORT="{_html(column)}" ALIGN="LEFT">{_html(column)}</TD></TR>' for column in graph.columns(name)
        )
        table = f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0"><TR><TD><B>{_html(name)}</B></TD></TR>{rows}</TABLE>'
        lines.append(f"  {_quoted(name)} [label=<{table}>];")
    for edge in graph.edges:
        style = "" if edge.kind in DIRECT else ", style=dashed"
        start, end = (f"{_quoted(node.object)}:{_quoted(node.column)}" for node in (edge.source, edge.target))
        lines.append(f'  {start} -> {end} [label="{edge.kind}"{style}];')
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
