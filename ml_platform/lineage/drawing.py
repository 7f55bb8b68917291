"""Draws a small graph as SVG: layers from left to right, boxes that are links, indirect edges dashed.

Colours and dashes are classes, so that the page's style sheet decides, and no script or inline style is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 188, 42, 46, 14, 4
_LETTERS = 24  # of a label that fit into a box
_SWEEPS = 4


@dataclass(frozen=True)
class Box:
    """One node of a drawing."""

    id: str
    label: str
    note: str = ""
    href: str = ""
    kind: str = ""  # class of the box
    focus: bool = False


@dataclass(frozen=True)
class Arrow:
    """One edge of a drawing."""

    source: str
    target: str
    direct: bool
    title: str = ""


def svg(boxes: Sequence[Box], arrows: Iterable[Arrow], *, title: str) -> str:
    """Draw boxes and arrows.

    Examples
    --------
    >>> picture = svg([Box("a", "raw.a"), Box("b", "features.b")], [Arrow("a", "b", direct=False)], title="a to b")
    >>> picture.count("<rect"), "indirect" in picture
    (2, True)
    """
    known = {box.id for box in boxes}
    drawn = [arrow for arrow in arrows if arrow.source in known and arrow.target in known]
    layers = _layers([box.id for box in boxes], drawn)
    places = _places(layers, drawn)
    height = MARGIN * 2 + max((len(layer) for layer in layers), default=0) * (HEIGHT + GAP_Y) - GAP_Y
    width = MARGIN * 2 + len(layers) * (WIDTH + GAP_X) - GAP_X
    lines = "".join(_line(arrow, places) for arrow in drawn)
    nodes = "".join(_node(box, *places[box.id]) for box in boxes)
    return (
        f'<svg class="lineage" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>{lines}{nodes}</svg>'
    )


def _layers(ids: Sequence[str], arrows: Sequence[Arrow]) -> list[list[str]]:
    """Put each node behind all that lead to it; an edge that closes a circle counts for nothing."""
    before: dict[str, list[str]] = {one: [] for one in ids}
    for arrow in arrows:
        if arrow.source != arrow.target:
            before[arrow.target].append(arrow.source)
    depth: dict[str, int] = {}

    def of(one: str, open_: frozenset[str]) -> int:
        if one not in depth:
            within = open_ | {one}
            depth[one] = max((of(other, within) + 1 for other in before[one] if other not in within), default=0)
        return depth[one]

    layers: dict[int, list[str]] = {}
    for one in ids:
        layers.setdefault(of(one, frozenset()), []).append(one)
    return [layers[number] for number in sorted(layers)]


def _places(layers: list[list[str]], arrows: Sequence[Arrow]) -> dict[str, tuple[float, float]]:
    """Order each layer by the mean place of its neighbours, so that few lines cross, and centre it."""
    neighbours: dict[str, list[str]] = {}
    for arrow in arrows:
        neighbours.setdefault(arrow.source, []).append(arrow.target)
        neighbours.setdefault(arrow.target, []).append(arrow.source)
    rank = {one: float(number) for layer in layers for number, one in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            middle = {one: _mean([rank[other] for other in neighbours.get(one, ())], rank[one]) for one in layer}
            layer.sort(key=lambda one: (middle[one], one))
            offset = (max(map(len, layers)) - len(layer)) / 2
            rank.update({one: offset + number for number, one in enumerate(layer)})
    return {
        one: (MARGIN + number * (WIDTH + GAP_X), MARGIN + rank[one] * (HEIGHT + GAP_Y))
        for number, layer in enumerate(layers)
        for one in layer
    }


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _line(arrow: Arrow, places: Mapping[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = places[arrow.source], places[arrow.target]
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2
    bend = max(GAP_X / 2, abs(x2 - x1) / 2)
    kind = "direct" if arrow.direct else "indirect"
    return (
        f'<path class="edge {kind}" marker-end="url(#tip)" d="M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} '
        f'{x2:g} {y2:g}"><title>{escape(arrow.title)}</title></path>'
    )


def _node(box: Box, x: float, y: float) -> str:
    label = box.label if len(box.label) <= _LETTERS else f"{box.label[: _LETTERS - 1]}…"
    classes = f"box {box.kind}{' focus' if box.focus else ''}"
    body = (
        f'<rect class="{escape(classes)}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + 10:g}" y="{y + 18:g}">{escape(label)}</text>'
        f'<text class="note" x="{x + 10:g}" y="{y + 34:g}">{escape(box.note[:34])}</text>'
        f"<title>{escape(f'{box.label} {box.note}'.strip())}</title>"
    )
    return f'<a href="{escape(box.href)}">{body}</a>' if box.href else f"<g>{body}</g>"
