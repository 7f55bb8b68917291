"""When a stream is said not to do well, and that people are told once when it begins and once when it ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.monitoring.stream_health import judge_stream, watch_stream
from ml_platform.spec.stream import Stream
from ml_platform.streams.status import PartitionStatus, StreamStatus, write_status

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
STREAM = Stream.model_validate(
    {
        "source": {"topic": "requests", "servers": "localhost:9092"},
        "sink": {"topic": "answers"},
        "alerts": {"max_waiting": 100, "max_age": "1 minute", "max_dead_letters": 0.1},
    }
)


def status(**changes) -> StreamStatus:
    waiting = changes.pop("waiting", 0)
    known: dict[str, Any] = {
        "model": "flight_delay", "part": "scorer", "worker": 1, "workers": 1, "state": "running", "reason": None,
        "pid": 7, "host": "a", "started_at": NOW - timedelta(hours=1), "updated_at": NOW, "source": "topic requests",
        "target": "topic answers", "answered": 1000, "last_commit_at": NOW,
        "partitions": [PartitionStatus(partition=0, position=9, end=10 + waiting, waiting=waiting)],
    }  # fmt: skip
    return StreamStatus(**(known | changes))


def firing(*statuses: StreamStatus) -> dict[str, str]:
    return {one.kind: one.text for one in judge_stream(STREAM, statuses, NOW) if one.firing}


def test_a_stream_that_does_well_is_left_alone():
    assert firing(status(waiting=100), status(part="sink", answered=5)) == {}
    assert firing(status(dead_letters=100, refused={"late": 100})) == {}
    assert firing(status(waiting=5, waiting_since=NOW - timedelta(seconds=59))) == {}
    assert firing(status(last_commit_at=NOW - timedelta(days=3))) == {}  # nothing waits
    # The first message after quiet days: it is young, though the last commit is not.
    assert firing(status(waiting=1, last_commit_at=NOW - timedelta(days=3), waiting_since=NOW)) == {}
    assert firing(status(state="waiting", reason="no broker", started_at=NOW - timedelta(seconds=20))) == {}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"waiting": 101}, "stream_lag", "101 messages wait, at most 100 may"),
        (
            {"waiting": 5, "waiting_since": NOW - timedelta(seconds=90)},
            "stream_age",
            "messages wait, and none was committed for 90 seconds, at most 1 minute may pass",
        ),
        (
            {"dead_letters": 200, "refused": {"late": 150, "broken": 50}},
            "stream_dead_letters",
            "200 of 1,200 messages are dead letters (50 broken, 150 late)",
        ),
        ({"updated_at": NOW - timedelta(minutes=1)}, "stream_down", "scorer is gone: process 7 on a, last seen 11:59"),
        ({"state": "failed", "reason": "no topic"}, "stream_down", "scorer failed: no topic"),
        ({"state": "stopped"}, "stream_down", "scorer stopped"),
        ({"state": "waiting", "reason": "no broker"}, "stream_down", "scorer waits: no broker"),
    ],
)
def test_what_goes_on_is_said(changes, kind, text):
    found = firing(status(**changes))
    assert list(found) == [kind]
    assert found[kind].startswith(text)


def test_no_worker_and_missing_workers_are_said():
    assert firing() == {"stream_down": "no worker has run here yet"}
    assert firing(status(workers=2)) == {"stream_down": "scorer 2 of 2 has not run here"}
    gone = status(workers=3, worker=3, updated_at=NOW - timedelta(hours=2))  # there were three, now there is one
    assert firing(gone, status()) == {}


def test_bounds_can_be_left_out():
    stream = STREAM.model_copy(
        update={
            "alerts": STREAM.alerts.model_copy(update={"max_waiting": None, "max_age": None, "max_dead_letters": None})
        }
    )
    assert [one.kind for one in judge_stream(stream, [status(waiting=10**6)], NOW)] == ["stream_down"]


def test_people_are_told_when_it_begins_and_when_it_ends(settings):
    sinks = AlertSettings(webhook_url="")
    for minute, waiting in enumerate((500, 600, 700, 0)):
        now = NOW + timedelta(minutes=minute)
        write_status(settings.streams_dir, status(waiting=waiting, updated_at=now, last_commit_at=now))
        watch_stream(settings, "flight_delay", STREAM, sinks=sinks, now=now)
    lines = (settings.alerts_dir / "alerts.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert "500 messages wait" in lines[0]
    assert "resolved: 700 messages wait" in lines[1]
