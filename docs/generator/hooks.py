"""Hooks of MkDocs, named in `mkdocs.yml`: they add the pages that are made from the code, and those outside `docs/`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from docs.generator.commands_page import commands_page
from docs.generator.dagster_page import dagster_page
from docs.generator.http_page import http_page
from docs.generator.metrics_page import metrics_page
from docs.generator.python_pages import PUBLIC, path_of, python_index, python_pages
from docs.generator.repository_files import DOCS, ROOT, linked_files, with_site_links
from docs.generator.settings_page import settings_page
from docs.generator.yaml_keys import (
    composed_endpoint_keys,
    cost_keys,
    feature_service_keys,
    feature_view_keys,
    model_keys,
    notebook_keys,
    source_keys,
    term_keys,
)

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PYTHON_INDEX = "reference/python/index.md"
GENERATED: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/model-keys.md": model_keys,
    "reference/source-keys.md": source_keys,
    "reference/composed-endpoint-keys.md": composed_endpoint_keys,
    "reference/feature-service-keys.md": feature_service_keys,
    "reference/notebook-keys.md": notebook_keys,
    "reference/term-keys.md": term_keys,
    "reference/cost-keys.md": cost_keys,
    "reference/feature-view-keys.md": feature_view_keys,
    "reference/http-api.md": http_page,
    "reference/metrics.md": metrics_page,
    "reference/dagster.md": dagster_page,
    PYTHON_INDEX: python_index,
}
_outside: set[str] = set()


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """List the pages of the Python API in the navigation, below their index."""
    for section in config.nav or ():
        for item in section.get("Reference", ()):
            if isinstance(item, dict) and item.get("Python API") == [PYTHON_INDEX]:
                item["Python API"] += [
                    {group: [{name.rsplit(".", 1)[-1]: path_of(name)} for name in names]}
                    for group, names in PUBLIC.items()
                ]
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages, and the files of the repository that pages link to."""
    generated = {path: make() for path, make in GENERATED.items()} | python_pages()
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
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
