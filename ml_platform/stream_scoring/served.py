"""What serves a model now, kept up to date by a thread: the same documents, checks and swaps as a server's."""

import logging
import threading

from ml_platform.features.online.open import open_online_store
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.reloader import POLL_SECONDS, Watcher
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings

logger = logging.getLogger("streams")


class Served:
    """The endpoint of one model.

    Parameters
    ----------
    model
        Its name.
    settings, options
        Where releases and online store are, and what happens when that cannot be read.
    metrics
        Of serving, which tell version and refusals.
    """

    def __init__(self, model: str, settings: Settings, options: ServingSettings, metrics: Metrics) -> None:
        self._model, self._state = model, ServingState({})
        self._alerts = ReleaseAlerts(settings, metrics)
        releases = ReleaseStore(settings.releases_dir)
        self._watcher = Watcher(
            self._state,
            releases,
            open_online_store(settings.online_uri),
            metrics,
            self._alerts,
            in_force=LastKnownGood(settings.in_force_dir, releases),
            keys_dir=settings.keys_dir,
            fallback=options.online_fallback,
            only=model,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="releases", daemon=True)
        self._alerts.start()
        self._watcher.poll()
        self._thread.start()

    def slot(self) -> EndpointState | None:
        """The endpoint as of now; None when there is none. Read once per micro-batch."""
        return self._state.slots.get(self._model)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()
        self._alerts.close()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                self._watcher.poll()
            except Exception:  # what served goes on serving
                logger.exception("%s: its release could not be looked at", self._model)
