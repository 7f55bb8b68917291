"""Makes the worker serve what the documents of composed endpoints say, and make it anew when a member changes."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.features.online.store import OnlineStore
from ml_platform.registry.composition import Composition, CompositionStore
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import is_name
from ml_platform.serving.inputs.feature_lookup import ViewsDiffer
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.models.composed import ComposedModel, composed_slots, composed_state, endpoint_of, leaves
from ml_platform.serving.models.last_good_composition import LastGoodCompositions, restore
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.telemetry.metrics import Metrics

SETTLE_NS = 10**9  # a younger document that cannot be read may be half written, by a person or a copying tool
RETRY_SECONDS = 30.0  # before what was refused is tried again although no member changed

logger = logging.getLogger("serving")


class ComposedEndpoints:
    """The composed endpoints of a worker. The watcher lets all slots serve through `put`.

    Documents are read again when their files change; one whose file is gone stays as it was. Where a document cannot be
    read, or its members do not fit together, what served goes on, the reason shows as for a refused release, and an
    alert is raised; a worker that starts meanwhile answers by what was noted last.
    """

    def __init__(
        self,
        state: ServingState,
        store: CompositionStore,
        online: OnlineStore,
        metrics: Metrics,
        keys_dir: Path,
        *,
        alerts: ReleaseAlerts,
        last_good: LastGoodCompositions,
        load: Callable[[Endpoint], EndpointState],
    ) -> None:
        self._state = state
        self._store = store
        self._online = online
        self._metrics = metrics
        self._keys_dir = keys_dir
        self._alerts = alerts
        self._last_good = last_good
        self._load = load
        self._documents: dict[str, Composition] = {}
        self._damaged: dict[str, str] = {}  # why the newest documents of some names cannot be read
        self._stamps: dict[str, FileStamp] = {}
        self._retry_due = 0.0  # monotonic clock
        self._last_good_due: dict[str, float] = {}

    def put(self, slots: Mapping[str, EndpointState]) -> None:
        """Let these slots serve, with what is composed of them: by one assignment, so that no request sees a part."""
        before, documents, damaged = self._state.slots, self._documents, self._damaged
        if documents or damaged:
            slots = composed_slots(
                slots, documents, self._state, build=self._build, last_good=self._as_noted, damaged=damaged
            )
        self._state.slots = dict(slots)
        for name in sorted(documents.keys() | damaged.keys()):
            self._show(before.get(name), slots[name])

    def poll(self) -> None:
        """Notice composed endpoints that came, changed or went."""
        damaged = dict(self._damaged)
        changed = [
            document
            for path in self._store.folder.glob("*.json")
            if (document := self._read(path, damaged)) is not None
        ]
        now = time.monotonic()
        names = self._documents.keys() | damaged.keys()
        is_refused = any(slot.refused for name in names if (slot := self._state.slots.get(name)))
        if not changed and damaged == self._damaged and not (is_refused and now >= self._retry_due):
            return
        self._retry_due = now + RETRY_SECONDS
        slots, documents, retired = dict(self._state.slots), dict(self._documents), dict(self._state.retired)
        for document in changed:
            damaged.pop(document.name, None)
            if document.of is None:
                retired[document.name] = document.updated_at
                documents.pop(document.name, None)
                if slots.pop(document.name, None) is not None:
                    logger.info("%s: revision %d takes it out of service", document.name, document.revision)
                    self._metrics.refused.labels(document.name).set(0)
                    self._alerts.settled(endpoint_of(document))
            else:
                retired.pop(document.name, None)
                documents[document.name] = document
        self._check_views(slots, names)
        self._documents, self._damaged, self._state.retired = documents, damaged, retired
        self.put(slots)

    def _check_views(self, slots: dict[str, EndpointState], names: Iterable[str]) -> None:
        """Stop serving what was kept of members whose feature views changed since: it would answer wrongly."""
        for name in names:
            slot = slots.get(name)
            if slot is None or slot.refused is None or not slot.served:
                continue
            [model] = slot.served
            assert isinstance(model, ComposedModel)
            try:
                for one in leaves(model):
                    one.lookups.check()
            except ViewsDiffer as error:
                logger.error("%s: what served in the place of what is refused does not any more: %s", name, error)
                stopped = replace(slot, served=(), bounds=())
                slots[name] = stopped
                self._state.slots = {**self._state.slots, name: stopped}
            except OnlineStoreFailed:
                continue  # requests that need it follow `ServingSettings.online_fallback`

    def _build(self, composition: Composition, members: Mapping[str, EndpointState]) -> EndpointState:
        return composed_state(composition, self._state, members, self._online, self._keys_dir)

    def _as_noted(self, name: str, slots: Mapping[str, EndpointState]) -> EndpointState | None:
        """What a composed endpoint last answered by, loaded anew; None where there is nothing that may answer."""
        now = time.monotonic()
        if now < self._last_good_due.get(name, now):
            return None
        self._last_good_due[name] = now + RETRY_SECONDS
        try:
            note = self._last_good.get(name)
            return None if note is None else restore(note, slots, self._load, self._build)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with what was noted, the other endpoints go on
            logger.error("%s: nothing serves in the place of what is refused: %s", name, error)
            return None

    def _read(self, path: Path, damaged: dict[str, str]) -> Composition | None:
        """A document that changed; None where it did not, or cannot be read, which `damaged` has then."""
        name = path.stem
        if not is_name(name):
            return None
        try:
            stamp = file_stamp(path)
            if self._stamps.get(name) == stamp:
                return None
            self._stamps[name] = stamp
            document = self._store.get(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if 0 <= time.time_ns() - stamp[0] < SETTLE_NS:  # it may be half written
                del self._stamps[name]
            elif name not in self._state.slots or name in self._documents or name in damaged:
                damaged[name] = str(error)
            return None
        if name in self._state.slots and name not in self._documents and name not in damaged:
            logger.error("%s: a model serves under the name of a composed endpoint, which is left out", name)
            return None
        return document

    def _show(self, before: EndpointState | None, slot: EndpointState) -> None:
        """Report in metrics and log what became of a composed endpoint."""
        if slot is before:
            return
        name, refused = slot.name, slot.refused
        self._metrics.refused.labels(name).set(refused is not None)
        if refused is not None:
            known = before.refused if before is not None else None
            if known is None or known.reason != refused.reason:
                self._metrics.refusals.labels(name).inc()
                what = f"revision {refused.revision}" if refused.revision else "its document"
                logger.error("%s: %s cannot serve: %s", name, what, refused.reason)
                if not self._is_known(name):
                    self._alerts.composition_refused(slot, refused)
            return
        [model] = slot.served
        assert isinstance(model, ComposedModel)
        assert slot.endpoint is not None
        self._alerts.settled(slot.endpoint)
        try:
            self._last_good.note(model)
        except (OSError, ValueError) as error:
            logger.error("%s: what answers cannot be noted for servers that start later: %s", name, error)
        self._metrics.swaps.labels(name).inc()
        self._metrics.version.labels(name).set(model.version)
        self._metrics.revision.labels(name).set(model.version)
        versions = {one: [own.version for own in member.served] for one, member in model.members.items()}
        logger.info("%s: revision %d serves members %s", name, model.version, versions)

    def _is_known(self, name: str) -> bool:
        """Whether a composed endpoint does not answer since a member does not, for which there is an alert already."""
        composition = self._documents.get(name)
        members = map(self._state.slots.get, composition.members) if composition is not None else ()
        return any(slot is not None and not slot.served for slot in members)
