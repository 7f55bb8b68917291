"""The release store as one worker polls it, poll by poll."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models import reloader
from ml_platform.serving.models.reloader import Watcher
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform_tests.clock import Clock
from ml_platform_tests.serving.in_process import watcher_of
from ml_platform_tests.serving.releases import MODEL, fill_online_store, publish


@dataclass
class Worker:
    """A worker's watcher, whose clock stands still."""

    settings: Settings
    state: ServingState
    watcher: Watcher
    clock: Clock

    def poll(self) -> EndpointState:
        self.watcher.poll()
        return self.state.slots[MODEL]

    def revision(self) -> int:
        endpoint = self.poll().endpoint
        assert endpoint is not None
        return endpoint.revision

    def alerts(self) -> int:
        file = self.settings.alerts_dir / "alerts.jsonl"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    fill_online_store(settings)
    publish(settings, 1)
    clock = Clock()
    monkeypatch.setattr(reloader, "time", clock)
    state = ServingState({})
    with open_online_store(settings.online_uri) as online:
        yield Worker(settings, state, watcher_of(settings, online, state, Metrics()), clock)


def test_a_document_has_a_second_to_be_written_in_place(worker: Worker) -> None:
    path = ReleaseStore(worker.settings.releases_dir).endpoint_path(MODEL)
    newer = path.read_bytes().replace(b'"revision": 1', b'"revision": 2')
    assert worker.revision() == 1
    for part in (b"", newer[:100]):
        path.write_bytes(part)
        worker.clock.now = path.stat().st_mtime + 0.9
        assert [worker.poll().refused for _ in range(3)] == [None] * 3
    worker.clock.now += 0.2
    assert worker.poll().refused is not None
    assert (worker.revision(), worker.alerts()) == (1, 1)
    path.write_bytes(newer)
    assert (worker.revision(), worker.poll().refused) == (2, None)


def test_a_half_written_document_of_the_future_is_refused_at_once(worker: Worker) -> None:
    """A machine whose clock runs ahead wrote it: nobody knows how old it is."""
    path = ReleaseStore(worker.settings.releases_dir).endpoint_path(MODEL)
    worker.poll()
    path.write_bytes(b"{")
    worker.clock.now = path.stat().st_mtime
    os.utime(path, (worker.clock.now, worker.clock.now + 3600))
    assert worker.poll().refused is not None


def test_what_serves_survives_the_loss_of_the_release_store(worker: Worker) -> None:
    (served,) = worker.poll().served
    shutil.rmtree(worker.settings.releases_dir)
    for _ in range(3):
        worker.clock.now += reloader.RELOAD_SECONDS
        assert worker.poll().served == (served,)
    assert worker.alerts() == 0
