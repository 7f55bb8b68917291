"""Alerts a model's owners when a release is refused or its log fails, and when that is resolved.

Each alert is raised once, by whichever worker is first.

An alert is recorded in the watcher's thread, under a lock that all servers of a home folder share, together with a note
that it was raised. A separate thread, which nobody waits for, sends it over the network.
"""

import hashlib
import logging
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.monitoring.alerts.alert import Alert, AlertSettings, record_alert, waiting_alerts
from ml_platform.monitoring.alerts.delivery import deliver_alerts, post_alert
from ml_platform.registry.manifest import Endpoint, describe_targets
from ml_platform.serving.models.slots import EndpointState, Refusal, live_targets
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings

_RETRY_SECONDS = 60.0  # before alerts that the webhook did not take are sent again; doubled each time
_LONGEST_RETRY_SECONDS = 3600.0
_CLOSE_SECONDS = 3.0  # that a stopping worker waits for an alert being sent; an unsent one stays in the spool

logger = logging.getLogger("serving")


class _Raised(msgspec.Struct, frozen=True):
    """Note of an alert that was raised; kept until the endpoint's newest release is accepted."""

    alert_id: str
    title: str
    revision: int | None  # None: of a document that could not be read


class ReleaseAlerts:
    """Raises an alert for each refused release, over the channels of the other alerts, and one when it is resolved.

    One object per worker. An alert is identified by the endpoint, its revision and what was refused, but not by the
    reason, which may differ between workers and between checks. The notes are dropped when the endpoint's newest
    release is accepted, so a release that was repaired and is refused again raises a new alert.
    """

    def __init__(self, settings: Settings, metrics: Metrics, sinks: AlertSettings | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._sinks = sinks or AlertSettings()
        self._unwritten: set[str] = set()  # keys of alerts that went to the webhook alone
        self._raised: set[str] = set()  # keys of notes, which saves looking at the files at each retry
        self._to_send: queue.SimpleQueue[bool | Alert] = queue.SimpleQueue()  # False: end; an alert: unwritten
        self._sender: threading.Thread | None = None

    def start(self) -> None:
        """Send the alerts that an earlier run left unsent."""
        if self._sinks.webhook_url and waiting_alerts(self._settings):
            self._send()

    def version_refused(
        self, slot: EndpointState, refused: Refusal, endpoint: Endpoint, *, is_shadow: bool = False
    ) -> None:
        """Raise an alert that a version of a release was refused, unless that was done.

        Parameters
        ----------
        slot
            What answers now.
        refused
            The version that was refused, and why.
        endpoint
            The document that names it.
        is_shadow
            Whether the version is a shadow.
        """
        key = _version_key(endpoint, is_shadow=is_shadow)
        if key not in self._raised:
            self._raise(key, endpoint.revision, _version_alert(slot, refused, endpoint, is_shadow=is_shadow))

    def document_refused(self, slot: EndpointState, refused: Refusal, *, written: int) -> None:
        """Raise an alert that an endpoint's document, last written at `written` (ns), cannot be read, unless done."""
        key = _key("document", slot.name, written)
        if key not in self._raised:
            self._raise(key, None, _document_alert(slot, refused))

    def composition_refused(self, slot: EndpointState, refused: Refusal) -> None:
        """Raise an alert that a composed endpoint cannot answer as its newest documents say, unless that was done."""
        key = _key("live", slot.name, "composed", refused.revision)
        if key not in self._raised:
            self._raise(key, refused.revision, _composition_alert(slot, refused))

    def settled(self, endpoint: Endpoint, *, with_shadows: bool = True) -> None:
        """Raise an alert that an endpoint's refusals are resolved, if any were reported, and drop their notes.

        Parameters
        ----------
        endpoint
            Its newest document, which is in force or withdraws the endpoint.
        with_shadows
            Whether its shadows were accepted too.
        """
        kinds = ("live", "document", "shadow") if with_shadows else ("live", "document")
        prefixes = tuple(f"{_of_endpoint(kind, endpoint.name)}-" for kind in kinds)
        self._raised = {key for key in self._raised if not key.startswith(prefixes)}
        try:
            if not self._notes(prefixes):
                return
            with locked(self._folder / ".lock"):
                notes = {path: msgspec.json.decode(path.read_bytes(), type=_Raised) for path in self._notes(prefixes)}
                if not notes:
                    return
                # Recorded first, for the reason given in `_raise`.
                recorded = record_alert(self._settings, _settled_alert(endpoint, [*notes.values()]), sinks=self._sinks)
                for path in notes:
                    path.unlink()
        except Exception as error:  # noqa: BLE001 - an alert that fails must not stop the watcher
            self._metrics.alert_failures.labels("file").inc()
            logger.error("%s: the alert that its release is in force cannot be written: %s", endpoint.name, error)
            return
        if recorded.waiting is not None:
            self._send()

    def failed_logs(self) -> set[str]:
        """Models whose log could not be written by some worker, as far as that could be noted."""
        folders = self._settings.inference_log_dir.glob("*/")
        return {folder.name for folder in folders if (self._folder / _log_key(folder.name)).exists()}

    def log_failed(self, model: str, reason: str) -> None:
        """Raise an alert that a model's inference log cannot be written, unless another worker has."""
        alert = Alert(
            model=model,
            kind="inference_log_failed",
            severity="error",
            title="its predictions cannot be logged",
            body=reason,
            facts={"to do": "make room, or mend what the server's log names: servers try again each second"},
        )
        key = _log_key(model)
        self._raise(key, None, alert)
        if key not in self._raised and self._sinks.webhook_url:  # the disk that is full may be that of alerts too
            self._unwritten.add(key)
            self._send(alert)

    def log_recovered(self, model: str) -> None:
        """Raise an alert that a model's inference log can be written again, unless another worker has."""
        key = _log_key(model)
        self._raised.discard(key)
        alert = Alert(
            model=model, kind="inference_log_resolved", severity="info", title="its predictions can be logged again"
        )
        try:
            with locked(self._folder / ".lock"):
                if not (self._folder / key).exists() and key not in self._unwritten:
                    return
                recorded = record_alert(self._settings, alert, sinks=self._sinks)
                (self._folder / key).unlink(missing_ok=True)
                self._unwritten.discard(key)
        except OSError as error:
            self._metrics.alert_failures.labels("file").inc()
            logger.error("%s: the alert that its log works again cannot be written: %s", model, error)
            return
        if recorded.waiting is not None:
            self._send()

    def close(self) -> None:
        """Give an alert that is being sent a moment to arrive."""
        if self._sender is not None:
            self._to_send.put(False)
            self._sender.join(_CLOSE_SECONDS)

    @property
    def _folder(self) -> Path:
        return self._settings.alerts_dir / "told"

    def _notes(self, prefixes: Sequence[str]) -> list[Path]:
        return [path for prefix in prefixes for path in sorted(self._folder.glob(f"{prefix}*"))]

    def _raise(self, key: str, revision: int | None, alert: Alert) -> None:
        """Record and send an alert unless another worker has; if it cannot be written, it is tried again later."""
        waiting = None
        try:
            with locked(self._folder / ".lock"):
                if not (self._folder / key).exists():
                    # Recorded before its note: a crash between the two then repeats an alert instead of losing it.
                    recorded = record_alert(self._settings, alert, sinks=self._sinks)
                    self._raised.add(key)
                    waiting = recorded.waiting
                    note = _Raised(recorded.alert_id, alert.title, revision)
                    replace_file(self._folder / key, msgspec.json.encode(note))
            self._raised.add(key)
        except Exception as error:  # noqa: BLE001 - an alert that fails must not stop the watcher
            self._metrics.alert_failures.labels("file").inc()
            logger.error("%s: the alert '%s' cannot be written: %s", alert.model, alert.title, error)
        if waiting is not None:
            self._send()

    def _send(self, unwritten: Alert | None = None) -> None:
        if self._sender is None:
            # A daemon: a webhook that hangs must not keep a worker from stopping.
            self._sender = threading.Thread(target=self._run, name="alerts", daemon=True)
            self._sender.start()
        self._to_send.put(unwritten or True)

    def _run(self) -> None:
        """Send waiting alerts to the webhook until told to end; while some are left, try again after a pause."""
        pause = 0.0
        while True:
            order: bool | Alert = True
            with suppress(queue.Empty):
                order = self._to_send.get(timeout=pause or None)
            if not order:
                return
            try:
                if isinstance(order, Alert):
                    post_alert(order, sinks=self._sinks)
                failed = bool(deliver_alerts(self._settings, sinks=self._sinks).failed)
                is_left = bool(waiting_alerts(self._settings))
            except Exception as error:  # noqa: BLE001 - whatever a webhook answers, later alerts need this thread
                failed = is_left = True
                logger.error("an alert cannot be sent: %s: %s", type(error).__name__, error)
            if failed:
                self._metrics.alert_failures.labels("webhook").inc()
            pause = min(2 * pause or _RETRY_SECONDS, _LONGEST_RETRY_SECONDS) if is_left else 0.0


def _log_key(model: str) -> str:
    return _of_endpoint("log", model)


def _version_key(endpoint: Endpoint, *, is_shadow: bool) -> str:
    # A store restored from a backup uses revision numbers again: the time tells them apart.
    return _key("shadow" if is_shadow else "live", endpoint.name, endpoint.revision, endpoint.updated_at)


def _key(what: str, name: str, *parts: str | int) -> str:
    """Name of the note of an alert; made of digests, since text of a document may be unsafe in a file name."""
    return f"{_of_endpoint(what, name)}-{_digest(*parts)}"


def _of_endpoint(what: str, name: str) -> str:
    return f"{what}-{_digest(name)}"


def _digest(*parts: str | int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _version_alert(slot: EndpointState, refused: Refusal, endpoint: Endpoint, *, is_shadow: bool) -> Alert:
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
            "to do": f"fix what the reason names, servers check again within 30 seconds; or release another{back}",
        },
    )


def _document_alert(slot: EndpointState, refused: Refusal) -> Alert:
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


def _composition_alert(slot: EndpointState, refused: Refusal) -> Alert:
    return Alert(
        model=slot.name,
        kind="release_refused",
        severity="error",
        title="its members do not answer together" if refused.revision else "its document is refused",
        body=refused.reason,
        facts={
            "endpoint": slot.name,
            "revision": refused.revision,
            "still serves": f"revision {slot.endpoint.revision}, by the members that fitted last"
            if slot.served and slot.endpoint is not None
            else "nothing: requests are answered 503",
            "to do": "release a member that fits, roll the one back that does not, or publish another composition",
        },
    )


def _settled_alert(endpoint: Endpoint, notes: Sequence[_Raised]) -> Alert:
    if not endpoint.targets:
        title = f"resolved: revision {endpoint.revision} takes it out of service"
    elif any(one.revision == endpoint.revision for one in notes):
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
                one.title if one.revision is None else f"{one.title} (revision {one.revision})" for one in notes
            ),
            "alerts": [one.alert_id for one in notes],
        },
    )


def _serving(slot: EndpointState) -> str:
    if slot.endpoint is None:
        return "nothing, as no earlier release may or can serve in its place: requests are answered 503"
    if not slot.served:
        return "nothing: requests are answered 503"
    return f"{describe_targets(live_targets(slot.endpoint))}, revision {slot.endpoint.revision}"
