"""A comparison of two versions as text for a terminal, and as one HTML page that needs nothing else."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_platform.promotion.compare import ComparedVersion, VersionComparison
from ml_platform.registry import card_pages
from ml_platform.registry.interval_figure import interval_svg

_HERE = Path(__file__).parent / "templates"
Row = tuple[str, str, str]
_DIGITS = 4


def comparison_text(compared: VersionComparison) -> list[str]:
    """Lines of a terminal: what differs is marked by `*`."""
    head = ("", f"version {compared.first.version}", f"version {compared.second.version}")
    parts = [("", facts_of(compared)), ("metrics", metrics_of(compared)), ("groups", groups_of(compared))]
    rows = [head, *(row for _, part in parts for row in part)]
    widths = [min(60, max(len(row[column]) for row in rows)) for column in range(2)]
    lines = []
    for title, part in parts:
        if not part:
            continue
        lines += ["", title] if title else []
        for name, one, other in [head, *part]:
            mark = "*" if (one != other and name) else " "
            lines.append(f"{mark} {name:<{widths[0]}}  {one:<{widths[1]}}  {other}".rstrip())
    return [f"{compared.model}:", *lines, "", verdict_of(compared), *filter(None, [_again(compared)])]


def comparison_html(compared: VersionComparison) -> str:
    """Write the page."""
    pages = card_pages.page_environment(_HERE, card_pages.TEMPLATES)
    return pages.get_template("comparison.html").render(
        compared=compared,
        verdict=verdict_of(compared),
        again=_again(compared),
        intervals=interval_svg(compared.same_rows.gain, compared.same_rows.within_blocks) if compared.same_rows else "",
        parts=[
            ("How they were made", facts_of(compared)),
            ("Metrics", metrics_of(compared)),
            ("Groups", groups_of(compared)),
            ("Importance of features", features_of(compared)),
        ],
    )


def facts_of(compared: VersionComparison) -> list[Row]:
    """What each version is and was made of; parameters and tables one by one."""
    first, second = compared.first, compared.second

    def row(name: str, of: str) -> Row:
        return name, str(getattr(first, of)), str(getattr(second, of))

    return [
        row("family", "family"),
        *_pairs("", _texts(first.params), _texts(second.params)),
        ("threshold", _number(first.threshold), _number(second.threshold)),
        row("training set", "training_set"),
        *_pairs("made of ", _texts(first.tables), _texts(second.tables)),
        row("learned from", "trained_from"),
        row("learned until", "trained_until"),
        ("rows", f"{first.training_rows:,}", f"{second.training_rows:,}"),
        ("features", str(len(first.features)), str(len(second.features))),
        *_only(first, second),
        row("code", "code_version"),
        ("one row, ms", f"{first.latency_ms:.3f}", f"{second.latency_ms:.3f}"),
        ("graph, kB", f"{first.graph_bytes / 1000:,.0f}", f"{second.graph_bytes / 1000:,.0f}"),
        ("bundle", first.digest[:12], second.digest[:12]),
    ]


def metrics_of(compared: VersionComparison) -> list[Row]:
    """Metrics on the same rows, the gate's first; without such rows those of each one's own holdout."""
    same = compared.same_rows
    one, other = (
        (same.first, same.second) if same else (compared.first.holdout_metrics, compared.second.holdout_metrics)
    )
    names = sorted({*one, *other}, key=lambda name: (name != compared.metric, name))
    return [(name, _number(one.get(name)), _number(other.get(name))) for name in names]


def groups_of(compared: VersionComparison) -> list[Row]:
    """The gate's metric on each guarded group."""
    groups = compared.same_rows.groups if compared.same_rows else ()
    return [
        (f"{one.column} = {one.value} ({one.rows:,} rows)", _number(one.reference), _number(one.challenger))
        for one in groups
    ]


def features_of(compared: VersionComparison) -> list[Row]:
    """Importance of every feature of either version."""
    one, other = compared.first.features, compared.second.features
    names = sorted({*one, *other}, key=lambda name: -max(one.get(name, 0), other.get(name, 0)))
    return [(name, _share(one.get(name)), _share(other.get(name))) for name in names]


def verdict_of(compared: VersionComparison) -> str:
    """Say which is better, by how much, and how sure that is."""
    same, metric = compared.same_rows, compared.metric
    if same is None:
        return (
            f"Not on the same rows: {compared.why_none}. Each has the metrics of its own holdout, which do not compare."
        )
    part = same.rows
    days = f"{part.first:%Y-%m-%d} to {part.last:%Y-%m-%d}"
    rows = f"{part.rows:,} rows that neither had learned from when the gate judged it ({days})"
    if same.gain is None:
        return f"On {rows}: too few blocks (`promotion.block`) for an interval."
    gain = same.gain
    sure = "both are alike as far as these rows can tell"
    if gain.lower > 0:
        sure = f"version {compared.second.version} is better"
    elif gain.upper < 0:
        sure = f"version {compared.first.version} is better"
    return (
        f"On {rows}: gain of version {compared.second.version} in {metric} {gain.gain:+.4f}, {gain.confidence:.0%} "
        f"interval {gain.lower:+.4f} to {gain.upper:+.4f} over {gain.blocks} blocks ({gain.block}): {sure}."
    )


def _again(compared: VersionComparison) -> str:
    """The other interval of the gain, and what it sees."""
    within = compared.same_rows.within_blocks if compared.same_rows else None
    if within is None:
        return ""
    return (
        f"If the same blocks came again with other rows: {within.lower:+.4f} to {within.upper:+.4f}, which does not "
        "see how blocks differ, and decides nothing."
    )


def _pairs(prefix: str, one: dict[str, str], other: dict[str, str]) -> Iterator[Row]:
    for name in sorted({*one, *other}):
        yield f"{prefix}{name}", one.get(name, "–"), other.get(name, "–")


def _only(first: ComparedVersion, second: ComparedVersion) -> Iterator[Row]:
    """Features that one of them has alone."""
    one, other = (sorted(set(a.features) - set(b.features)) for a, b in ((first, second), (second, first)))
    if one or other:
        yield "features of it alone", ", ".join(one) or "none", ", ".join(other) or "none"


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.{_DIGITS}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
