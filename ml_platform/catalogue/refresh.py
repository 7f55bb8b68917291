"""Collects catalogue and model pages, and keeps both where the console finds them."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ml_platform.catalogue.collect.project import collect
from ml_platform.catalogue.document import Catalogue, Check, store_catalogue
from ml_platform.catalogue.model_page.collect import all_pages
from ml_platform.catalogue.model_page.document import page_path, store_page
from ml_platform.settings import Settings


def refresh_catalogue(settings: Settings, *, checks: Mapping[str, Sequence[Check]] | None = None) -> Catalogue:
    """Collect the catalogue of the current project and the page of each model, in place of what was kept.

    Parameters
    ----------
    settings
        Where lake and stores are, and the folder of all state, in which both are kept.
    checks
        See `collect`.
    """
    problems: list[str] = []
    written = set()
    for page in all_pages(settings, problems):
        store_page(settings.home, page)
        written.add(page_path(settings.home, page.model))
    for path in (settings.home / "catalogue" / "models").glob("*.json"):
        if path not in written and not problems:  # of a model that is gone, not of one that could not be read
            path.unlink(missing_ok=True)
    made = collect(settings, checks=checks)
    made = replace(made, problems=tuple(dict.fromkeys((*made.problems, *problems))))
    store_catalogue(settings.home, made)
    return made
