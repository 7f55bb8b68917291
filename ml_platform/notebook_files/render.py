"""A notebook with its outputs as one HTML page that needs nothing else: no script, no font, no network."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.distribution import extra
from ml_platform.notebook_files.text import EXTRA

if TYPE_CHECKING:
    from nbformat import NotebookNode

_STYLE = Path(__file__).parent / "page.css"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<p class="dim">{note}</p>
{body}
</main>
</body>
</html>
"""


def to_html(notebook: "NotebookNode", title: str, *, note: str = "", code: bool = True) -> str:
    """Render a notebook (raises ExtraMissing).

    The page's content policy lets no script run and nothing be loaded, whatever the outputs hold.

    Parameters
    ----------
    notebook
        With its outputs.
    title, note
        Title of the page, and a line above it: when it was made, of what.
    code
        Whether the cells' code is shown beside what they gave.
    """
    with extra(EXTRA):
        from nbconvert.exporters import HTMLExporter
        from pygments.formatters import HtmlFormatter
    exporter = HTMLExporter(
        template_name="basic",
        embed_images=True,
        exclude_input=not code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    colours = HtmlFormatter(style="default").get_style_defs(".highlight") if code else ""
    style = f"{_STYLE.read_text(encoding='utf-8')}\n{colours}"
    return _PAGE.format(title=escape(title), note=escape(note), style=style, body=body)
