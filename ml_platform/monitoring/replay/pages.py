"""A replay as text for a terminal, and as one HTML page that needs nothing else."""

from collections.abc import Iterator
from pathlib import Path

from ml_platform.monitoring.replay.documents import ReplayReport
from ml_platform.registry import card_pages

_TEMPLATES = Path(__file__).parent / "templates"
Row = tuple[str, str]


def replay_text(report: ReplayReport) -> Iterator[str]:
    """Lines of a terminal."""
    yield f"{report.model}: {report.challenger} beside version {report.champion_version}: {report.verdict}"
    for reason in report.reasons:
        yield f"  {reason}"
    for title, sentences in (("missing", report.missing), ("note", report.notes)):
        for sentence in sentences:
            yield f"  {title}: {sentence}"
    for title, rows in parts_of(report):
        if rows:
            yield ""
            yield title
            width = min(48, max(len(name) for name, _ in rows))
            for name, value in rows:
                yield f"  {name:<{width}}  {value}"


def replay_html(report: ReplayReport) -> str:
    """Write the page."""
    pages = card_pages.page_environment(_TEMPLATES, card_pages.TEMPLATES)
    return pages.get_template("replay.html").render(report=report, parts=parts_of(report))


def parts_of(report: ReplayReport) -> list[tuple[str, list[Row]]]:
    """The figures, by subject."""
    return [
        ("Requests", _requests(report)),
        ("Answers", _answers(report)),
        ("Refused by the challenger's contract", _counts(report.refusals)),
        ("Answered with a flag", _counts(report.flagged)),
        ("Left out", _counts(report.incomparable)),
    ]


def _requests(report: ReplayReport) -> list[Row]:
    if report.since is None or report.until is None:
        return []
    how = "as a shadow, when they came" if report.source == "shadow" else "now, over what was logged"
    return [
        ("answered between", f"{report.since:%Y-%m-%d %H:%M} and {report.until:%Y-%m-%d %H:%M} UTC"),
        ("the challenger answered", how),
        ("logged rows", f"{report.logged:,}"),
        ("that it answers", f"{report.answered:,}"),
        ("that it refuses", f"{report.refused:,}"),
        ("without a finite score of one of both", f"{report.unscored:,}"),
        ("with a known label", f"{report.labelled:,}"),
    ]


def _answers(report: ReplayReport) -> list[Row]:
    rows: list[Row] = []
    if (found := report.difference) is not None:
        decisions = {
            "decisions that change": found.changed,
            "that turn true": found.to_true,
            "that turn false": found.to_false,
        }
        rows += [(name, f"{share:.2%}") for name, share in decisions.items() if share is not None]
        rows += [
            ("mean difference of the scores", f"{found.mean:+.4g}"),
            ("mean distance", f"{found.mean_absolute:.4g}"),
            ("largest distance", f"{found.largest:.4g}"),
            *((f"difference, {name}", f"{value:+.4g}") for name, value in found.quantiles.items()),
        ]
        rows += [] if found.correlation is None else [("correlation of the scores", f"{found.correlation:.4f}")]
    for name, value in (("the challenger", report.latency_ms), ("the champion", report.champion_latency_ms)):
        rows += [] if value is None else [(f"one row takes {name}", f"{value:.3f} ms")]
    return rows


def _counts(counts: dict[str, int]) -> list[Row]:
    return [(name, f"{count:,}") for name, count in counts.items()]
