"""The catalogue in the console: the document that `governance/catalogue` wrote, as the reader may see it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import Scope

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
from ml_platform.catalogue.pages import Sample, console_link, entry_page, search_page
from ml_platform.catalogue.reader import browses
from ml_platform.governance.keys import ALL_MODELS
from ml_platform.serving.access.governed import FEATURES, GovernedCaller
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.settings import Settings

SAMPLE_SECONDS = 60.0  # that reading a few rows may take
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
        self._read: tuple[tuple[int, int], Catalogue] | None = None

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
            status = catalogue_path(self.settings.home).stat()
        except FileNotFoundError:
            return None
        state = (status.st_mtime_ns, status.st_ino)
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


def catalogue_entry_page(stored: StoredCatalogue, scope: Scope, name: str, sample: Sample | None) -> dict[str, Any]:
    """What the page of an entry shows (raises LookupError for one that is not there)."""
    view, trouble = stored.view(scope)
    if trouble:
        raise LookupError(trouble)
    entry = view.get(name)
    return {
        **entry_page(view, entry, link=console_link("../"), sample=sample),
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
    wanted = json.dumps({"table": table, "reader": reader})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ml_platform.catalogue.sample"],
            input=wanted.encode(),
            env={**os.environ, "ML_PLATFORM_HOME": str(settings.home), "ML_PLATFORM_LAKE_URI": settings.lake_uri},
            capture_output=True,
            timeout=SAMPLE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Sample(says=f"The rows were not read within {SAMPLE_SECONDS:g} s: try again, or use the command below.")
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it ended without a word"]
        if "ModuleNotFoundError" in last[0]:
            return Sample(says="This server is installed without what reads tables: use the commands below.")
        return Sample(says=f"The rows could not be read: {last[0]}")
    return msgspec.json.decode(done.stdout, type=Sample)
