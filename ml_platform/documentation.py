"""`ml-platform docs`: the engine's documentation of the version that is installed, in the terminal."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.terminal import show, stop


def pages() -> dict[str, Path]:
    """Return the files of all pages by name, as `how-to/features/rolling`.

    They are part of the installed package, and beside it in a checkout.

    Examples
    --------
    >>> "index" in pages()
    True
    """
    package = Path(str(files("ml_platform")))
    folder = package / "docs" if (package / "docs").is_dir() else package.parent / "docs"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.md"))}


def matching(words: str, titles: dict[str, str]) -> list[str]:
    """Return the pages that words mean: the one of that name, else those whose name or title contains them.

    Parameters
    ----------
    words
        What to look for.
    titles
        Title of each page by its name.

    Examples
    --------
    >>> titles = {"how-to/serving/hooks": "Add routes and hooks", "how-to/alerts": "Alerts by webhooks"}
    >>> matching("hooks", titles), matching("alerts by", titles)
    (['how-to/serving/hooks'], ['how-to/alerts'])
    """
    words = words.removeprefix("docs/").removesuffix(".md").lower()
    exact = [name for name in titles if name == words or name.endswith(f"/{words}")]
    return exact or [name for name, title in titles.items() if words in name.lower() or words in title.lower()]


def docs(
    page: Annotated[
        str, typer.Argument(help="Name or title of a page, or a part of it; all are listed when left out.")
    ] = "",
) -> None:
    """List the pages of the documentation, or print one.

    Example: ml-platform docs rolling
    """
    files_by_name = pages()
    titles = {name: _title(path) for name, path in files_by_name.items()}
    names = matching(page, titles) if page else list(titles)
    if not names:
        stop(f"no page has '{page}' in its name or title; `ml-platform docs` lists them")
    if len(names) == 1:
        typer.echo_via_pager(files_by_name[names[0]].read_text(encoding="utf-8"))
        return
    width = max(map(len, names))
    show("\n".join(f"{name:{width}}  {titles[name]}" for name in names))


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
