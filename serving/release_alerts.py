"""Tells those who own a model that a release was refused, and when that is over: once, whichever worker is first.

An alert is written down in the watcher's thread, under a lock that all servers of a home folder share, and noted as
told; only sending it takes the network, in a thread of its own that nobody waits for.
"""

import hashlib
import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ml_platform.monitoring.alerts import Alert, AlertSettings, deliver_alerts, record_alert, waiting_alerts
from ml_platform.registry.files import locked, replace_file
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import describe_targets
from ml_platform.settings import Settings
from serving.metrics import Metrics
from serving.state import Refusal, Slot, live_targets

_RETRY_SECONDS = 60.0  # before the webhook is offered again what it did not take; doubled each time
_LONGEST_RETRY_SECONDS = 3600.0
_CLOSE_SECONDS = 3.0  # what a worker that ends gives an alert on its way; one that is left waits in the spool

logger = logging.getLogger("serving")


class _Told(msgspec.Struct, frozen=True):
    """Note of an alert that stands until its endpoint's newest release is accepted."""

    alert_id: str
    title: str
    revision: int | None  # None: of a document that could not be read


class ReleaseAlerts:
    """Raises an alert for each refused release, by the channels of the other alerts, and one when that is over.

    One object per worker. What is told is known by the endpoint, its revision and what was refused, never by the
    reason: workers may find different ones, and find others when they look again. It is known until the endpoint's
    newest release is accepted; one that was mended and is refused once more is told once more.
    """

    def __init__(self, settings: Settings, metrics: Metrics, sinks: AlertSettings | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._sinks = sinks or AlertSettings()
        self._told: set[str] = set()  # spares the files a look at each retry
        self._to_send: queue.SimpleQueue[Path | None] = queue.SimpleQueue()  # None: end
        self._sender: threading.Thread | None = None

    def start(self) -> None:
        """Send what waits since an earlier run."""
        if self._sinks.webhook_url and (waiting := waiting_alerts(self._settings)):
            self._send(waiting[-1])

    def version_refused(self, slot: Slot, refused: Refusal, endpoint: Endpoint, *, is_shadow: bool = False) -> None:
        """Tell that a version of a release was refused, unless that is told already.

        Parameters
        ----------
        slot
            What answers now.
        refused
            Which version does not, and why.
        endpoint
            The document that names it.
        is_shadow
            Whether the version was never to answer.
        """
        key = _version_key(endpoint, is_shadow=is_shadow)
        if key not in self._told:
            self._tell(key, endpoint.revision, _version_alert(slot, refused, endpoint, is_shadow=is_shadow))

    def document_refused(self, slot: Slot, refused: Refusal, *, written: int) -> None:
        """Tell that an endpoint's document, last written at that time (ns), cannot be read, unless that is told."""
        key = _key("document", slot.name, written)
        if key not in self._told:
            self._tell(key, None, _document_alert(slot, refused))

    def settled(self, endpoint: Endpoint, *, with_shadows: bool = True) -> None:
        """Tell that nothing of an endpoint is refused any more, if that was told; from now on it would be news again.

        Parameters
        ----------
        endpoint
            Its newest document, which is in force, or takes it out of service.
        with_shadows
            Whether its shadows were accepted, too.
        """
        kinds = ("live", "document", "shadow") if with_shadows else ("live", "document")
        prefixes = tuple(f"{_of_endpoint(kind, endpoint.name)}-" for kind in kinds)
        self._told = {key for key in self._told if not key.startswith(prefixes)}
        try:
            if not self._notes(prefixes):
                return
            with locked(self._folder / ".lock"):
                notes = {path: msgspec.json.decode(path.read_bytes(), type=_Told) for path in self._notes(prefixes)}
                if not notes:
                    return
                # Recorded first, as below.
                recorded = record_alert(self._settings, _settled_alert(endpoint, [*notes.values()]), sinks=self._sinks)
                for path in notes:
                    path.unlink()
        except Exception as error:  # noqa: BLE001 - an alert that fails must not stop the watcher
            self._metrics.alert_failures.labels("file").inc()
            logger.error("%s: the alert that its release is in force cannot be written: %s", endpoint.name, error)
            return
        if recorded.waiting is not None:
            self._send(recorded.waiting)

    def close(self) -> None:
        """Give an alert on its way a moment to arrive."""
        if self._sender is not None:
            self._to_send.put(None)
            self._sender.join(_CLOSE_SECONDS)

    @property
    def _folder(self) -> Path:
        return self._settings.alerts_dir / "told"

    def _notes(self, prefixes: Sequence[str]) -> list[Path]:
        return [path for prefix in prefixes for path in sorted(self._folder.glob(f"{prefix}*"))]

    def _tell(self, key: str, revision: int | None, alert: Alert) -> None:
        """Record and send an alert that no other worker has; what cannot be written is counted and tried again."""
        waiting = None
        try:
            with locked(self._folder / ".lock"):
                if not (self._folder / key).exists():
                    # Recorded first: a crash between the two repeats an alert, the other way around it would lose one.
                    recorded = record_alert(self._settings, alert, sinks=self._sinks)
                    self._told.add(key)
                    waiting = recorded.waiting
                    note = _Told(recorded.alert_id, alert.title, revision)
                    replace_file(self._folder / key, msgspec.json.encode(note))
            self._told.add(key)
        except Exception as error:  # noqa: BLE001 - an alert that fails must not stop the watcher
            self._metrics.alert_failures.labels("file").inc()
            logger.error("%s: the alert about its release cannot be written: %s", alert.model, error)
        if waiting is not None:
            self._send(waiting)

    def _send(self, waiting: Path) -> None:
        if self._sender is None:
            # A daemon: a webhook that hangs must not keep a worker from ending.
            self._sender = threading.Thread(target=self._run, name="alerts", daemon=True)
            self._sender.start()
        self._to_send.put(waiting)

    def _run(self) -> None:
        """Offer alerts to the webhook until told to end, those that it did not take after a while again."""
        pause = 0.0
        while True:
            newest: Path | None = None
            try:
                newest = self._to_send.get(timeout=pause or None)
                if newest is None:
                    return
            except queue.Empty:
                pass
            try:
                failed = deliver_alerts(self._settings, sinks=self._sinks, newest=newest).failed
            except Exception as error:  # noqa: BLE001 - whatever a webhook answers, later alerts need this thread
                failed = {"webhook": f"{type(error).__name__}: {error}"}
                logger.error("an alert cannot be sent: %s", failed["webhook"])
            if failed:
                self._metrics.alert_failures.labels("webhook").inc()
            pause = min(2 * pause or _RETRY_SECONDS, _LONGEST_RETRY_SECONDS) if failed else 0.0


def _version_key(endpoint: Endpoint, *, is_shadow: bool) -> str:
    # A store that was put back from a backup counts its revisions anew: the time tells them apart.
    return _key("shadow" if is_shadow else "live", endpoint.name, endpoint.revision, endpoint.updated_at)


def _key(what: str, name: str, *parts: str | int) -> str:
    """Name of the file that notes something as told: what stands in a document would not be safe as a part of it."""
    return f"{_of_endpoint(what, name)}-{_digest(*parts)}"


def _of_endpoint(what: str, name: str) -> str:
    return f"{what}-{_digest(name)}"


def _digest(*parts: str | int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _version_alert(slot: Slot, refused: Refusal, endpoint: Endpoint, *, is_shadow: bool) -> Alert:
    version = "its release" if refused.version is None else f"version {refused.version}"
    back = f"; or go back: ml-platform rollback {endpoint.name}" if endpoint.previous else ""
    return Alert(
        model=endpoint.model,
        kind="release_refused",
        severity="warning" if is_shadow else "error",
        title=f"{'shadow ' if is_shadow else ''}{version} is refused",
        body=refused.reason,
        facts={
            "endpoint": endpoint.name,
            "revision": endpoint.revision,
            "wanted": describe_targets(endpoint.targets),
            "still serves": _serving(slot),
            "to do": f"mend what the reason names, servers look again within 30 seconds; or release another{back}",
        },
    )


def _document_alert(slot: Slot, refused: Refusal) -> Alert:
    return Alert(
        model=slot.endpoint.model if slot.endpoint else slot.name,
        kind="release_refused",
        severity="error",
        title="its endpoint document is refused",
        body=refused.reason,
        facts={
            "endpoint": slot.name,
            "still serves": _serving(slot),
            "to do": "restore the document as the reason says; servers see it within a second",
        },
    )


def _settled_alert(endpoint: Endpoint, told: Sequence[_Told]) -> Alert:
    if not endpoint.targets:
        title = f"resolved: revision {endpoint.revision} takes it out of service"
    elif any(one.revision == endpoint.revision for one in told):
        title = f"resolved: revision {endpoint.revision}, which was refused, is in force"
    else:
        title = f"resolved: revision {endpoint.revision} is in force, in the place of what was refused"
    return Alert(
        model=endpoint.model,
        kind="release_resolved",
        severity="info",
        title=title,
        facts={
            "endpoint": endpoint.name,
            "revision": endpoint.revision,
            "serves": describe_targets(endpoint.targets),
            "was told": "; ".join(
                one.title if one.revision is None else f"{one.title} (revision {one.revision})" for one in told
            ),
            "alerts": [one.alert_id for one in told],
        },
    )


def _serving(slot: Slot) -> str:
    if slot.endpoint is None:
        return "nothing, as no earlier release may or can serve in its place: requests are answered 503"
    if not slot.served:
        return "nothing: requests are answered 503"
    return f"{describe_targets(live_targets(slot.endpoint))}, revision {slot.endpoint.revision}"
