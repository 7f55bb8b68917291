"""Versions side by side from what is recorded of them, in words: one table for terminal, page and console."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

from ml_platform.registry.version_facts import VersionFacts

Row = tuple[str, tuple[str, ...]]
Part = tuple[str, list[Row]]
_ABSENT = "–"
_Z = 1.96  # of a 95 % interval around a mean of many days


def fact_rows(sides: Sequence[VersionFacts]) -> list[Part]:
    """Titles, and below each the names and values of what is recorded of each version.

    Parameters
    ----------
    sides
        The versions, in the order of the columns.
    """
    parts = [
        ("Provenance", list(_made(sides))),
        ("Quality on each one's own holdout", list(_quality(sides))),
        ("Groups that the gate guards", list(_groups(sides))),
        ("Importance of features", list(_features(sides))),
    ]
    tables = [(title, [row for row in rows if row[0]]) for title, rows in parts]
    return [(title, rows) for title, rows in tables if rows]


def unlike(sides: Sequence[VersionFacts]) -> list[str]:
    """Say why versions' numbers do not compare, or only with care; nothing where they do.

    Parameters
    ----------
    sides
        Two versions or more.
    """
    lines = []
    for name, of in (("task", "task"), ("target", "target"), ("unit of the target", "target_unit")):
        if len({getattr(side, of) for side in sides if side.family is not None}) > 1:
            lines.append(f"They do not predict the same: {name} is {_each(sides, attrgetter(of))}.")
    if len({side.metric for side in sides if side.metric}) > 1:
        lines.append(f"The gate judged them by other metrics: {_each(sides, lambda side: side.metric)}.")
    if len({side.holdout for side in sides if side.holdout}) > 1:
        lines.append(
            f"Each was measured on a holdout of its own ({_each(sides, _holdout)}): metrics differ by the rows too."
        )
    lines += [
        f"Version {side.version} was imported ({side.imported.summary}): which rows it has seen is not known here."
        for side in sides
        if side.imported
    ]
    known = [set(side.features) for side in sides if side.features]
    if known and any(names != known[0] for names in known):
        lines.append(f"They read other features: {_each(sides, lambda side: f'{len(side.features)}')}.")
    lines += [f"Of version {side.version}: {reason}." for side in sides for reason in side.missing]
    return lines


def predict_the_same(sides: Sequence[VersionFacts]) -> bool:
    """Whether versions answer one question: so that rows can judge between them."""
    return len({(side.task, side.target, side.target_unit) for side in sides}) == 1


def interval_of(side: VersionFacts, metric: str) -> tuple[float, float] | None:
    """95 % interval of the gate's metric on a version's holdout, over days; None for others, or where not recorded."""
    if metric != side.metric or side.standard_error is None or metric not in side.metrics:
        return None
    value, margin = side.metrics[metric], _Z * side.standard_error
    return value - margin, value + margin


def _made(sides: Sequence[VersionFacts]) -> Iterator[Row]:
    yield _row("stage", sides, lambda side: side.stage)
    yield _row("behind", sides, lambda side: side.serving or "no endpoint")
    yield _row("gate", sides, lambda side: {None: None, True: "passed", False: "refused"}[side.passed])
    yield _row("task", sides, lambda side: side.task)
    yield _row(
        "target",
        sides,
        lambda side: side.target and f"{side.target}{f' ({side.target_unit})' if side.target_unit else ''}",
    )
    yield _row("family", sides, lambda side: side.family)
    yield from _pairs("", [_texts(side.params) for side in sides])
    yield _row("threshold", sides, lambda side: number(side.threshold))
    yield _row("calibration", sides, _calibration, only_if_any=True)
    yield _row("calibrated on", sides, _calibrated_on, only_if_any=True)
    yield _row(
        "recalibrated from",
        sides,
        lambda side: f"version {side.recalibrated.base_version}" if side.recalibrated else None,
        only_if_any=True,
    )
    yield _row("imported from", sides, lambda side: side.imported.source if side.imported else None, only_if_any=True)
    yield _row(
        "training set",
        sides,
        lambda side: side.training_set and f"{side.training_set} version {side.training_set_version}",
    )
    yield from _pairs("made of ", [_texts(side.tables) for side in sides])
    yield _row("learned from", sides, lambda side: None if side.imported else side.trained_from)
    yield _row("learned until", sides, lambda side: side.trained_until)
    yield _row(
        "rows", sides, lambda side: None if side.imported or side.training_rows is None else f"{side.training_rows:,}"
    )
    yield _row("features", sides, lambda side: str(len(side.features)) if side.features else None)
    yield _row("features of it alone", sides, lambda side: _alone(side, sides), only_if_any=True)
    yield _row("code", sides, lambda side: side.code_version)
    yield _row("made", sides, lambda side: side.created_at and side.created_at[:16].replace("T", " "))
    yield _row("one row, ms", sides, lambda side: None if side.latency_ms is None else f"{side.latency_ms:.3f}")
    yield _row("graph, kB", sides, lambda side: _kilobytes(side.graph_bytes))
    yield _row("bundle, kB", sides, lambda side: _kilobytes(side.bundle_bytes))
    yield _row("digest", sides, lambda side: side.digest[:12])
    yield _row(
        "tags", sides, lambda side: ", ".join(f"{name}={value}" for name, value in side.tags.items()), only_if_any=True
    )
    yield _row("comments", sides, lambda side: str(side.comments) if side.comments else None, only_if_any=True)


def _calibration(side: VersionFacts) -> str | None:
    found = side.calibration
    if found is None:
        return None
    return f"slope {found.slope:.4f}, shift {', '.join(f'{shift:+.4f}' for shift in found.shifts)}"


def _calibrated_on(side: VersionFacts) -> str | None:
    found = side.calibration
    if found is None:
        return None
    return (
        f"{found.rows:,} {found.fitted_on} rows, {found.fitted_from[:10]} to {found.fitted_until[:10]}: error "
        f"{found.error_before:.4f} → {found.error_after:.4f}"
    )


def _quality(sides: Sequence[VersionFacts]) -> Iterator[Row]:
    names = {name for side in sides for name in side.metrics}
    first = next((side.metric for side in sides if side.metric), None)
    if not names:
        return
    yield _row("holdout", sides, _holdout)
    for name in sorted(names, key=lambda one: (one != first, one)):
        yield _row(name, sides, partial(_metric, name))
    yield _row("held against", sides, lambda side: side.reference or None)
    yield _row("gain over it", sides, _gain)


def _groups(sides: Sequence[VersionFacts]) -> Iterator[Row]:
    results = [{f"{one.column} = {one.value}": one for one in side.slices} for side in sides]
    for name in sorted({name for result in results for name in result}):
        values = [result.get(name) for result in results]
        yield name, tuple(f"{one.metric:.4f} ({one.rows:,} rows)" if one else _ABSENT for one in values)


def _features(sides: Sequence[VersionFacts]) -> Iterator[Row]:
    names = {name for side in sides for name in side.features}
    for name in sorted(names, key=lambda one: -max(side.features.get(one, 0.0) for side in sides)):
        yield _row(name, sides, partial(_importance, name))


def _row(
    name: str,
    sides: Sequence[VersionFacts],
    value: Callable[[VersionFacts], str | None],
    *,
    only_if_any: bool = False,
) -> Row:
    values = tuple(value(side) or _ABSENT for side in sides)
    return ("", values) if only_if_any and set(values) == {_ABSENT} else (name, values)


def _pairs(prefix: str, found: Sequence[Mapping[str, str]]) -> Iterator[Row]:
    for name in sorted({name for one in found for name in one}):
        yield f"{prefix}{name}", tuple(one.get(name, _ABSENT) for one in found)


def _each(sides: Sequence[VersionFacts], value: Callable[[VersionFacts], str | None]) -> str:
    return ", ".join(f"{value(side) or 'not known'} (version {side.version})" for side in sides)


def _alone(side: VersionFacts, sides: Sequence[VersionFacts]) -> str:
    others = {name for other in sides if other is not side for name in other.features}
    return ", ".join(sorted(set(side.features) - others)) if len(sides) > 1 else ""


def _holdout(side: VersionFacts) -> str | None:
    if side.holdout is None:
        return None
    first, last, rows = side.holdout
    return f"{first[:10]} to {last[:10]}, {rows:,} rows"


def _metric(name: str, side: VersionFacts) -> str | None:
    if (value := side.metrics.get(name)) is None:
        return None
    bounds = interval_of(side, name)
    return f"{value:.4f}" + (f" ({bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else "")


def _gain(side: VersionFacts) -> str | None:
    gain = side.gain
    if gain is None:
        return None
    return f"{gain.gain:+.4f} ({gain.lower:+.4f} to {gain.upper:+.4f}, {gain.confidence:.0%})"


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def number(value: float | None) -> str | None:
    """A number with four decimals; None for none."""
    return None if value is None else f"{value:.4f}"


def _importance(name: str, side: VersionFacts) -> str | None:
    value = side.features.get(name)
    return None if value is None else f"{value:.1%}"


def _kilobytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1000:,.0f}"
