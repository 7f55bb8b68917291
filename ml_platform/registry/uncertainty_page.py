"""What a card says of probabilities and intervals, and the plot of the former."""

from collections.abc import Sequence

from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.manifest import Reliability
from ml_platform.registry.model_card import ModelCard
from ml_platform.registry.releases import ReleaseStore

_SIDE, _EDGE = 300, 34
_JUDGED = {False: "holdout rows", True: "labelled answers, those of each day mapped as the days before it teach"}


def uncertainty_of(store: ReleaseStore, card: ModelCard) -> list[tuple[str, str]]:
    """Facts about a version's probabilities and intervals, by name; those that follow the labels as they are now."""
    facts = []
    if card.recalibrated is not None:
        facts.append(
            (
                "Recalibrated",
                f"Version {card.recalibrated.base_version} with other probabilities, without training; made to take "
                f"the place of version {card.recalibrated.replaced_version}",
            )
        )
    if card.task != "regression":
        facts.append(("Probabilities", _calibration(card)))
    if card.reliability:
        rows = sum(one.rows for one in card.reliability)
        error = sum(one.rows * abs(one.predicted - one.observed) for one in card.reliability) / rows
        facts.append(
            ("Expected calibration error", f"{error:.4f} on {rows:,} {_JUDGED[card.recalibrated is not None]}")
        )
    kind = "Intervals" if card.task == "regression" else "Sets of classes"
    if (known := card.conformal) is None:
        facts.append((kind, "No numbers for them"))
    else:
        coverage_text = (
            "" if known.coverage is None else f": of 0.9, made of the older half, held {known.coverage:.3f} of the rest"
        )
        facts.append((kind, f"Made of {known.rows:,} rows, {known.first[:10]} to {known.last[:10]}{coverage_text}"))
    adapted = load_adapted(store, card.digest)
    if adapted is not None:
        now = adapted.conformal
        coverage_text = (
            "no day is counted yet"
            if now.coverage is None or now.width is None
            else f"those of 0.9 held {now.coverage:.3f} of the labels of the last counted days, {now.width:.4g} wide"
        )
        facts.append(
            (f"{kind}, adapted", f"To labels until {adapted.through[:10]}, {adapted.days} days: {coverage_text}")
        )
    return facts


def _calibration(card: ModelCard) -> str:
    if (known := card.calibration) is None:
        return "As the family gives them (calibration: none, or too few rows)"
    until = f"{'before ' if known.fitted_on == 'labelled' else ''}{known.fitted_until[:10]}"
    shifts = ", ".join(f"{shift:+.3f}" for shift in known.shifts)
    return (
        f"Platt scaling: slope {known.slope:.3f}, shift {shifts}, learned on {known.rows:,} {known.fitted_on} rows, "
        f"{known.fitted_from[:10]} to {until}"
    )


def reliability_svg(bins: Sequence[Reliability]) -> str:
    """Plot what was said against what happened, as SVG that takes the page's colours."""
    if not bins:
        return ""
    largest = max(max(one.predicted, one.observed) for one in bins)
    scale = next(step for step in (0.1, 0.2, 0.5, 1.0) if largest <= step)

    def place(said: float, happened: float) -> tuple[float, float]:
        inside = _SIDE - 2 * _EDGE
        return _EDGE + inside * said / scale, _SIDE - _EDGE - inside * happened / scale

    points = [place(one.predicted, one.observed) for one in bins]
    ends = place(0, 0), place(scale, scale)
    corner = place(scale, 0)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="currentColor"/>' for x, y in points)
    text = 'font-size="11" fill="currentColor" opacity="0.7"'
    return (
        f'<svg role="img" aria-label="Calibration" viewBox="0 0 {_SIDE} {_SIDE}" width="{_SIDE}" height="{_SIDE}">'
        f'<path d="M{ends[0][0]} {ends[1][1]} V{ends[0][1]} H{corner[0]}" stroke="currentColor" opacity="0.4" '
        'fill="none"/>'
        f'<line x1="{ends[0][0]}" y1="{ends[0][1]}" x2="{ends[1][0]}" y2="{ends[1][1]}" stroke="currentColor" '
        'opacity="0.4" stroke-dasharray="4 4"/>'
        f'<polyline points="{line}" fill="none" stroke="currentColor"/>{dots}'
        f'<text x="{_EDGE}" y="{_SIDE - _EDGE + 14}" {text}>0</text>'
        f'<text x="{_SIDE - _EDGE}" y="{_SIDE - _EDGE + 14}" text-anchor="end" {text}>said {scale:g}</text>'
        f'<text x="{_EDGE}" y="{_EDGE - 8}" text-anchor="middle" {text}>happened {scale:g}</text></svg>'
    )
