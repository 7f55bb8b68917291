"""The check of a model's stream: nothing without one, a verdict each minute without a run, and alerts."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.stream_check import CHECK, stream_check_defs
from ml_platform.spec.stream import Stream
from ml_platform.streams.status import PartitionStatus, StreamStatus, write_status

STREAM = Stream.model_validate(
    {"source": {"topic": "requests", "servers": "localhost:9092"}, "sink": {"topic": "answers"}}
)


@pytest.fixture
def spec(shops):
    return shops.spec.model_copy(update={"stream": STREAM})


def put(settings, model: str, **changes) -> None:
    now = datetime.now(UTC)
    status = StreamStatus(
        model=model, part="scorer", worker=1, workers=1, state="running", reason=None, pid=7, host="a", started_at=now,
        updated_at=now, source="topic requests", target="topic answers", answered=12, last_commit_at=now,
        partitions=[PartitionStatus(partition=0, position=9, end=10, waiting=0)],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(status, name, value)
    write_status(settings.streams_dir, status)


def test_a_model_without_a_stream_has_no_check(shops):
    definitions = stream_check_defs(shops.spec)
    assert not definitions.asset_checks
    assert not definitions.sensors


def test_the_sensor_records_a_verdict_that_changed_and_alerts(shops, spec):
    [sensor] = stream_check_defs(spec).sensors or []
    platform = Platform(home=str(shops.settings.home))
    put(shops.settings, spec.name)

    def look(cursor: str | None) -> dg.SensorResult:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform})
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    first = look(None)
    [evaluation] = first.asset_events
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert (evaluation.check_name, evaluation.passed) == (CHECK, True)
    assert evaluation.metadata["answered"].value == 12
    assert look(first.cursor).asset_events == []
    put(shops.settings, spec.name, state="failed", reason="the broker has no topic 'requests'")
    second = look(first.cursor)
    [evaluation] = second.asset_events
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert "scorer failed: the broker has no topic 'requests'" in (evaluation.description or "")
    assert "scorer failed" in (shops.settings.alerts_dir / "alerts.jsonl").read_text()
