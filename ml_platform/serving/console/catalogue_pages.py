"""The catalogue in the console: the document that `governance/catalogue` wrote, as the reader may see it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.catalogue.document import (
    Catalogue,
    CatalogueUnreadable,
    Entry,
    View,
    catalogue_path,
    read_catalogue,
)
from ml_platform.catalogue.model_page.document import read_page
from ml_platform.catalogue.model_page.render import page_html
from ml_platform.catalogue.pages import Sample, console_link, entry_page, lineage_link, search_page
from ml_platform.catalogue.reader import browses, objects_of
from ml_platform.governance.keys import ALL_MODELS
from ml_platform.governance.recorded_reads import ReadAnswer, ReadQuery
from ml_platform.serving.access.governed import FEATURES, GovernedCaller
from ml_platform.serving.console.reader_process import NoAnswer, ask
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.settings import Settings

_EMPTY = Catalogue(made_at=datetime.fromtimestamp(0, UTC))


class StoredCatalogue:
    """The stored catalogue, read again when it was replaced.

    Parameters
    ----------
    settings
        Where it is kept, and the lake of its samples.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._read: tuple[FileStamp, Catalogue] | None = None

    def view(self, scope: Scope) -> tuple[View, str]:
        """What the caller may see of it, and why there is nothing, if so."""
        context = RequestContext.of(scope)
        try:
            catalogue = self._current()
        except (CatalogueUnreadable, OSError) as error:
            return View(_EMPTY), str(error)
        if catalogue is None:
            return View(_EMPTY), (
                "There is no catalogue yet: materialise governance/catalogue in Dagster, or run "
                "`ml-platform catalogue refresh`."
            )
        return View(catalogue, lambda entry: may_browse(context, entry)), ""

    def _current(self) -> Catalogue | None:
        try:
            state = file_stamp(catalogue_path(self.settings.home))
        except FileNotFoundError:
            return None
        if self._read is None or self._read[0] != state:
            catalogue = read_catalogue(self.settings.home)
            if catalogue is None:
                return None
            self._read = state, catalogue
        return self._read[1]


def may_browse(context: RequestContext, entry: Entry) -> bool:
    """Whether a caller may know of an entry.

    Under an access policy, of what is granted. Else of the models and views that the key is for, and of everything with
    a key for all.
    """
    if isinstance(context.key, GovernedCaller):
        return browses(context.key.policy, context.key.principal, entry)
    if context.key is None or context.covers(ALL_MODELS):
        return True
    if entry.model is not None and entry.table is None:
        return context.covers(entry.model)
    if entry.kind in ("view", "feature service"):
        return context.covers(f"{FEATURES}{entry.title.removeprefix('features.')}")
    return False


def may_sample(context: RequestContext) -> bool:
    """Whether a caller may ask for rows: where nobody needs a key everybody; under a policy, which decides what they
    see, everybody too; else administrators.
    """
    return isinstance(context.key, GovernedCaller) or context.may("admin", ALL_MODELS)


def catalogue_page(stored: StoredCatalogue, scope: Scope, parameters: Mapping[str, str]) -> dict[str, Any]:
    """What the page of the search shows."""
    view, trouble = stored.view(scope)
    return {
        **search_page(view, parameters, link=console_link("./")),
        "layout": "base.html",
        "action": "catalogue",
        "catalogue_css": "./assets/catalogue/catalogue.css",
        "trouble": trouble,
        "script": "",
        "kept_by": "governance/catalogue in Dagster keeps it fresh; ml-platform catalogue refresh does it at once.",
    }


def catalogue_entry_page(
    stored: StoredCatalogue, scope: Scope, name: str, sample: Sample | None, readers: ReadAnswer | str | None = None
) -> dict[str, Any]:
    """What the page of an entry shows (raises LookupError for one that is not there)."""
    view, trouble = stored.view(scope)
    if trouble:
        raise LookupError(trouble)
    entry = view.get(name)
    return {
        **entry_page(
            view,
            entry,
            link=console_link("../"),
            sample=sample,
            readers=readers,
            readers_link="?readers=1#readers" if may_see_readers(RequestContext.of(scope), entry) else None,
            lineage_link=lineage_link("../") if RequestContext.of(scope).covers(ALL_MODELS) else None,
        ),
        "layout": "base.html",
        "action": "../catalogue",
        "catalogue_css": "../assets/catalogue/catalogue.css",
        "sample_link": "?sample=1#sample" if may_sample(RequestContext.of(scope)) else None,
        "page_link": f"../models/{quote(entry.title)}/console/page" if entry.kind == "model" else None,
    }


def stored_page(stored: StoredCatalogue, model: str) -> str:
    """The page of a model as HTML (raises LookupError where there is none yet, ValueError for a wrong name)."""
    page = read_page(stored.settings.home, model)
    links = {"Catalogue": f"../../../catalogue/model:{quote(model)}", "All versions": "versions"}
    if page.is_serving:
        links["Console"] = "../console"
    return page_html(page, links)


def sample_for(stored: StoredCatalogue, scope: Scope, name: str) -> Sample | None:
    """A few rows of an entry as the caller may see them; None where it has none, or they may not see any."""
    view, trouble = stored.view(scope)
    if trouble or not may_sample(RequestContext.of(scope)):
        return None
    entry = view.get(name)
    if entry.table is None or entry.version is None:
        return None
    caller = RequestContext.of(scope).key
    return read_sample(
        entry.table, stored.settings, caller.principal.text if isinstance(caller, GovernedCaller) else None
    )


def read_sample(table: str, settings: Settings, reader: str | None) -> Sample:
    """Read a few rows as a principal may see them, in a process of its own: the server loads no reader of tables."""
    try:
        return ask("ml_platform.catalogue.sample", {"table": table, "reader": reader}, settings, Sample)
    except NoAnswer as error:
        return Sample(says=str(error))


def may_see_readers(context: RequestContext, entry: Entry) -> bool:
    """Whether a caller may see who read an entry: with `manage` on it under a policy, else as an administrator."""
    if _read_object(entry) is None:
        return False
    caller = context.key
    if isinstance(caller, GovernedCaller):
        return all(caller.policy.allows(caller.principal, "manage", wanted) for wanted in objects_of(entry))
    return context.may("admin", ALL_MODELS)


def readers_for(stored: StoredCatalogue, scope: Scope, name: str) -> ReadAnswer | str | None:
    """Who read an entry in the last 30 days, or why that is not known; None for who may not see it."""
    view, trouble = stored.view(scope)
    if trouble:
        return None
    entry, context = view.get(name), RequestContext.of(scope)
    if not may_see_readers(context, entry):
        return None
    caller = context.key
    query = ReadQuery(
        asks=caller.principal if isinstance(caller, GovernedCaller) else None,
        object=_read_object(entry),
        by_reader=True,
    )
    try:
        return ask("ml_platform.governance.find_reads", query, stored.settings, ReadAnswer)
    except NoAnswer as error:
        return str(error)


def _read_object(entry: Entry) -> str | None:
    """Name of an entry in the record of reads; None for what is not read."""
    if entry.table is not None:
        return entry.table.replace("/", ".", 1)  # as `lake.access.object_name`, whose room needs Polars
    return f"model:{entry.title}" if entry.kind in ("model", "endpoint") else None
