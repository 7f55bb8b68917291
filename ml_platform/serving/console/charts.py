"""Small charts as inline SVG. Lines and bars alone: titles, numbers and units are text of the page around them.

Each stretches to the width that it is given (`preserveAspectRatio="none"`, strokes that do not scale); colours are the
style sheet's. A chart has a sentence for those who cannot see it.
"""

from collections.abc import Callable, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 600, 100
_PAD = 3.0

Point = float | None


def bars(stacks: Sequence[tuple[str, Sequence[float]]], label: str, top: float | None = None) -> Markup:
    """Bars side by side, several values on top of each other.

    Parameters
    ----------
    stacks
        Style class and values of each layer, from the bottom; all of one length.
    label
        What the chart says, for those who cannot see it.
    top
        Value at the upper edge; the highest bar when None.

    Examples
    --------
    >>> bars([("answered", [1, 2])], "two bars")
    Markup('<svg class="chart" viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="two bars">...
    """
    count = len(stacks[0][1])
    totals = [sum(values[place] for _, values in stacks) for place in range(count)]
    highest = top or max([*totals, 0.0]) or 1.0
    width = WIDTH / max(count, 1)
    below = [0.0] * count
    paths = []
    for name, values in stacks:
        steps = []
        for place, value in enumerate(values):
            if value > 0:
                low = HEIGHT * (1 - min(below[place] / highest, 1))
                high = HEIGHT * (1 - min((below[place] + value) / highest, 1))
                steps.append(f"M{place * width:.1f} {low:.1f}V{high:.1f}h{width * 0.82:.1f}V{low:.1f}z")
            below[place] += value
        paths.append(Markup('<path class="bar {}" d="{}"/>').format(name, "".join(steps)))
    return _svg(paths, label)


def lines(
    series: Sequence[tuple[str, Sequence[Point]]],
    label: str,
    *,
    bottom: float = 0.0,
    top: float | None = None,
    levels: Sequence[tuple[str, float]] = (),
    band: tuple[Sequence[Point], Sequence[Point]] | None = None,
    dots: bool = False,
) -> Markup:
    """Lines over evenly spaced points, with gaps where there is no value.

    Parameters
    ----------
    series
        Style class and values of each line.
    label
        What the chart says, for those who cannot see it.
    bottom, top
        Values at the edges; the highest value when `top` is None.
    levels
        Style class and value of horizontal lines.
    band
        Lower and upper edge of a shaded band.
    dots
        Whether each point is marked.
    """
    values = [value for _, points in series for value in points if value is not None]
    highest = top if top is not None else max([*values, *(value for _, value in levels)], default=1.0) * 1.05
    span = (highest - bottom) or 1.0

    def y(value: float) -> float:
        return _PAD + (HEIGHT - 2 * _PAD) * (1 - min(max((value - bottom) / span, 0.0), 1.0))

    paths = []
    if band is not None:
        paths.append(_band(band[0], band[1], y))
    for name, value in levels:
        paths.append(Markup('<path class="level {}" d="M0 {:.1f}H{}"/>').format(name, y(value), WIDTH))
    for name, points in series:
        paths.append(Markup('<path class="line {}" d="{}"/>').format(name, _line(points, y)))
        if dots:
            paths.append(Markup('<path class="dots" d="{}"/>').format(_dots(points, y)))
    return _svg(paths, label)


def _line(points: Sequence[Point], y: Callable[[float], float]) -> str:
    steps, pen = [], "M"
    for place, value in enumerate(points):
        if value is None:
            pen = "M"
            continue
        alone = pen == "M" and (place + 1 == len(points) or points[place + 1] is None)
        steps.append(f"{pen}{_x(place, len(points)):.1f} {y(value):.1f}{'h0' if alone else ''}")
        pen = "L"
    return "".join(steps)


def _dots(points: Sequence[Point], y: Callable[[float], float]) -> str:
    """Lines of no length, drawn as dots by their round ends."""
    return "".join(
        f"M{_x(place, len(points)):.1f} {y(value):.1f}h0" for place, value in enumerate(points) if value is not None
    )


def _band(low: Sequence[Point], high: Sequence[Point], y: Callable[[float], float]) -> Markup:
    steps = []
    for place, (bottom, top) in enumerate(zip(low, high, strict=True)):
        if bottom is not None and top is not None:
            left, width = WIDTH * place / len(low), WIDTH / len(low)
            steps.append(f"M{left:.1f} {y(bottom):.1f}V{y(top):.1f}h{width:.1f}V{y(bottom):.1f}z")
    return Markup('<path class="band" d="{}"/>').format("".join(steps))


def _x(place: int, count: int) -> float:
    """Middle of a point's share of the width: where a bar of the same place stands."""
    return WIDTH * (place + 0.5) / count


def _svg(paths: Sequence[Markup], label: str) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(WIDTH, HEIGHT, label) + Markup("").join(paths) + Markup("</svg>")
