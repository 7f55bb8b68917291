"""The catalogue as a folder of plain pages, which open from a disk and load nothing from elsewhere."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from ml_platform import catalogue as room
from ml_platform.catalogue.document import Catalogue, Entry, View
from ml_platform.catalogue.pages import FILTERS, STATIC, TEMPLATES, Sample, entry_page, index_of, search_page
from ml_platform.catalogue.search import search
from ml_platform.registry.card_pages import page_environment

# The styles of the console, so that both look alike; read as a file, since nothing here may import serving.
CONSOLE_STYLES = Path(room.__file__).parents[1] / "serving" / "console" / "static" / "console.css"
MARK = ".ml-platform-catalogue"  # in a folder that an export made, and that the next one may replace
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9._@-]{0,79}")


class NotAnExport(ValueError):
    """The folder is there and holds something else."""


def file_name(name: str) -> str:
    """File of an entry's page, different for different names on every file system.

    Examples
    --------
    >>> file_name("raw.flights"), file_name("version:churn@v3")
    ('raw.flights.html', 'version--churn@v3.html')
    >>> file_name("raw.A"), file_name("raw.a")
    ('raw.a-6f1238e2.html', 'raw.a.html')
    """
    plain = name.replace(":", "--")
    if _PLAIN.fullmatch(plain) and "--" not in name:
        return f"{plain}.html"
    safe = re.sub(r"[^a-z0-9._@-]+", "-", plain.lower())[:80].strip(".-@") or "entry"
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.html"


def export(
    catalogue: Catalogue,
    folder: Path,
    *,
    project: str,
    may_browse: Callable[[Entry], bool] = lambda _: True,
    sample: Callable[[Entry], Sample | None] = lambda _: None,
) -> int:
    """Write the pages of all entries that may be browsed; a kill at any moment leaves the former export, or the new.

    Parameters
    ----------
    catalogue
        What is exported.
    folder
        Where; an earlier export there is replaced.
    project
        Name of the project, at the top of each page.
    may_browse
        Whether an entry may be in it: whoever has the files sees all of them.
    sample
        Rows of an entry to show; none by default.

    Returns
    -------
    int
        Number of entries.

    Raises
    ------
    NotAnExport
        When the folder holds files that no export has written.
    """
    if folder.exists() and not folder.is_dir():
        raise NotAnExport(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise NotAnExport(f"{folder} holds files that no export has written; give a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        count = _write(catalogue, made, project, may_browse, sample)
        made.chmod(0o755)
        if folder.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.rename(old / "old")
            made.rename(folder)
            shutil.rmtree(old)
        else:
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return count


def _write(
    catalogue: Catalogue,
    folder: Path,
    project: str,
    may_browse: Callable[[Entry], bool],
    sample: Callable[[Entry], Sample | None],
) -> int:
    view = View(catalogue, may_browse)
    (folder / "assets").mkdir()
    (folder / "entries").mkdir()
    for source in (CONSOLE_STYLES, STATIC / "catalogue.css", STATIC / "catalogue.js"):
        shutil.copyfile(source, folder / "assets" / source.name)
    index = json.dumps(index_of(view, lambda name: f"entries/{quote(file_name(name))}"), ensure_ascii=False)
    (folder / "assets" / "index.js").write_text(f"window.CATALOGUE = {index};\n", encoding="utf-8")
    environment = page_environment(TEMPLATES)
    environment.filters |= FILTERS
    common = {"layout": "export_base.html", "project": project, "trouble": "", "page_link": None, "sample_link": None}
    home = search_page(view, {}, link=lambda name: f"entries/{quote(file_name(name))}", address="index.html")
    home |= {"hits": search(view), "before": None, "after": None}
    scripts = Markup('<script src="assets/index.js"></script><script src="assets/catalogue.js"></script>')
    page = environment.get_template("catalogue.html").render(
        **home,
        **common,
        root="",
        action="index.html",
        catalogue_css="assets/catalogue.css",
        script=scripts,
        kept_by="Written by ml-platform catalogue export.",
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    template = environment.get_template("entry.html")
    for entry in view.entries.values():
        page = template.render(
            **entry_page(view, entry, link=lambda name: quote(file_name(name)), sample=sample(entry)),
            **common,
            root="../",
            action="../index.html",
            catalogue_css="../assets/catalogue.css",
        )
        (folder / "entries" / file_name(entry.name)).write_text(page, encoding="utf-8")
    (folder / MARK).write_text(f"{catalogue.made_at.isoformat()}\n", encoding="utf-8")
    return len(view.entries)
