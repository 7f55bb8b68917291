"""A comparison of versions as text and as one HTML page, and a chart of them as a page; they need nothing else."""

from pathlib import Path

from ml_platform.promotion.compare import VersionComparison
from ml_platform.registry import card_pages
from ml_platform.registry.comparisons import gain_figures, same_rows_parts, verdicts
from ml_platform.registry.recorded_comparison import Part, fact_rows
from ml_platform.registry.version_chart import VersionChart

_HERE = Path(__file__).parent / "templates"
_WIDEST = 60  # characters of a column


def comparison_text(compared: VersionComparison) -> list[str]:
    """Lines of a terminal: what differs is marked by `*`."""
    parts, head = parts_of(compared), ("", tuple(f"version {side.version}" for side in compared.sides))
    rows = [head, *(row for _, part in parts for row in part)]
    first = min(_WIDEST, max(len(name) for name, _ in rows))
    widths = [min(_WIDEST, max(len(values[place]) for _, values in rows)) for place in range(len(head[1]))]
    lines = []
    for title, part in parts:
        lines += ["", title]
        for name, values in [head, *part]:
            mark = "*" if name and len(set(values)) > 1 else " "
            cells = "  ".join(f"{value:<{width}}" for value, width in zip(values, widths, strict=True))
            lines.append(f"{mark} {name:<{first}}  {cells}".rstrip())
    return [f"{compared.model}:", *lines, "", *compared.warnings, *verdicts_of(compared)]


def comparison_html(compared: VersionComparison) -> str:
    """Write the page."""
    pages = card_pages.page_environment(_HERE, card_pages.TEMPLATES)
    return pages.get_template("comparison.html").render(
        compared=compared,
        verdicts=verdicts_of(compared),
        figures=gain_figures(compared.same_rows) if compared.same_rows else [],
        names=", ".join(str(side.version) for side in compared.sides),
        parts=parts_of(compared),
    )


def chart_html(chart: VersionChart) -> str:
    """Write the page of one metric over all versions."""
    return card_pages.page_environment(_HERE, card_pages.TEMPLATES).get_template("chart.html").render(chart=chart)


def parts_of(compared: VersionComparison) -> list[Part]:
    """Titles, and names and values below each: how they were made, then the same rows, then each one's own."""
    made, *own = fact_rows(compared.sides)
    return [made, *(same_rows_parts(compared.same_rows) if compared.same_rows else []), *own]


def verdicts_of(compared: VersionComparison) -> list[str]:
    """Say which is better, by how much, and how sure that is; or why that cannot be said."""
    if compared.same_rows is not None:
        return verdicts(compared.same_rows)
    return [
        f"Not on the same rows: {compared.why_none}. Each has the metrics of its own holdout, which do not compare."
    ]
