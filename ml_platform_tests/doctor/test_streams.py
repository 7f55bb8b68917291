"""What the doctor says of streams: declared ones without a worker, those that do well, and what is left of others."""

from datetime import UTC, datetime

import pytest

from ml_platform.doctor.streams import streams
from ml_platform.streams.status import StreamStatus, write_status
from ml_platform_tests.stream_scoring.sourced_world import SourcedWorld


@pytest.fixture
def world(tmp_path, monkeypatch):
    source, sink = {"type": "folder", "path": str(tmp_path)}, {"table": "streams/flights"}
    world = SourcedWorld(tmp_path / "world", source, sink, lambda values: None)
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(world.project))
    return world


def put(world: SourcedWorld, model: str) -> None:
    now = datetime.now(UTC)
    status = StreamStatus(
        model=model, part="scorer", worker=1, workers=1, state="running", reason=None, pid=7, host="a", started_at=now,
        updated_at=now, source="folder in", target="table streams/flights",
    )  # fmt: skip
    write_status(world.settings.streams_dir, status)


def test_a_declared_stream_without_a_worker_is_said(world):
    [finding] = streams(world.settings)
    assert finding.status == "warning"
    assert finding.message == "flight_delay: no worker has run here yet"
    assert "ml-platform stream run flight_delay" in finding.remedy


def test_a_stream_that_does_well_and_one_that_is_declared_no_more(world):
    put(world, "flight_delay")
    put(world, "forgotten")
    well, left = streams(world.settings)
    assert (well.status, well.message) == ("ok", "flight_delay: its workers run and are not behind")
    assert left.message == "forgotten declares no stream, and workers of one have run here"
