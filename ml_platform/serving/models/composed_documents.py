"""Makes the worker serve what the documents of composed endpoints say, and make it anew when a member changes."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from ml_platform.features.online.store import OnlineStore
from ml_platform.registry.composition import Composition, CompositionStore
from ml_platform.registry.releases import is_name
from ml_platform.serving.models.composed import ComposedModel, composed_slots
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.telemetry.metrics import Metrics

RETRY_SECONDS = 30.0  # before what was refused is tried again although no member changed

logger = logging.getLogger("serving")

Stamp = tuple[int, int, int]


class ComposedEndpoints:
    """The composed endpoints of a worker. The watcher lets all slots serve through `put`.

    Documents are read again when their files change; one that cannot be read, or whose file is gone, stays as it was.
    """

    def __init__(
        self, state: ServingState, store: CompositionStore, online: OnlineStore, metrics: Metrics, keys_dir: Path
    ) -> None:
        self._state = state
        self._store = store
        self._online = online
        self._metrics = metrics
        self._keys_dir = keys_dir
        self._documents: dict[str, Composition] = {}
        self._stamps: dict[str, Stamp] = {}
        self._retry_due = 0.0  # monotonic clock

    def put(self, slots: Mapping[str, EndpointState]) -> None:
        """Let these slots serve, with what is composed of them: by one assignment, so that no request sees a part."""
        before, documents = self._state.slots, self._documents
        if documents:
            slots = composed_slots(slots, documents, self._state, self._online, self._keys_dir)
        self._state.slots = dict(slots)
        for name in documents:
            self._show(before.get(name), slots[name])

    def poll(self) -> None:
        """Notice composed endpoints that came, changed or went."""
        changed = [document for path in self._store.folder.glob("*.json") if (document := self._read(path)) is not None]
        now = time.monotonic()
        is_refused = any(slot.refused for name in self._documents if (slot := self._state.slots.get(name)))
        if not changed and not (is_refused and now >= self._retry_due):
            return
        self._retry_due = now + RETRY_SECONDS
        slots, documents, retired = dict(self._state.slots), dict(self._documents), dict(self._state.retired)
        for document in changed:
            if document.of is None:
                retired[document.name] = document.updated_at
                if documents.pop(document.name, None) is not None:
                    del slots[document.name]
                    logger.info("%s: revision %d takes it out of service", document.name, document.revision)
            else:
                retired.pop(document.name, None)
                documents[document.name] = document
        self._documents, self._state.retired = documents, retired
        self.put(slots)

    def _read(self, path: Path) -> Composition | None:
        """A document that changed; None where it did not, or cannot be read."""
        name = path.stem
        try:
            stamp = _stamp(path.stat())
            if self._stamps.get(name) == stamp or not is_name(name):
                return None
            self._stamps[name] = stamp
            document = self._store.get(name)
        except (OSError, ValueError) as error:
            logger.error("%s: its document is left as it was: %s", name, error)
            return None
        if name in self._state.slots and name not in self._documents:
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
                logger.error("%s: revision %d cannot serve: %s", name, refused.revision, refused.reason)
            return
        [model] = slot.served
        assert isinstance(model, ComposedModel)
        self._metrics.swaps.labels(name).inc()
        self._metrics.version.labels(name).set(model.version)
        self._metrics.revision.labels(name).set(model.version)
        versions = {one: [own.version for own in member.served] for one, member in model.members.items()}
        logger.info("%s: revision %d serves members %s", name, model.version, versions)


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
