"""Renders the pages in one thread of its own, so that predictions never wait for them."""

import asyncio
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ml_platform.catalogue.pages import FILTERS as CATALOGUE_FILTERS
from ml_platform.catalogue.pages import TEMPLATES as CATALOGUE_TEMPLATES
from ml_platform.features.online.store import OnlineStore
from ml_platform.governance.recorded_reads import ReadAnswer, ReadQuery
from ml_platform.lineage.store import lineage_path
from ml_platform.monitoring.status import ModelStatus, StatusUnreadable, read_status
from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.registry.canary import WalkReport, read_report
from ml_platform.registry.card_pages import card_html
from ml_platform.registry.model_card import CardGuardrail, carded_versions, load_card
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.serving.access.governed import FEATURES
from ml_platform.serving.console import formatting, page_model
from ml_platform.serving.console.audit_page import audit_page, authorized_query, query_of
from ml_platform.serving.console.catalogue_pages import (
    StoredCatalogue,
    catalogue_entry_page,
    catalogue_page,
    readers_for,
    sample_for,
    stored_page,
)
from ml_platform.serving.console.cost_page import cost_page
from ml_platform.serving.console.feature_pages import feature_page, features_page
from ml_platform.serving.console.form import form_fields
from ml_platform.serving.console.history import SAMPLE_SECONDS, History
from ml_platform.serving.console.lineage_pages import StoredLineage
from ml_platform.serving.console.reader_process import NoAnswer, ask
from ml_platform.serving.console.version_pages import compare_page, version_page, versions_page
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.models.descriptions import describe_endpoint, described_version
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.models.stream_descriptions import stream_workers
from ml_platform.serving.openapi.predictions import example_row
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings

STATIC = Path(__file__).parent / "static"
_Done = TypeVar("_Done")
# Of pages, to the start.
_ROOTS = {
    "audit.html": "../",
    "cost.html": "../",
    "version.html": "../../../../",
    "feature.html": "../../",
    "features.html": "./",
    "catalogue.html": "./",
    "entry.html": "../",
    "lineage.html": "../",
}


class Console:
    """The pages of one worker, and the samples that their charts need."""

    def __init__(
        self, state: ServingState, metrics: Metrics, releases: ReleaseStore, online: OnlineStore, settings: Settings
    ) -> None:
        self._streams = settings.streams_dir
        self.catalogue = StoredCatalogue(settings)
        self._samples = asyncio.Semaphore(1)
        self._costs = settings.cost_dir
        self._lineage = StoredLineage(lineage_path(settings))
        self.history = History(metrics)
        self._state = state
        self.releases = releases
        self._online = online
        self._started = datetime.now(UTC)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="console")
        self._templates = Environment(
            loader=FileSystemLoader([Path(__file__).parent / "templates", CATALOGUE_TEMPLATES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "ago": formatting.ago,
            "instant": formatting.instant,
            "milliseconds": formatting.milliseconds,
            "number": formatting.number,
            "share": formatting.share,
            "span": formatting.span,
            **CATALOGUE_FILTERS,
        }

    async def run(self) -> None:
        """Sample the metrics until cancelled."""
        while True:
            await self._do(self.history.sample)
            await asyncio.sleep(SAMPLE_SECONDS)

    def close(self) -> None:
        """Finish the page that is being rendered."""
        self._thread.shutdown()

    async def overview(self, scope: Scope) -> str:
        """Every model that the key covers."""
        return await self._do(lambda: self._overview(scope))

    async def model(self, scope: Scope, name: str, address: str) -> str:
        """One model, with a form to try it (raises KeyError for one that was never released)."""
        return await self._do(lambda: self._model(scope, name, address))

    async def card(self, name: str, version: int) -> str:
        """The model card of a version.

        Raises
        ------
        LookupError
            When it has none.
        DocumentUnreadable
            When its file, or one of what it served, is damaged.
        """
        return await self._do(lambda: self._card(name, version))

    async def versions(self, scope: Scope, name: str, metric: str | None) -> str:
        """All registered versions of a model (raises LookupError for an unknown model or metric)."""
        return await self._do(lambda: self._page(scope, "versions.html", versions_page(self.releases, name, metric)))

    async def version(self, scope: Scope, name: str, version: int) -> str:
        """One version (raises LookupError for an unknown one)."""
        return await self._do(lambda: self._version(scope, name, version))

    async def compare(self, scope: Scope, name: str, versions: Sequence[int]) -> str:
        """Versions side by side (raises LookupError for an unknown one, ValueError for too few or too many)."""
        return await self._do(lambda: self._page(scope, "compare.html", compare_page(self.releases, name, versions)))

    async def features(self, scope: Scope) -> str:
        """Every feature view and service that the key covers."""
        return await self._do(lambda: self._features(scope))

    async def feature(self, scope: Scope, name: str, address: str) -> str:
        """One view or service, with a form (raises LookupError for one that is not there, or cannot be looked up)."""
        return await self._do(lambda: self._page(scope, "feature.html", feature_page(self._state, name, address)))

    async def page(self, name: str) -> str:
        """The page of a model for people who do not code (raises LookupError where there is none yet)."""
        return await self._do(lambda: stored_page(self.catalogue, name))

    async def search(self, scope: Scope, parameters: Mapping[str, str]) -> str:
        """The catalogue's search."""
        return await self._do(
            lambda: self._page(scope, "catalogue.html", catalogue_page(self.catalogue, scope, parameters))
        )

    async def entry(self, scope: Scope, name: str, *, sample: bool, readers: bool = False) -> str:
        """One entry of the catalogue (raises LookupError for one that is not there, or may not be browsed)."""
        rows = who = None
        async with self._samples if sample or readers else nullcontext():  # one process at a time
            if sample:
                rows = await asyncio.to_thread(sample_for, self.catalogue, scope, name)
            if readers:
                who = await asyncio.to_thread(readers_for, self.catalogue, scope, name)
        return await self._do(
            lambda: self._page(scope, "entry.html", catalogue_entry_page(self.catalogue, scope, name, rows, who))
        )

    async def recorded_reads(self, scope: Scope, query: ReadQuery) -> ReadAnswer:
        """Reads on record that the caller may see (raises HTTPException)."""
        authorized = authorized_query(scope, query)
        async with self._samples:
            try:
                return await asyncio.to_thread(
                    ask, "ml_platform.governance.find_reads", authorized, self.catalogue.settings, ReadAnswer
                )
            except NoAnswer as error:
                raise HTTPException(503, str(error)) from error

    async def audit(self, scope: Scope, parameters: Mapping[str, str]) -> str:
        """The page of recorded reads (raises HTTPException)."""
        query, wrong = query_of(parameters)
        answer = await self.recorded_reads(scope, query)
        return await self._do(lambda: self._page(scope, "audit.html", audit_page(query, answer, parameters, wrong)))

    async def cost(self, scope: Scope) -> str:
        """What everything costs, and how the budgets stand."""
        return await self._do(lambda: self._page(scope, "cost.html", cost_page(self._costs)))

    async def lineage(self, scope: Scope, name: str | None, column: str | None) -> str:
        """The column graph: all, an object, or a column of it (raises LookupError for what there is not)."""
        return await self._do(lambda: self._page(scope, "lineage.html", self._lineage.page(scope, name, column)))

    async def lineage_part(self, scope: Scope, name: str | None, direction: str) -> bytes:
        """The graph around a column or object as JSON (raises LookupError)."""
        return await self._do(lambda: msgspec.json.encode(self._lineage.part(scope, name, direction)))

    async def lineage_impact(self, scope: Scope, name: str) -> bytes:
        """What depends on a column or object, as JSON (raises LookupError)."""
        return await self._do(lambda: msgspec.json.encode(self._lineage.impact(scope, name)))

    def _version(self, scope: Scope, name: str, version: int) -> str:
        facts = version_page(self.releases, name, version)
        return self._page(scope, "version.html", {**facts, "guardrails": self._guardrails(name, version)})

    def _features(self, scope: Scope) -> str:
        context = RequestContext.of(scope)
        trouble, facts = None, dict[str, object](services=[], views=[])
        try:
            facts = features_page(self._state, self._online, lambda name: context.covers(f"{FEATURES}{name}"))
        except Exception as error:  # noqa: BLE001 - each store has errors of its own; the page says so and stays up
            trouble = f"the online store cannot be read: {type(error).__name__}: {error}"
        return self._page(scope, "features.html", {**facts, "trouble": trouble})

    def _card(self, name: str, version: int) -> str:
        card = load_card(self.releases, name, version)
        others = [number for number in self.releases.versions(name) if number != version]
        pages = {
            "This version": f"../../console/versions/{version}",
            "All versions, with chart": "../../console/versions",
        }
        if others:
            pages[f"Compare with version {others[-1]}"] = (
                f"../../console/compare?version={others[-1]}&version={version}"
            )
        pages["History (JSON)"] = f"../../../../endpoints/{name}/history"
        return card_html(self.releases, card, pages=pages)

    async def _do(self, work: Callable[[], _Done]) -> _Done:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _overview(self, scope: Scope) -> str:
        context = RequestContext.of(scope)
        slots = {name: slot for name, slot in sorted(self._state.slots.items()) if context.covers(name)}
        return self._render("overview.html", slots, models=[self._view(slot) for slot in slots.values()])

    def _model(self, scope: Scope, name: str, address: str) -> str:
        slot = self._state.slots[name]
        main = described_version(slot)
        example = json.dumps(example_row(main.manifest), indent=1, default=str) if main else ""
        return self._render(
            "model.html",
            {name: slot},
            model=self._view(slot),
            keyed=RequestContext.of(scope).is_keyed,
            waiting=self._waiting(slot),
            streams=stream_workers(self._streams, lambda _: True, name) if is_name(name) else [],
            canary=slot.endpoint.canary if slot.endpoint else None,
            walked=self._walked(slot),
            fields=form_fields(main.manifest) if main else [],
            intervals=None if main is None or main.intervals is None else _uncertainty(main.manifest.task),
            names=page_model.result_names(main) if main else {},
            violations=page_model.violation_lines(slot, main.manifest.inputs if main else (), self.history),
            call=f"curl -s {address}predict/{name} -d {shlex.quote(example)}",
        )

    def _waiting(self, slot: EndpointState) -> list[tuple[ApprovalRequest, tuple[CardGuardrail, ...]]]:
        """Versions that wait for a person, with their guardrails."""
        model, now = slot.endpoint.model if slot.endpoint else slot.name, datetime.now(UTC)
        if not is_name(model):
            return []
        waiting = [request for request in self.releases.approvals.all(model) if request.state(now) == "waits"]
        return [(request, self._guardrails(model, request.version)) for request in waiting]

    def _guardrails(self, model: str, version: int) -> tuple[CardGuardrail, ...]:
        """What a version was held to, as its card has it; nothing without a card."""
        with suppress(LookupError, DocumentUnreadable):  # of which the page of the version says so
            quality = load_card(self.releases, model, version).quality
            return quality.guardrails if quality else ()
        return ()

    def _walked(self, slot: EndpointState) -> WalkReport | None:
        """What was last found about its canary walk."""
        with suppress(DocumentUnreadable):  # it is written anew at the next look
            return read_report(self.releases, slot.endpoint) if slot.endpoint else None
        return None

    def _view(self, slot: EndpointState) -> page_model.ModelView:
        status: ModelStatus | None = None
        trouble = None
        try:
            # The file of a document may have an invalid name: such a document is refused, and has no status.
            status = read_status(self.releases, slot.name) if is_name(slot.name) else None
        except (StatusUnreadable, OSError) as error:
            trouble = f"what monitoring found cannot be read: {error}"
        cards = carded_versions(self.releases, slot.endpoint.model) if slot.endpoint else []
        return page_model.model_view(slot, describe_endpoint(slot), self.history, status, trouble, cards)

    def _page(self, scope: Scope, template: str, facts: Mapping[str, object]) -> str:
        """A page of registered versions, which needs nothing of what serves."""
        return self._templates.get_template(template).render(
            root=_ROOTS.get(template, "../../../"),
            here=template.removesuffix(".html"),
            state=self._state,
            started=self._started,
            keyed=RequestContext.of(scope).is_keyed,
            **facts,
        )

    def _render(self, template: str, slots: dict[str, EndpointState], **facts: object) -> str:
        lines: list[page_model.ViewLine] = []
        trouble = self._state.trouble
        try:
            lines = page_model.view_lines(slots, self._online, self.history)
        except Exception as error:  # noqa: BLE001 - each store has errors of its own; the page says so and stays up
            trouble = trouble or f"the online store cannot be read: {type(error).__name__}: {error}"
        return self._templates.get_template(template).render(
            root="" if template == "overview.html" else "../../",
            here="models",
            state=self._state,
            trouble=trouble,
            started=self._started,
            views=lines,
            refused=page_model.refused_lines(list(slots), self.history),
            **facts,
        )


def _uncertainty(task: str) -> str:
    """What a version answers with where a level is asked for."""
    return "interval" if task == "regression" else "set of classes"
