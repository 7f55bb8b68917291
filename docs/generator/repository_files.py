"""Files of the repository outside `docs/` as parts of the site, so that links to them work as in the repository.

A page that is linked, such as `benchmarks/RESULTS.md`, becomes a page of the site at its own path; any other file, such
as `deploy/ray_serve.yaml`, is copied.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = "docs"
_LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
_FENCE = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)


def repository_path(page: str, target: str) -> str:
    """Return the path in the repository that a link means.

    Parameters
    ----------
    page
        Path of the page that holds the link, in the repository.
    target
        The link without its anchor.

    Examples
    --------
    >>> repository_path("docs/how-to/index.md", "../../benchmarks/RESULTS.md")
    'benchmarks/RESULTS.md'
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def site_path(path: str) -> str:
    """Return the path at which a file of the repository is in the site's sources."""
    return path.removeprefix(f"{DOCS}/")


def relative_links(markdown: str) -> Iterator[str]:
    """Yield the targets of a page's relative links, without their anchors; code blocks hold none."""
    for match in _LINK.finditer(_FENCE.sub("", markdown)):
        if "://" not in match[2] and not match[2].startswith(("mailto:", "/")):
            yield match[2]


def linked_files(pages: dict[str, str]) -> set[str]:
    """Return the files outside `docs/` that pages link to, directly or through one another.

    Parameters
    ----------
    pages
        Markdown of each page by its path in the repository.
    """
    outside: set[str] = set()
    waiting = dict(pages)
    while waiting:
        page, markdown = waiting.popitem()
        for target in relative_links(markdown):
            path = repository_path(page, target)
            if path.startswith(f"{DOCS}/") or path in outside or not (ROOT / path).is_file():
                continue  # a link to nothing is reported by MkDocs
            outside.add(path)
            if path.endswith(".md"):
                waiting[path] = (ROOT / path).read_text(encoding="utf-8")
    return outside


def with_site_links(markdown: str, page: str, outside: set[str]) -> str:
    """Return a page with its links to or from files outside `docs/` as they are within the site.

    Parameters
    ----------
    markdown
        The page's text.
    page
        Its path in the repository.
    outside
        The files outside `docs/` that are parts of the site.
    """

    def replace(match: re.Match[str]) -> str:
        path = repository_path(page, match[2])
        inside = page.startswith(f"{DOCS}/") and path.startswith(f"{DOCS}/")
        if inside or "://" in match[2] or not (path in outside or (ROOT / path).is_file()):
            return match[0]
        here = posixpath.dirname(site_path(page)) or "."
        return f"{match[1]}{posixpath.relpath(site_path(path), here)}{match[3]}"

    return _LINK.sub(replace, markdown)
