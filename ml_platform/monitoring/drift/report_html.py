"""The HTML report of one comparison: the verdict and a table above Evidently's plots, the newest few kept per model.

The page is written without plots where they cannot be drawn, and says so.
"""

import logging
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ml_platform.monitoring.drift.column_plots import draw_columns
from ml_platform.monitoring.drift.comparison import ColumnDrift

if TYPE_CHECKING:
    from ml_platform.monitoring.drift.report import DriftReport

KEPT_REPORTS = 30  # per model; each has 4 to 7 MB, most of it the plotting library, so that it opens without internet

_STYLE = """
<style>
 .verdict{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:24px auto;padding:0 16px;color:#222}
 .verdict table{border-collapse:collapse;width:100%;font-size:13px}
 .verdict td,.verdict th{padding:4px 8px;border-bottom:1px solid #ddd;text-align:left}
 .verdict td.n{text-align:right;font-variant-numeric:tabular-nums}
 .verdict tr.drifted{background:#fde8e6}
</style>"""


_PLAIN = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Drift</title></head><body></body></html>'
_log = logging.getLogger(__name__)


def write_html(report: "DriftReport", reference: pl.DataFrame, current: pl.DataFrame) -> Path:
    """Write the report to `report.html`, replacing one of the same window, and drop the oldest above `KEPT_REPORTS`."""
    if report.html is None:
        raise ValueError(f"The comparison of {report.model} names no HTML file; nothing was written.")
    page, undrawn = _plots(report, reference, current)
    head, body, rest = page.partition("<body>")
    folder = report.html.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = report.html.with_suffix(".tmp")
    temporary.write_text(f"{head}{body}{_summary(report, undrawn)}{rest}", encoding="utf-8")
    temporary.replace(report.html)
    for old in sorted(folder.glob("*.html"))[:-KEPT_REPORTS]:
        if old != report.html:
            old.unlink(missing_ok=True)
    return report.html


def _plots(report: "DriftReport", reference: pl.DataFrame, current: pl.DataFrame) -> tuple[str, dict[str, str]]:
    """Evidently's page, or a plain one; and column → why it is not drawn."""
    columns = report.compared
    try:
        snapshot, undrawn = draw_columns(reference, current, columns)
        page = snapshot.get_html_str(as_iframe=False) if snapshot else _PLAIN
        if "<body>" not in page:
            raise ValueError("Evidently's page has no <body> to put the verdict into")
    except Exception as error:  # noqa: BLE001 - a plot never stops a report
        _log.exception("the plots of %s could not be drawn; its report is written without them", report.model)
        return _PLAIN, {"every column": f"{type(error).__name__}: {error}"}
    return page, undrawn


def _summary(report: "DriftReport", undrawn: Mapping[str, str]) -> str:
    notes = [*report.reasons, *(f"not drawn: {name} ({why})" for name, why in undrawn.items())]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in notes)
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "column",
            "importance",
            "method",
            "p",
            "distance",
            "threshold",
            "median moved (sd)",
            "missing",
            "in training",
            "drifted",
        )
    )
    return (
        f'{_STYLE}<div class="verdict"><h1>{escape(report.model)} version {report.version}: {report.verdict}</h1>'
        f"<p>{report.rows:,} rows scored from {report.window_from:%Y-%m-%d %H:%M} to "
        f"{report.window_until:%Y-%m-%d %H:%M} UTC ({report.compared_rows:,} compared) against "
        f"{report.reference_rows:,} training rows ({report.compared_reference_rows:,} compared).</p><ul>{reasons}</ul>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, report.compared))}</tbody></table>"
        "<p>Below, numbers outside the middle 99 % of both sides are drawn at its edges.</p></div>"
    )


def _row(column: ColumnDrift) -> str:
    def number(value: float | None, form: str) -> str:
        return f'<td class="n">{"–" if value is None else format(value, form)}</td>'

    cells = [
        f"<td>{escape(column.column)}</td>",
        number(column.importance, ".1%"),
        f"<td>{escape(column.method if column.judged else f'not judged: {column.not_judged}')}</td>",
        number(column.p_value, ".1e"),
        number(column.distance, ".3f"),
        number(column.distance_threshold, ".3f"),
        number(column.shift, "+.2f"),
        number(column.missing_share, ".1%"),
        number(column.reference_missing_share, ".1%"),
        f"<td>{'yes' if column.drifted else 'no'}</td>",
    ]
    return f'<tr class="{"drifted" if column.drifted else ""}">{"".join(cells)}</tr>'
