"""`ml-platform models page`: a model for people who do not code, as HTML or PDF."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, stop


class PageFormat(StrEnum):
    """How the page is written."""

    HTML = "html"
    PDF = "pdf"


def page(
    model: Annotated[str, typer.Argument(help="Name of the model, as in its defs.yaml.")],
    format: Annotated[
        PageFormat | None, typer.Option(help="html or pdf; by the ending of --output when left out, else html.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; <model>.html or .pdf when left out.")] = None,
) -> None:
    """Write a page for people who do not code: what a model predicts, how good it is, its limits, its week, who to ask.

    Example: ml-platform models page flight_delay --format pdf
    """
    from ml_platform.catalogue.model_page.collect import declared_page
    from ml_platform.catalogue.model_page.render import NoPdf, page_html, page_pdf

    if format is None:
        format = PageFormat.PDF if output is not None and output.suffix.lower() == ".pdf" else PageFormat.HTML
    try:
        made = declared_page(Settings(), model)
        content = page_pdf(made) if format is PageFormat.PDF else page_html(made).encode()
        path = output or Path(f"{model}.{format.value}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (LookupError, ValueError, NoPdf, OSError) as error:
        stop(str(error))
    say(f"{path} has the page of {model}")
    for problem in made.problems:
        say(f"warning: {problem}", err=True)
