"""What the page of costs shows: the days as a chart, then models, teams, jobs and callers, and the budgets."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from ml_platform.cost.summary import DAYS, CostSummary, read_summary
from ml_platform.serving.console.charts import bars

SECTIONS = {
    "model": "Models",
    "team": "Teams",
    "job": "Jobs",
    "key": "Callers of serving",
    "asset": "Assets",
}
SHOWN = 10


def cost_page(folder: Path) -> dict[str, Any]:
    """Return the facts of the page.

    Examples
    --------
    >>> import tempfile
    >>> cost_page(Path(tempfile.mkdtemp()))["summary"] is None
    True
    """
    try:
        summary, trouble = read_summary(folder), None
    except ValueError as error:
        summary, trouble = None, str(error)
    facts: dict[str, Any] = {
        "summary": summary,
        "trouble": trouble,
        "sections": {},
        "chart": None,
        "days": DAYS,
        "total": 0.0,
    }
    if summary is None:
        return facts
    sections = {
        title: [row for row in summary.by.get(name, ()) if name != "key" or row.requests][:SHOWN]
        for name, title in SECTIONS.items()
    }
    by_day = _days(summary)
    total = sum(by_day)
    dearest = max(by_day, default=0.0)
    label = f"{total:.4f} {summary.currency} in {DAYS} days, at most {dearest:.4f} a day"
    return facts | {"sections": sections, "chart": bars([("answered", by_day)], label), "label": label}


def _days(summary: CostSummary) -> list[float]:
    """The price of each day, in order, 0 for those without a row."""
    prices = {row.name: row.price for row in summary.by.get("day", ())}
    begin = summary.since.date()
    return [prices.get((begin + timedelta(days=day)).isoformat(), 0.0) for day in range(DAYS + 1)]
