"""One metric over all versions of a model, with intervals and releases: as SVG that needs no style, and as text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ml_platform.registry.card_pages import NAIVE
from ml_platform.registry.history import reigns
from ml_platform.registry.recorded_comparison import interval_of, predict_the_same
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import PRODUCTION, STAGING
from ml_platform.registry.version_facts import VersionFacts, all_facts

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 270, 62, 14, 14, 58
_COLOURS = {PRODUCTION: "#2a8f5b", STAGING: "#3b82c4"}
_LABELS = 24  # versions whose number is written; of more, every second, third …
_BAR = 30  # characters of a bar in a terminal


@dataclass(frozen=True)
class ChartPoint:
    """One version.

    Attributes
    ----------
    version, stage
        Its number, and where it stands.
    value, lower, upper
        The metric on its own holdout, with its 95 % interval over days where that is recorded.
    reference
        The metric of the champion that the gate held it against, on the same rows.
    released
        When it began to answer requests, each with what was done: "promotion 2026-01-31".
    """

    version: int
    stage: str
    value: float
    lower: float | None
    upper: float | None
    reference: float | None
    released: tuple[str, ...]


@dataclass(frozen=True)
class VersionChart:
    """A metric over versions, oldest first.

    Attributes
    ----------
    model, metric
        Whose, and which.
    metrics
        Names of all metrics that some version has, the gate's first.
    points
        The versions that have it.
    left_out
        Why the others have none, in words.
    """

    model: str
    metric: str
    metrics: tuple[str, ...]
    points: tuple[ChartPoint, ...]
    left_out: tuple[str, ...]

    @property
    def note(self) -> str:
        """What the marks of the drawing mean, and how far they compare."""
        marks = {
            "bars are 95 % intervals over its days": self._has_intervals(),
            "no interval of it is recorded": not self._has_intervals(),
            "◇ the champion of then, on the same rows": any(point.reference is not None for point in self.points),
            "▲ began to answer requests": any(point.released for point in self.points),
        }
        return self._note(marks)

    def _note(self, marks: Mapping[str, bool]) -> str:
        shown = "".join(f"; {mark}" for mark, is_drawn in marks.items() if is_drawn)
        return (
            f"{self.metric} of each version on its own holdout{shown}. Holdouts differ from version to version, and "
            "values with them."
        )

    def _has_intervals(self) -> bool:
        return any(point.lower is not None for point in self.points)

    def svg(self) -> Markup:
        """Draw it; colours follow the text around it."""
        low, high = self._range()
        plot_height = _HEIGHT - _TOP - _BOTTOM

        def y(value: float) -> float:
            return _TOP + plot_height * (1 - (value - low) / (high - low))

        label = f"{self.metric} of {len(self.points)} versions of {self.model}, {low:.3g} to {high:.3g}"
        head = '<svg viewBox="0 0 {} {}" width="100%" role="img" aria-label="{}" font-size="11" fill="currentColor">'
        parts = [Markup(head).format(_WIDTH, _HEIGHT, label)]
        for step in range(5):
            value = low + (high - low) * step / 4
            parts.append(
                Markup(
                    '<path d="M{0} {1:.1f}H{2}" stroke="currentColor" stroke-opacity=".15"/>'
                    '<text x="{3}" y="{4:.1f}" text-anchor="end" fill-opacity=".7">{5}</text>'
                ).format(_LEFT, y(value), _WIDTH - _RIGHT, _LEFT - 8, y(value) + 4, f"{value:.4g}")
            )
        room = (_WIDTH - _LEFT - _RIGHT) / max(len(self.points), 1)
        every = -(-len(self.points) // _LABELS)
        for place, point in enumerate(self.points):
            parts.append(_drawn(point, _LEFT + room * (place + 0.5), y, labelled=place % every == 0))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle" fill-opacity=".7">version</text></svg>').format(
                (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4
            )
        )
        return Markup("").join(parts)

    def lines(self) -> list[str]:
        """Draw it for a terminal: a bar from the lowest to the highest value, `-` the interval, `o` the value."""
        low, high = self._range()

        def column(value: float) -> int:
            return round((_BAR - 1) * (value - low) / (high - low))

        marks = {
            "- is its 95 % interval over days": self._has_intervals(),
            "no interval of it is recorded": not self._has_intervals(),
        }
        lines = [f"{self.model}: {self.metric}, {low:.4g} to {high:.4g}"]
        for point in self.points:
            bar = [" "] * _BAR
            if point.lower is not None and point.upper is not None:
                for place in range(column(point.lower), column(point.upper) + 1):
                    bar[place] = "-"
            bar[column(point.value)] = "o"
            bounds = "" if point.lower is None else f" ({point.lower:.4f} to {point.upper:.4f})"
            events = ", ".join(point.released)
            lines.append(
                f"{point.version:>5}  |{''.join(bar)}|  {point.value:.4f}{bounds}  {point.stage}"
                f"{f'  {events}' if events else ''}"
            )
        return [*lines, *(f"Left out: {reason}" for reason in self.left_out), self._note(marks)]

    def _range(self) -> tuple[float, float]:
        shown = [
            value
            for point in self.points
            for value in (point.value, point.lower, point.upper, point.reference)
            if value is not None
        ]
        low, high = min(shown), max(shown)
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        return low - margin, high + margin


def chart_versions(store: ReleaseStore, model: str, metric: str | None = None) -> VersionChart:
    """Gather one metric of all versions of a model.

    Parameters
    ----------
    store
        The release store.
    model
        Whose versions.
    metric
        Which metric; that of the gate when None.

    Raises
    ------
    LookupError
        When there is no such model, none of its versions has the metric, or none has any.
    """
    facts = all_facts(store, model)
    newest = next((one for one in reversed(facts) if one.metrics), None)
    if newest is None:
        raise LookupError(f"{model}: no version has a recorded metric; its bundles and cards are gone")
    names = sorted({name for one in facts for name in one.metrics}, key=lambda name: (name != newest.metric, name))
    wanted = metric or names[0]
    if wanted not in names:
        raise LookupError(f"{model}: no version has the metric '{wanted[:60]}'; there are {', '.join(names)}")
    shown, left_out = [], []
    for one in facts:
        if wanted not in one.metrics:
            reasons = "; ".join(one.missing)
            left_out.append(f"version {one.version} has no {wanted}{f' ({reasons})' if reasons else ''}")
        elif not predict_the_same([one, newest]):
            left_out.append(f"version {one.version} predicts {one.target} ({one.task}), not {newest.target}")
        else:
            shown.append(one)
    released = _released(store, model)
    return VersionChart(
        model=model,
        metric=wanted,
        metrics=tuple(names),
        points=tuple(_point(one, wanted, released.get(one.version, ())) for one in shown),
        left_out=tuple(left_out),
    )


def _point(facts: VersionFacts, metric: str, released: Sequence[str]) -> ChartPoint:
    lower, upper = interval_of(facts, metric) or (None, None)
    return ChartPoint(
        version=facts.version,
        stage=facts.stage,
        value=facts.metrics[metric],
        lower=lower,
        upper=upper,
        reference=None if facts.reference == NAIVE else facts.reference_metrics.get(metric),
        released=tuple(released),
    )


def _released(store: ReleaseStore, model: str) -> dict[int, list[str]]:
    """When each version began to answer requests, on any endpoint."""
    began: dict[int, list[str]] = {}
    for name, document in store.documents().items():
        if document.model != model:
            continue
        before: set[int] = set()
        for reign in reigns(store, name):
            live = {target.version for target in reign.document.targets if target.mode == "live"}
            where = "" if name == model else f" of {name}"
            for version in sorted(live - before):
                began.setdefault(version, []).append(f"{reign.document.action}{where} {reign.since:%Y-%m-%d %H:%M}")
            before = live
    return began


def _drawn(point: ChartPoint, x: float, y: Callable[[float], float], *, labelled: bool) -> Markup:
    colour = _COLOURS.get(point.stage, "currentColor")
    bounds = "" if point.lower is None else f" ({point.lower:.4f} to {point.upper:.4f})"
    told = f"version {point.version}, {point.stage}: {point.value:.4f}{bounds}"
    if point.reference is not None:
        told += f"; what it was held against: {point.reference:.4f}"
    parts = [Markup("<g><title>{}</title>").format("; ".join([told, *point.released]))]
    if point.lower is not None and point.upper is not None:
        parts.append(
            Markup(
                '<path d="M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h10M{3:.1f} {2:.1f}h10" stroke="{4}" '
                'stroke-opacity=".6" stroke-width="1.5" fill="none"/>'
            ).format(x, y(point.lower), y(point.upper), x - 5, colour)
        )
    if point.reference is not None:
        parts.append(
            Markup('<path d="M{:.1f} {:.1f}l5 5l-5 5l-5 -5z" fill="none" stroke="currentColor" stroke-opacity=".7"/>')
            .format(x, y(point.reference) - 5)
        )  # fmt: skip
    parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5" fill="{}"/>').format(x, y(point.value), colour))
    base = _HEIGHT - _BOTTOM
    if labelled:
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, base + 16, point.version)
        )
    if point.released:
        parts.append(Markup('<path d="M{:.1f} {}l6 10h-12z" fill="#2a8f5b"/>').format(x, base + 22))
        if labelled and (count := len(point.released)) > 1:
            parts.append(Markup('<text x="{:.1f}" y="{}" fill-opacity=".7">×{}</text>').format(x + 9, base + 32, count))
    return Markup("").join([*parts, Markup("</g>")])
