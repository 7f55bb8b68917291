"""Makes the worker serve what the endpoint documents say: notices a change within a second, checks it, then swaps."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ml_platform.atomic_files import file_stamp
from ml_platform.features.online.store import OnlineStore
from ml_platform.registry.adapted_conformal import adapted_path
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.feature_services import FeatureServiceStore
from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.inputs.feature_lookup import ViewsDiffer
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.models.composed_documents import ComposedEndpoints
from ml_platform.serving.models.intervals import Intervals
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.serving.models.last_good_composition import LastGoodCompositions
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.service_watch import ServiceWatch
from ml_platform.serving.models.slots import (
    EndpointState,
    Refusal,
    ServedModel,
    ServingState,
    live_targets,
    refusal,
    shadow_targets,
)
from ml_platform.serving.telemetry.metrics import Metrics

POLL_SECONDS = 0.2
CHECK_SECONDS = 2.0  # between two checks of the online store's views: those that a release lacks may be on their way
SETTLE_NS = 10**9  # a younger document that cannot be read may be half written, by a person or a copying tool
RELOAD_SECONDS = 30.0  # before a bundle that was refused is read again: someone may have restored it

logger = logging.getLogger("serving")


@dataclass(slots=True)
class _Seen:
    """When one endpoint document was last read, and when it is read again (monotonic clock)."""

    stamp: tuple[int, int, int] | None = None  # of the file as it was then
    due: float = 0.0
    fall_back_due: float = 0.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The versions of one endpoint document, checked and warm."""

    served: tuple[ServedModel, ...]
    shadows: tuple[ServedModel, ...]
    shadow_refused: Refusal | None
    alarming: Refusal | None  # of a shadow, unless only the online store failed


class _VersionRefused(Exception):
    """A version of a release failed its checks with the error `reason`."""

    def __init__(self, version: int, reason: Exception) -> None:
        super().__init__(str(reason))
        self.version = version
        self.reason = reason


class Watcher:
    """Polls the release store and replaces slots of `state`. One per worker.

    A new version is loaded in a thread, replays its golden rows and is compared with the online store's views; only
    then does one assignment let it take traffic. When a check fails, the version that served before keeps serving, and
    the reason shows in `/models`, `/metrics` and the log, and goes out as an alert. A worker that starts while a
    release is refused falls back to the release before it, checked in the same way. A document that disappears, or a
    store that cannot be read, changes nothing. With `only` no other endpoint is looked at.
    """

    def __init__(
        self,
        state: ServingState,
        store: ReleaseStore,
        online: OnlineStore,
        metrics: Metrics,
        alerts: ReleaseAlerts,
        *,
        in_force: LastKnownGood,
        keys_dir: Path,
        fallback: Literal["fail", "nulls"] = "fail",
        only: str | None = None,
    ) -> None:
        self._fallback = fallback
        self._names = "*" if only is None else only
        self._keys_dir = keys_dir
        self._state = state
        self._store = store
        self._online = online
        self._metrics = metrics
        self._alerts = alerts
        self._in_force = in_force
        self._seen: dict[str, _Seen] = {}
        self._views_due = 0.0  # monotonic clock
        self._intervals_due = 0.0
        self._services = ServiceWatch(FeatureServiceStore(store))
        self._intervals_seen: dict[str, tuple[int, int, int] | None] = {}  # stamps of the documents, by bundle
        self._composed = ComposedEndpoints(
            state,
            CompositionStore(store),
            online,
            metrics,
            keys_dir,
            alerts=alerts,
            last_good=LastGoodCompositions(in_force.folder, store),
            load=self._loaded,
        )

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.poll)

    def poll(self) -> None:
        """Read the release store once, and load and swap what changed."""
        self._look_at_views()
        self._services.look(self._state)
        folder = self._store.folder / "endpoints"
        try:
            stamps = (
                {path.stem: file_stamp(path) for path in sorted(folder.glob(f"{self._names}.json"))}
                if folder.is_dir()
                else {}
            )
        except OSError as error:
            self._state.trouble = f"the release store cannot be read: {self._store.said(error)}"
            logger.warning("%s", self._state.trouble)
            return
        self._state.trouble = None
        for name, stamp in stamps.items():
            self._poll_model(name, stamp)
        if self._names == "*":  # else the members are not here
            self._composed.poll()
        self._look_at_intervals()
        self._state.checked_at = datetime.now(UTC)

    def _look_at_views(self) -> None:
        """Note the online store's feature views; a push asks the store itself, a look-up checks the rows it reads."""
        now = time.monotonic()
        if now < self._views_due:
            return
        self._views_due = now + CHECK_SECONDS
        try:
            definitions = {name: self._online.definition(name) for name in self._online.views()}
        except Exception as error:  # noqa: BLE001 - any store, any error: the views seen last stay
            logger.warning("the feature views of the online store cannot be read: %s", error)
            return
        seen = self._state.views  # whose objects stay while they say the same: who uses them compares identities
        self._state.views = {
            name: seen[name] if seen.get(name) == one else one
            for name, one in definitions.items()
            if one is not None and one.schema is not None
        }

    def _look_at_intervals(self) -> None:
        """Take numbers of intervals that were adapted meanwhile; damaged ones leave those that served before."""
        now = time.monotonic()
        if now < self._intervals_due:
            return
        self._intervals_due = now + CHECK_SECONDS
        for slot in list(self._state.slots.values()):
            models = {model.digest: model for model in (*slot.served, *slot.shadows)}
            changed = {}
            for digest, model in models.items():
                try:
                    stamp = file_stamp(adapted_path(self._store, digest))
                except OSError:
                    stamp = None
                if stamp == self._intervals_seen.get(digest):
                    continue
                self._intervals_seen[digest] = stamp
                try:
                    intervals = Intervals.load(self._store, digest, model.manifest)
                except (OSError, ValueError) as error:
                    logger.error("%s: adapted intervals are left as they were: %s", slot.name, error)
                    continue
                changed[digest] = replace(model, intervals=intervals)
                logger.info("%s: version %d has newer numbers for intervals", slot.name, model.version)
            if changed:
                served, shadows = (
                    tuple(changed.get(model.digest, model) for model in part) for part in (slot.served, slot.shadows)
                )
                self._assign(replace(self._state.slots[slot.name], served=served, shadows=shadows))

    def _poll_model(self, name: str, stamp: tuple[int, int, int]) -> None:
        """Read an endpoint's document when it changed or another look is due, and serve what it says."""
        seen = self._seen.setdefault(name, _Seen())
        slot = self._state.slots.get(name, EndpointState(name, None))
        now = time.monotonic()
        changed = stamp != seen.stamp
        if not changed and now < seen.due:
            return
        seen.stamp, seen.due = stamp, now + CHECK_SECONDS
        seen.fall_back_due = 0.0 if changed else seen.fall_back_due
        in_order = slot.served and not slot.unverified and slot.refused is None and slot.shadow_refused is None
        is_new = changed or not in_order
        try:
            endpoint = self._store.document(name) if is_new else slot.endpoint
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one release, the others go on
            if 0 <= time.time_ns() - stamp[0] < SETTLE_NS:
                seen.stamp = None  # read it again at the next poll
                return
            seen.due = now + RELOAD_SECONDS
            refused = refusal(0, self._store.said(error))
            self._refuse(slot, refused)
            self._fall_back(name, None, seen)
            self._alerts.document_refused(self._state.slots[name], refused, written=stamp[0])
            return
        if endpoint is None:
            return
        if not endpoint.targets:
            self._retire(name, endpoint)
            if changed:
                self._alerts.settled(endpoint)
            return
        try:
            if is_new:
                self._swap(slot, endpoint)
            else:
                slot.check_views()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one release, the others go on
            self._refuse_version(slot, endpoint, error, seen, now)

    def _refuse_version(
        self, slot: EndpointState, endpoint: Endpoint, error: Exception, seen: _Seen, now: float
    ) -> None:
        """Refuse a document for a version that failed its checks; fall back and raise an alert where that applies."""
        reason, version = (error.reason, error.version) if isinstance(error, _VersionRefused) else (error, None)
        if not isinstance(reason, ViewsDiffer | OnlineStoreFailed):
            seen.due = now + RELOAD_SECONDS
        refused = refusal(endpoint.revision, self._store.said(reason), version)
        self._refuse(slot, refused)
        store_failed = isinstance(reason, OnlineStoreFailed)  # which says nothing about the release
        if not store_failed or self._fallback == "nulls":
            self._fall_back(slot.name, endpoint.revision, seen)
        if not store_failed:
            self._alerts.version_refused(self._state.slots[slot.name], refused, endpoint)

    def _swap(self, slot: EndpointState, endpoint: Endpoint) -> None:
        """Load and check a document's versions, then serve them."""
        loaded = self._load(slot, endpoint)
        self._take(endpoint, loaded)
        # Another worker may have refused a newer document meanwhile: its alert must stand.
        if not self._state.slots[endpoint.name].unverified and self._is_newest(endpoint):
            self._alerts.settled(endpoint, with_shadows=loaded.shadow_refused is None)
        if slot.endpoint != endpoint or slot.refused is not None:  # else it is the release that served already
            self._show(endpoint)

    def _is_newest(self, endpoint: Endpoint) -> bool:
        try:
            return self._store.document(endpoint.name) == endpoint
        except (OSError, ValueError):  # the next poll reports it
            return False

    def _fall_back(self, name: str, before: int | None, seen: _Seen) -> None:
        """When nothing serves, serve what was in force before a refused revision (None: its number is unknown)."""
        slot = self._state.slots[name]
        now = time.monotonic()
        if slot.served or now < seen.fall_back_due:
            return
        seen.fall_back_due = now + RELOAD_SECONDS
        oldest = slot.endpoint.revision if slot.endpoint else 0
        try:
            for endpoint in self._in_force.fallbacks(name, before):
                if endpoint.revision < oldest:
                    return
                try:
                    loaded = self._load(slot, endpoint)
                except _VersionRefused as error:
                    logger.warning("%s: revision %d cannot serve in its place: %s", name, endpoint.revision, error)
                    if isinstance(error.reason, OnlineStoreFailed):
                        seen.fall_back_due = now + CHECK_SECONDS
                        if self._fallback == "fail":
                            return
                    continue
                self._take(endpoint, loaded, slot.refused)
                self._show(endpoint)
                return
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an old document, the other models go on
            logger.error("%s: nothing serves in the place of its refused release: %s", name, error)

    def _load(self, slot: EndpointState, endpoint: Endpoint) -> _Loaded:
        """Load and check the versions of a document; those already loaded are only compared with the online store.

        With the fallback "nulls", a worker that serves nothing yet skips that comparison while the online store cannot
        be read, provided that other workers already serve this document.
        """
        unverified = self._fallback == "nulls" and not slot.served and self._in_force.holds(endpoint)
        known = {(model.version, model.digest): model for model in (*slot.served, *slot.shadows)}

        def load(target: Target) -> ServedModel:
            model = known.get((target.version, target.digest))
            if model is None:
                return ServedModel.load(
                    self._store,
                    self._online,
                    target,
                    endpoint.model,
                    keys_dir=self._keys_dir,
                    fallback=self._fallback,
                    unverified=unverified,
                )
            model.lookups.check()
            return model

        served = []
        for target in live_targets(endpoint):
            try:
                served.append(load(target))
            except Exception as error:
                raise _VersionRefused(target.version, error) from error
        if not served:
            raise LookupError(f"revision {endpoint.revision} names no live version")
        shadows, shadow_refused, alarming = [], None, None
        for target in shadow_targets(endpoint):
            try:
                shadows.append(load(target))
            except Exception as error:  # noqa: BLE001 - a shadow's fault must not keep the live versions from serving
                shadow_refused = refusal(endpoint.revision, self._store.said(error), target.version)
                alarming = alarming if isinstance(error, OnlineStoreFailed) else shadow_refused
                logger.error("%s: shadow version %d is refused: %s", endpoint.name, target.version, error)
        return _Loaded(tuple(served), tuple(shadows), shadow_refused, alarming)

    def _loaded(self, endpoint: Endpoint) -> EndpointState:
        """An endpoint as a document says, for who does not answer by its present one (raises what loading raises)."""
        slot = self._state.slots.get(endpoint.name, EndpointState(endpoint.name, None))
        return EndpointState.of(endpoint, self._load(slot, endpoint).served)

    def _take(self, endpoint: Endpoint, loaded: _Loaded, refused: Refusal | None = None) -> None:
        """Put a document in force; `refused` is the newer one that it stands in for, if any."""
        name = endpoint.name
        slot = EndpointState.of(endpoint, loaded.served, loaded.shadows, loaded.shadow_refused)
        self._assign(replace(slot, refused=refused))
        self._metrics.refused.labels(name).set(refused is not None)
        self._metrics.shadow_refused.labels(name).set(loaded.shadow_refused is not None)
        if loaded.alarming is not None:
            self._alerts.version_refused(self._state.slots[name], loaded.alarming, endpoint, is_shadow=True)
        if slot.unverified:
            logger.warning(
                "%s: revision %d answers with nulls until the online store can be read", name, endpoint.revision
            )
            return
        try:
            self._in_force.note(endpoint)
        except (OSError, ValueError) as error:
            logger.error(
                "%s: revision %d cannot be noted for servers that start later: %s", name, endpoint.revision, error
            )

    def _show(self, endpoint: Endpoint) -> None:
        """Report in metrics and log that another document is in force."""
        name = endpoint.name
        largest = max(live_targets(endpoint), key=lambda target: target.share)
        self._metrics.swaps.labels(name).inc()
        self._metrics.version.labels(name).set(largest.version)
        self._metrics.revision.labels(name).set(endpoint.revision)
        logger.info("%s: revision %d serves version %d", name, endpoint.revision, largest.version)

    def _retire(self, name: str, endpoint: Endpoint) -> None:
        """Take a withdrawn endpoint out of service; requests under way are still answered."""
        retired = {other: since for other, since in self._state.retired.items() if other != name}
        self._state.retired = {**retired, name: endpoint.updated_at} if endpoint.is_retired else retired
        if name not in self._state.slots:
            return
        self._composed.put({other: slot for other, slot in self._state.slots.items() if other != name})
        for gauge in (self._metrics.refused, self._metrics.shadow_refused, self._metrics.version):
            gauge.labels(name).set(0)
        self._metrics.revision.labels(name).set(endpoint.revision)
        logger.info("%s: revision %d takes it out of service", name, endpoint.revision)

    def _refuse(self, slot: EndpointState, refused: Refusal) -> None:
        """Note a refusal. What served keeps serving, unless its own feature views changed: it would answer wrongly."""
        known = slot.refused and (slot.refused.revision, slot.refused.reason)
        if known != (refused.revision, refused.reason):
            self._metrics.refusals.labels(slot.name).inc()
            self._metrics.refused.labels(slot.name).set(1)
            what = f"revision {refused.revision}" if refused.revision else "its endpoint document"
            logger.error("%s: %s is refused: %s", slot.name, what, refused.reason)
            self._assign(replace(slot, refused=refused))
        try:
            slot.check_views()
        except ViewsDiffer:
            self._assign(replace(self._state.slots[slot.name], served=(), bounds=(), shadows=()))
        except OnlineStoreFailed:
            pass  # the views are not known now; requests that need them follow `ServingSettings.online_fallback`

    def _assign(self, slot: EndpointState) -> None:
        if slot.name in self._state.retired:  # and is back
            self._state.retired = {n: since for n, since in self._state.retired.items() if n != slot.name}
        self._composed.put({**self._state.slots, slot.name: slot})
