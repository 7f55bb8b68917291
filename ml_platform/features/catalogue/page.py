"""The catalogue of features as one self-contained HTML page."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from ml_platform.features.catalogue.describe import ViewState
from ml_platform.spec.types import duration

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--dim:#777;--warn:#b45309}
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:0 auto;padding:24px 16px}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:0}p{margin:4px 0}
section{border:1px solid var(--line);border-radius:8px;padding:14px 16px;margin:16px 0}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:6px 16px;margin:10px 0}
dt{color:var(--dim);font-size:12px}dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}
th{text-align:left;color:var(--dim);font-weight:500}
th,td{padding:4px 10px 4px 0;border-top:1px solid var(--line);vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.problem{color:var(--warn)}.dim{color:var(--dim)}code{background:var(--soft);padding:1px 4px;border-radius:4px}
"""


def render_page(states: Sequence[ViewState], at: datetime | None = None) -> str:
    """Write the page of some views, made at an instant (now by default)."""
    made = f"{(at or datetime.now(UTC)):%Y-%m-%d %H:%M} UTC"
    contents = " · ".join(f'<a href="#{escape(state.name)}">{escape(state.name)}</a>' for state in states)
    sections = "".join(map(_section, states)) or "<p>There are no feature views yet.</p>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Feature views</title><style>{_STYLE}</style>"
        f'<h1>Feature views</h1><p class="dim">{len(states)} as of {made}</p><p>{contents}</p>{sections}</html>'
    )


def write_page(states: Sequence[ViewState], path: Path) -> Path:
    """Write the page to a file, in place of an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(render_page(states), encoding="utf-8")
    return temporary.replace(path)


def _section(state: ViewState) -> str:
    facts = {
        "entity": ", ".join(state.entity),
        "used by": ", ".join(state.models) or "no model",
        "rows": "not computed" if state.rows is None else f"{state.rows:,}",
        "newest row": _instant(state.newest),
        "newest online": _instant(state.newest_online),
        "time to live": duration(state.ttl) if state.ttl else "for good",
        "share of nulls": _share(state.null_share),
        "owner": state.owner,
        **({"tags": ", ".join(f"{name}: {value}" for name, value in state.tags.items())} if state.tags else {}),
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    problems = "".join(f'<p class="problem">{escape(problem)}</p>' for problem in state.problems)
    head = _row("th", ("feature", "type", "unit", "nulls", "last value", "meaning"))
    rows = "".join(
        "<tr>"
        f"<td><code>{escape(item.name)}</code></td><td>{escape(item.type)}</td><td>{escape(item.unit or '')}</td>"
        f'<td class="n">{_share(item.null_share)}</td><td class="n">{escape(_value(item.last))}</td>'
        f"<td>{escape(item.description)}</td></tr>"
        for item in state.features
    )
    return (
        f'<section id="{escape(state.name)}"><h2>{escape(state.name)} <code>{state.hash[:12]}</code></h2>'
        f"<p>{escape(state.description.strip())}</p><dl>{shown}</dl>{problems}"
        f'<div class="wide"><table>{head}{rows}</table></div></section>'
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _instant(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else "none"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "" if value is None else str(value)
