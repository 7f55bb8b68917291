"""Hooks of MkDocs, named in `mkdocs.yml`."""

from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from docs.generator.repository_files import DOCS, ROOT, linked_files, with_site_links

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_outside: set[str] = set()


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the files of the repository that pages link to."""
    pages = {f"{DOCS}/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    _outside.clear()
    _outside.update(linked_files(pages))
    for path in sorted(_outside):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:  # noqa: ARG001
    """Let links between `docs/` and the rest of the repository lead to the pages of the site."""
    path = page.file.src_uri
    return with_site_links(markdown, path if path in _outside else f"{DOCS}/{path}", _outside)
