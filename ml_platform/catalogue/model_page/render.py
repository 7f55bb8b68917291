"""The page of a model as one HTML file without scripts, and as a PDF for a meeting."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ml_platform.catalogue.model_page.document import ModelPage
from ml_platform.catalogue.pages import FILTERS, TEMPLATES
from ml_platform.registry.card_pages import page_environment

_ACCENT, _DIM, _LINE = "#24618f", "#5a6672", "#dfe3e8"


class NoPdf(RuntimeError):
    """What writes a PDF is not installed."""


def page_html(page: ModelPage, links: Mapping[str, str] | None = None) -> str:
    """Write the page as HTML that needs nothing else; `links` are title → address of other pages."""
    environment = page_environment(TEMPLATES)
    environment.filters |= FILTERS
    return environment.get_template("model_page.html").render(page=page, links=links or {})


def page_pdf(page: ModelPage) -> bytes:  # noqa: PLR0915 - one section of the page after the other
    """Write the page as a PDF of A4 pages, with ReportLab: no browser and no system library.

    Raises
    ------
    NoPdf
        Where ReportLab is not installed.
    """
    try:
        from reportlab.lib.colors import HexColor
        from reportlab.lib.pagesizes import A4
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.lib.units import mm
        from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
    except ModuleNotFoundError as error:
        raise NoPdf(
            "a PDF needs the package reportlab, which the extra `platform` brings; --format html needs nothing"
        ) from error
    regular, bold = _fonts()
    body = ParagraphStyle("body", fontName=regular, fontSize=9.5, leading=13.5, splitLongWords=1)
    dim = ParagraphStyle("dim", parent=body, fontSize=8, leading=11, textColor=HexColor(_DIM))
    title = ParagraphStyle("title", parent=body, fontName=bold, fontSize=20, leading=25, spaceAfter=2 * mm)
    heading = ParagraphStyle(
        "heading",
        parent=body,
        fontName=bold,
        fontSize=12,
        leading=16,
        spaceBefore=5 * mm,
        spaceAfter=1.5 * mm,
        textColor=HexColor(_ACCENT),
    )
    bullet = ParagraphStyle("bullet", parent=body, leftIndent=4 * mm, bulletIndent=0.5 * mm, spaceAfter=0.8 * mm)

    def said(text: str, style: ParagraphStyle = body) -> Paragraph:
        return Paragraph(escape(_printable(text)).replace("\n", "<br/>"), style)

    def listed(texts: tuple[str, ...]) -> list[Flowable]:
        return [Paragraph(escape(_printable(text)), bullet, bulletText="•") for text in texts]

    def table(rows: list[list[str]], widths: list[float], *, head: bool) -> Table:
        cells = [[said(cell, dim if head and not number else body) for cell in row] for number, row in enumerate(rows)]
        made = Table(cells, colWidths=[0.97 * width * mm for width in widths], repeatRows=1 if head else 0)
        made.hAlign = "LEFT"
        made.setStyle(
            TableStyle(
                [
                    ("LINEABOVE", (0, 1 if head else 0), (-1, -1), 0.4, HexColor(_LINE)),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("TOPPADDING", (0, 0), (-1, -1), 2),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
                ]
            )
        )
        return made

    story: list[Flowable] = [
        said(page.title[:1].upper() + page.title[1:], title),
        said(page.description),
        Spacer(1, 2 * mm),
        said(page.state, dim),
    ]

    def section(name: str, *parts: Flowable) -> None:
        if parts:
            story.append(KeepTogether([said(name, heading), *parts[:2]]))
            story.extend(parts[2:])

    section("What it predicts", *listed(page.predicts))
    section("How good it is", *listed(page.quality), *([said(page.measured, dim)] if page.measured else []))
    weak = [["Group", "How well", "Rows"], *([one.name, one.says, f"{one.rows:,}"] for one in page.groups)]
    section(
        "Where it is weaker", said(page.groups_say), *([table(weak, [55, 90, 25], head=True)] if page.groups else [])
    )
    looked = [[text, f"{100 * share:.0f} %"] for text, share in page.looks_at]
    section("What it looks at most", *([table(looked, [145, 25], head=False)] if looked else []))
    section("Limits, and when not to use it", *listed(page.limits))
    section("In the owner's words", *[said(part) for part in page.words.split("\n\n") if part.strip()])
    section("The last seven days", table([list(one) for one in page.week], [35, 135], head=False))
    changes = [
        ["When", "What", "By", "Why"],
        *([FILTERS["when"](one.at), one.what, one.by, one.why] for one in page.changes),
    ]
    if page.changes:
        section("What changed", table(changes, [32, 42, 32, 64], head=True))
    section("Who to ask, and the next review", said(page.owner), said(page.review))
    if page.problems:
        section("What could not be read", *listed(page.problems))
    made = f"{page.model} · as of {FILTERS['when'](page.made_at)}"

    def foot(canvas: Any, document: Any) -> None:
        canvas.setFont(regular, 7.5)
        canvas.setFillColor(HexColor(_DIM))
        canvas.drawString(22 * mm, 10 * mm, _printable(made))
        canvas.drawRightString(A4[0] - 22 * mm, 10 * mm, str(document.page))

    out = BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=20 * mm, rightMargin=20 * mm, topMargin=18 * mm, bottomMargin=18 * mm,
        title=page.title, author=page.owner, subject=page.description, lang="en", invariant=1,
    )  # fmt: skip
    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _fonts() -> tuple[str, str]:
    """Names of a regular and a bold font: DejaVu of matplotlib's files, which has Greek, Cyrillic and signs too."""
    from importlib.util import find_spec

    from reportlab.pdfbase.pdfmetrics import getRegisteredFontNames, registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    found = find_spec("matplotlib")  # found, not imported: that takes a second
    if found is None or found.origin is None:
        return "Helvetica", "Helvetica-Bold"
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    names = ("DejaVuSans", "DejaVuSans-Bold")
    if not all((folder / f"{name}.ttf").is_file() for name in names):
        return "Helvetica", "Helvetica-Bold"
    for name in names:
        if name not in getRegisteredFontNames():
            registerFont(TTFont(name, folder / f"{name}.ttf"))
    return names


def _printable(text: str) -> str:
    """A text without what no font shows."""
    return "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in text)
