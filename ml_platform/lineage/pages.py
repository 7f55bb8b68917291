"""What the console's pages of the graph show: all of it collapsed by model, an object with its columns, one column."""

from collections import deque
from typing import Any
from urllib.parse import urlencode

from ml_platform.lineage.drawing import Arrow, Box, svg
from ml_platform.lineage.graph import DIRECT, Kind, Node
from ml_platform.lineage.impact import impact_of
from ml_platform.lineage.objects import Lineage

MOST = 30  # boxes in a drawing: more are not legible
_WORDS = {"training_set": "training set", "version": "serving version", "log": "inference log"}


def overview_facts(lineage: Lineage) -> dict[str, Any]:
    """The whole project, each model with all that is made by it in one box, online values with their view."""
    groups: dict[str, list[str]] = {}
    for name in lineage.graph.objects:
        groups.setdefault(_group(name), []).append(name)
    edges: dict[tuple[str, str], set[Kind]] = {}
    for (source, target), kinds in lineage.graph.object_edges().items():
        pair = _group(source), _group(target)
        if pair[0] != pair[1]:
            edges.setdefault(pair, set()).update(kinds)
    degree = {name: sum(name in pair for pair in edges) for name in groups}
    shown = sorted(groups, key=lambda name: (-degree[name], name))[:MOST]
    boxes = [
        Box(
            id=name,
            label=name,
            note=_note(lineage, groups[name]),
            href=_link(object=_main(groups[name])),
            kind=lineage.info(_main(groups[name])).kind,
        )
        for name in sorted(shown)
    ]
    return {
        "picture": svg(boxes, _arrows(edges), title="lineage of the project"),
        "hidden": len(groups) - len(shown),
        "objects": [
            {
                "name": name,
                "href": _link(object=name),
                "kind": _word(lineage.info(name).kind),
                "owner": lineage.info(name).owner,
                "columns": len(lineage.graph.columns(name)),
                "description": lineage.info(name).description,
            }
            for name in lineage.graph.objects
        ],
    }


def object_facts(lineage: Lineage, name: str) -> dict[str, Any]:
    """An object with the nearest others around it, and what each of its columns is made of."""
    pairs = lineage.graph.object_edges()
    near = _nearest({name}, [pair for pair in pairs if pair[0] != pair[1]])
    boxes = [_object_box(lineage, one, name) for one in near]
    edges = {pair: kinds for pair, kinds in pairs.items() if set(pair) <= set(near)}
    columns = [
        {
            "name": column,
            "href": _link(object=name, column=column),
            "from": _ends(edge.source for edge in lineage.graph.edges_into(Node(name, column)) if edge.direct),
            "rows": _ends(edge.source for edge in lineage.graph.edges_into(Node(name, column)) if not edge.direct),
            "uses": len(lineage.graph.downstream(Node(name, column))),
            "notes": ", ".join(lineage.notes.get(str(Node(name, column)), ())),
        }
        for column in lineage.graph.columns(name)
    ]
    info = lineage.info(name)
    return {
        "name": name,
        "info": info,
        "kind": _word(info.kind),
        "picture": svg(boxes, _arrows(edges), title=f"lineage of {name}"),
        "hidden": len(_reachable({name}, pairs)) - len(near),
        "columns": columns,
    }


def column_facts(lineage: Lineage, node: Node) -> dict[str, Any]:
    """A column with the nearest others, what it is made of, and what breaks without it."""
    part = lineage.graph.around([node])
    links = {(edge.source, edge.target) for edge in part.edges}
    near = _nearest({node}, links)
    boxes = [
        Box(
            id=str(one),
            label=one.column,
            note=one.object,
            href=_link(object=one.object, column=one.column),
            kind=lineage.info(one.object).kind,
            focus=one == node,
        )
        for one in near
    ]
    edges: dict[tuple[str, str], set[Kind]] = {}
    for edge in part.edges:
        edges.setdefault((str(edge.source), str(edge.target)), set()).add(edge.kind)
    impact = impact_of(lineage, [node])
    return {
        "name": str(node),
        "object": node.object,
        "object_href": _link(object=node.object),
        "picture": svg(boxes, _arrows(edges), title=f"lineage of {node}"),
        "hidden": len(part.nodes) - len(near),
        "sources": _ends(edge.source for edge in lineage.graph.edges_into(node)),
        "impact": [
            {
                "name": one.object,
                "href": _link(object=one.object),
                "kind": _word(one.kind),
                "owner": one.owner,
                "how": f"{'reads it' if one.at_first_hand else 'further on'}: {', '.join(one.how)}",
                "facts": "; ".join(one.facts),
            }
            for one in impact.affected
        ],
        "notes": impact.notes,
    }


def _object_box(lineage: Lineage, name: str, focus: str) -> Box:
    info = lineage.info(name)
    note = f"{_word(info.kind)}, {len(lineage.graph.columns(name))} columns"
    return Box(name, name, note, _link(object=name), info.kind, focus=name == focus)


def _group(name: str) -> str:
    """The box of an object in the overview."""
    kind, separator, rest = name.partition(":")
    if separator and kind in {"training_set", "model", "endpoint"}:
        return rest.partition("@")[0]
    schema, _, table = name.partition(".")
    if not separator and schema in {"predictions", "inference_log"}:
        return table
    if not separator and schema in {"online", "pushed"}:
        return f"features.{table.partition('__')[0]}"
    return name


def _main(names: list[str]) -> str:
    return next((name for name in names if name.startswith(("model:", "features.")) and "@" not in name), names[0])


def _note(lineage: Lineage, names: list[str]) -> str:
    if len(names) == 1:
        return f"{_word(lineage.info(names[0]).kind)}, {len(lineage.graph.columns(names[0]))} columns"
    return f"{_word(lineage.info(_main(names)).kind)} and {len(names) - 1} more"


def _word(kind: str) -> str:
    return _WORDS.get(kind, kind)


def _link(**parts: str) -> str:
    return f"?{urlencode(parts)}"


def _arrows(edges: dict[tuple[str, str], set[Kind]]) -> list[Arrow]:
    return [
        Arrow(source, target, bool(kinds & DIRECT), ", ".join(sorted(kinds)))
        for (source, target), kinds in sorted(edges.items())
        if source != target
    ]


def _ends(nodes: Any) -> list[dict[str, str]]:
    return [{"name": str(node), "href": _link(object=node.object, column=node.column)} for node in sorted(set(nodes))]


def _nearest(starts: set[Any], pairs: Any) -> list[Any]:
    """The nodes nearest to some, upstream and downstream, at most as many as can be drawn."""
    into: dict[Any, set[Any]] = {}
    out_of: dict[Any, set[Any]] = {}
    for source, target in pairs:
        out_of.setdefault(source, set()).add(target)
        into.setdefault(target, set()).add(source)
    near, queue = list(starts), deque((start, side) for start in starts for side in (into, out_of))
    while queue and len(near) < MOST:
        node, side = queue.popleft()
        for other in sorted(side.get(node, ())):
            if other not in near and len(near) < MOST:
                near.append(other)
                queue.append((other, side))
    return near


def _reachable(starts: set[str], pairs: Any) -> set[str]:
    found = set(starts)
    for forward in (True, False):
        open_, seen = set(starts), set(starts)
        while open_:
            node = open_.pop()
            nexts = {
                pair[1] if forward else pair[0] for pair in pairs if (pair[0] if forward else pair[1]) == node
            } - seen
            seen |= nexts
            open_ |= nexts
        found |= seen
    return found
