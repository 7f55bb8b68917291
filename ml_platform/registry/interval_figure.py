"""Intervals of a gain drawn to one scale, as SVG in a page that needs nothing else."""

from typing import Protocol

from markupsafe import Markup

OTHER_BLOCKS = "decides: for other {blocks}"
SAME_BLOCKS = "beside it: the same {blocks} again, with other rows"
_WIDTH, _LEFT, _ROW, _TOP = 720, 300, 30, 8


class _Interval(Protocol):
    """A gain with its interval, and the blocks of rows that it rests on."""

    @property
    def gain(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def blocks(self) -> int: ...
    @property
    def block(self) -> str: ...


def labelled(interval: _Interval | None, within: _Interval | None) -> list[tuple[str, _Interval]]:
    """Name what each interval sees; those that there are, the deciding one first."""
    return [
        (words.format(blocks=_blocks(one)), one)
        for words, one in ((OTHER_BLOCKS, interval), (SAME_BLOCKS, within))
        if one is not None
    ]


def _blocks(interval: _Interval) -> str:
    return {"day": "days", "week": "weeks", "rows": "rows"}.get(interval.block, f"values of {interval.block}")


def interval_svg(interval: _Interval | None, within: _Interval | None, bound: float | None = None) -> Markup:
    """Draw both intervals of one gain above each other, with a line at 0 and one at the bound that the rule wants.

    Parameters
    ----------
    interval
        Over blocks: what decides.
    within
        Of the same blocks with other rows.
    bound
        What the lower bound has to be above, where it is not 0.

    Returns
    -------
    markupsafe.Markup
        An SVG in the colours of the page's text; empty without intervals.
    """
    shown = labelled(interval, within)
    if not shown:
        return Markup("")
    marks = [0.0, *([bound] if bound else [])]
    ends = [end for _, one in shown for end in (one.lower, one.upper)] + marks
    low, span = min(ends), (max(ends) - min(ends)) or 1.0

    def x(value: float) -> float:
        return _LEFT + 12 + (_WIDTH - _LEFT - 24) * (value - low) / span

    height = _TOP + _ROW * len(shown) + 22
    parts = [_line(x(0.0), _TOP, height - 20, "0", "zero")]
    if bound:
        parts.append(_line(x(bound), _TOP, height - 20, "", "bound"))
    for place, (name, one) in enumerate(shown):
        y = _TOP + _ROW * place + _ROW / 2
        parts.append(
            Markup(
                '<text x="0" y="{:.0f}">{}</text><path class="reach" d="M{:.1f} {:.1f}H{:.1f}"/>'
                '<circle cx="{:.1f}" cy="{:.1f}" r="4"/>'
            ).format(y + 4, name, x(one.lower), y, x(one.upper), x(one.gain), y)
        )
    said = "; ".join(f"{name}: {one.gain:+.4g}, {one.lower:+.4g} to {one.upper:+.4g}" for name, one in shown)
    return Markup('<svg class="intervals" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, said, Markup("").join(parts)
    )


def _line(x: float, top: float, bottom: float, label: str, kind: str) -> Markup:
    return Markup(
        '<path class="{}" d="M{:.1f} {:.1f}V{:.1f}"/><text x="{:.1f}" y="{:.1f}" class="mark">{}</text>'
    ).format(kind, x, top, bottom, x, bottom + 14, label)
