"""The sensor that sends what waits for the webhook, so that no step of a run waits for it."""

import dagster as dg

from ml_platform.orchestration.resources import Platform

SENSOR = "alert_delivery"


@dg.sensor(
    name=SENSOR,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends the alerts that wait to ML_PLATFORM_ALERT_WEBHOOK_URL.",
)
def alert_delivery(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    """Offer every waiting alert that is due; starts no run."""
    from ml_platform.monitoring.alerts.alert import waiting_alerts
    from ml_platform.monitoring.alerts.delivery import deliver_alerts

    if not waiting_alerts(platform.settings):
        return dg.SkipReason("no alert waits")
    delivery = deliver_alerts(platform.settings)
    for reason in delivery.failed.values():
        context.log.error(reason)
    left = len(waiting_alerts(platform.settings))
    return dg.SkipReason(f"{len(delivery.sent)} alerts sent, {left} left")
