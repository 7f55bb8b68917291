"""The parts of a serving worker in this process: what is released is loaded by hand, poll by poll."""

from ml_platform.features.online.store import OnlineStore
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.reloader import Watcher
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings


def alerts_of(settings: Settings, metrics: Metrics) -> ReleaseAlerts:
    """Alerts that are recorded and sent nowhere."""
    return ReleaseAlerts(settings, metrics, AlertSettings(webhook_url=""))


def watcher_of(settings: Settings, online: OnlineStore, state: ServingState, metrics: Metrics) -> Watcher:
    """What loads the releases of a home into `state`, whenever `poll` is called."""
    store = ReleaseStore(settings.releases_dir)
    return Watcher(
        state, store, online, metrics, alerts_of(settings, metrics),
        in_force=LastKnownGood(settings.in_force_dir, store), keys_dir=settings.keys_dir,
    )  # fmt: skip
