"""The check of a model's stream, and the sensor that looks at it each minute."""

import json

import dagster as dg

from ml_platform.orchestration.automation import sensor_status
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.model_asset import key
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.model import ModelSpec

CHECK = "stream_current"


def stream_check_key(spec: ModelSpec) -> dg.AssetCheckKey:
    """Key of the check of the model's stream."""
    return dg.AssetCheckKey(key(spec, "inference_log"), CHECK)


def stream_check_defs(spec: ModelSpec) -> dg.Definitions:
    """Build the check `stream_current` and the sensor `<model>_stream_sensor`; nothing for a model without a stream.

    The sensor records the check without starting a run, when the verdict changed and once an hour, and alerts people.
    """
    if spec.stream is None:
        return dg.Definitions()

    @dg.asset_check(
        asset=key(spec, "inference_log"),
        name=CHECK,
        description="Workers of the stream run, are not behind, and answer what comes: the bounds are `stream.alerts`.",
    )
    def stream_current(platform: Platform) -> dg.AssetCheckResult:
        passed, description, metadata = _judged(platform, spec)
        return dg.AssetCheckResult(passed=passed, severity=_severity(spec), description=description, metadata=metadata)

    @dg.sensor(
        name=f"{spec.name}_stream_sensor",
        minimum_interval_seconds=60,
        default_status=sensor_status(),
        description=f"Looks at the stream of {spec.name}, alerts when it does not do well, and records the check.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
        import time

        passed, description, metadata = _judged(platform, spec)
        last = json.loads(context.cursor) if context.cursor else {}
        if last.get("passed") == passed and time.time() - last.get("at", 0.0) < 3600:
            return dg.SensorResult(skip_reason=description)
        evaluation = dg.AssetCheckEvaluation(
            asset_key=key(spec, "inference_log"), check_name=CHECK, passed=passed, severity=_severity(spec),
            description=description, metadata=metadata,
        )  # fmt: skip
        return dg.SensorResult(asset_events=[evaluation], cursor=json.dumps({"passed": passed, "at": time.time()}))

    return dg.Definitions(asset_checks=[stream_current], sensors=[sensor])


def _severity(spec: ModelSpec) -> dg.AssetCheckSeverity:
    assert spec.stream is not None
    return dg.AssetCheckSeverity.ERROR if spec.stream.alerts.severity == "error" else dg.AssetCheckSeverity.WARN


def _judged(platform: Platform, spec: ModelSpec) -> tuple[bool, str, dict[str, dg.MetadataValue]]:
    """Whether the stream does well, in words, and how its workers are."""
    from ml_platform.monitoring.stream_health import newest_workers, watch_stream
    from ml_platform.streams.status import read_statuses

    assert spec.stream is not None
    findings = watch_stream(platform.settings, spec.name, spec.stream)
    statuses = newest_workers(read_statuses(platform.settings.streams_dir, spec.name))
    firing = [one.text for one in findings if one.firing]
    scorers = [one for one in statuses if one.part == "scorer"]
    workers = [
        {
            "part": one.part, "worker": f"{one.worker}/{one.workers}", "state": one.state, "waiting": one.waiting,
            "answered": one.answered, "dead letters": one.dead_letters, "last commit": str(one.last_commit_at),
        }
        for one in statuses
    ]  # fmt: skip
    metadata: dict[str, dg.MetadataValue] = {
        "messages that wait": dg.MetadataValue.int(sum(one.waiting for one in scorers)),
        "answered": dg.MetadataValue.int(sum(one.answered for one in scorers)),
        "dead letters": dg.MetadataValue.int(sum(one.dead_letters for one in scorers)),
        "rows per second": dg.MetadataValue.float(float(sum(one.rows_per_second for one in scorers))),
        **({"workers": table(workers)} if workers else {}),
    }
    return not firing, "; ".join(firing or [one.text for one in findings]), metadata
