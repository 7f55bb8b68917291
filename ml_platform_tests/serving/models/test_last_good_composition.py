"""What a composed endpoint answers by while its members do not fit, or its document is damaged: after a restart too."""

import json
import os
from collections.abc import Callable, Iterator

import msgspec
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.registry.composition import CompositionStore, Ensemble
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models import composed_documents
from ml_platform.serving.models.reloader import Watcher
from ml_platform.settings import Settings
from ml_platform_tests.clock import Clock
from ml_platform_tests.serving.composed_world import ComposedWorld
from ml_platform_tests.serving.in_process import watcher_of
from ml_platform_tests.serving.releases import HASHES, ROW, bundle, fill_online_store, score

REFUSED = "its members do not answer together"
MEAN = (score(1, ROW) + score(20, ROW)) / 2


@pytest.fixture
def restart(settings: Settings) -> Iterator[Callable[[], ComposedWorld]]:
    """Start a worker in place of the one before, of which nothing is left but what is on disk."""
    fill_online_store(settings)
    with open_online_store(settings.online_uri) as online:
        workers: list[ComposedWorld] = []

        def start() -> ComposedWorld:
            workers.append(ComposedWorld(settings, online))
            workers[-1].watcher.poll()
            return workers[-1]

        yield start
        for worker in workers:
            worker.close()


@pytest.fixture
def world(restart: Callable[[], ComposedWorld]) -> ComposedWorld:
    """A mean of two models, and one of it and a third."""
    world = restart()
    for name, version in (("north", 1), ("south", 20), ("west", 30)):
        world.release(name, version)
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    world.compose("outer", ensemble={"members": {"mean": 1, "west": 1}})
    return world


def probability(world: ComposedWorld, name: str = "mean") -> object:
    return world.answer(name, ROW).predictions[0].probability


def test_a_worker_that_starts_answers_by_the_members_that_fitted_last(
    world: ComposedWorld, restart: Callable[[], ComposedWorld]
) -> None:
    world.release("north", 2)
    world.release("north", 1)
    world.release("south", 21, task="regression", threshold=None)
    assert world.alerts() == [REFUSED]
    later = restart()
    for worker in (world, later):
        assert probability(worker) == pytest.approx(MEAN)
        assert worker.answer("mean", ROW).members == {"north": 1, "south": 20}
        assert probability(worker, "outer") == pytest.approx((MEAN + score(30, ROW)) / 2)
        refused = worker.state.slots["mean"].refused
        assert refused is not None
        assert "'south' is regression, and 'north' is binary" in refused.reason
        assert worker.answer("south", ROW).version == 21  # which answers for itself as it was released
    assert later.alerts() == [REFUSED]  # once, whatever starts
    assert 'ml_platform_release_refused{model="mean"} 1.0' in later.metrics.exposition().decode()
    later.release("south", 22)
    world.watcher.poll()
    assert later.answer("mean", ROW).members == world.answer("mean", ROW).members == {"north": 1, "south": 22}
    assert later.alerts() == [REFUSED, "resolved: revision 1, which was refused, is in force"]
    assert restart().answer("outer", ROW).members == {"mean": 1, "west": 30}


def test_what_was_taken_out_of_service_since_is_not_brought_back(
    world: ComposedWorld, restart: Callable[[], ComposedWorld]
) -> None:
    world.store.publish("south", [], reason="over", by="pytest", action="retirement")
    world.watcher.poll()
    assert world.alerts() == [REFUSED]  # of `mean`: that `outer` answers by it needs no other
    assert world.refused("mean", ROW).status == restart().refused("mean", ROW).status == 503
    world.release("south", 21, task="regression", threshold=None)
    assert restart().refused("mean", ROW).status == world.refused("mean", ROW).status == 503


def test_a_note_of_another_release_store_is_not_used(
    world: ComposedWorld, restart: Callable[[], ComposedWorld], settings: Settings
) -> None:
    world.release("south", 21, task="regression", threshold=None)
    note = settings.in_force_dir / "composed" / "mean.json"
    content = json.loads(note.read_text())
    content["endpoints"]["south"]["updated_at"] = "2013-01-01T00:00:00.000Z"
    note.write_text(json.dumps(content))
    assert restart().refused("mean", ROW).status == 503
    note.write_text("{")
    later = restart()
    assert later.refused("mean", ROW).status == 503
    later.release("south", 22)
    assert later.answer("mean", ROW).members == {"north": 1, "south": 22}


def test_a_worker_that_is_late_does_not_note_what_was_replaced(
    world: ComposedWorld, restart: Callable[[], ComposedWorld], settings: Settings
) -> None:
    note, late = settings.in_force_dir / "composed" / "mean.json", restart()
    [old] = late.state.slots["mean"].served
    world.release("south", 21)
    newest = note.read_bytes()
    late.watcher._composed._last_good.note(old)  # type: ignore[arg-type]
    assert note.read_bytes() == newest
    late.watcher.poll()
    assert note.read_bytes() == newest


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"{",
        lambda text: text.replace(b'"north": 0.5', b'"north": -0.5'),
        lambda text: text.replace(b'"north": 0.5', b'"north": 0.9'),
        lambda text: text.replace(b'"north"', b'"../north"'),
        lambda text: text.replace(b'"threshold": null', b'"threshold": 7'),
        lambda text: text.replace(b'"name": "mean"', b'"name": "other"'),
        lambda text: text.replace(b'"ensemble"', b'"pipeline"'),
        lambda text: text.replace(b'"revision"', b'"revison"'),
    ],
)
def test_a_damaged_document_leaves_what_served(
    world: ComposedWorld, restart: Callable[[], ComposedWorld], damage: Callable[[bytes], bytes]
) -> None:
    compositions = CompositionStore(world.store)
    path = compositions.path("mean")
    before = path.read_bytes()
    assert damage(before) != before
    path.write_bytes(damage(before))
    os.utime(path, (0, 0))  # long ago: nobody is writing it
    world.watcher.poll()
    for worker in (world, restart()):
        assert probability(worker) == pytest.approx(MEAN)
        assert worker.answer("outer", ROW).members == {"mean": 1, "west": 30}
        refused = worker.state.slots["mean"].refused
        assert refused is not None
        assert (refused.revision, "compositions/mean.json" in refused.reason) == (0, True)
    assert world.alerts() == ["its document is refused"]
    world.compose("mean", ensemble={"members": {"north": 3, "south": 1}})  # as its message says
    assert compositions.get("mean").revision == 2  # type: ignore[union-attr]
    assert world.answer("mean", ROW).version == 2
    assert world.state.slots["mean"].refused is None
    assert restart().answer("mean", ROW).version == 2


def test_without_a_note_a_damaged_document_is_told(settings: Settings, restart: Callable[[], ComposedWorld]) -> None:
    path = CompositionStore(ReleaseStore(settings.releases_dir)).path("mean")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    worker = restart()
    assert "mean" not in worker.state.slots  # it may be half written
    os.utime(path, (0, 0))
    worker.watcher.poll()
    refused = worker.refused("mean", ROW)
    assert (refused.status, refused.code) == (503, "model_unavailable")
    assert "not a composed endpoint" in refused.message


def test_two_that_were_published_at_once_do_not_lead_to_each_other(
    world: ComposedWorld, restart: Callable[[], ComposedWorld]
) -> None:
    compositions = CompositionStore(world.store)
    of = Ensemble(members={"outer": 0.5, "north": 0.5})
    with pytest.raises(ValueError, match="it leads back to itself: mean → outer → mean"):
        compositions.publish("mean", of, description="", owner="", reason="x", by="pytest")  # as one that was checked
    document = compositions.get("mean")
    assert document is not None
    closed = msgspec.structs.replace(document, of=of, revision=2)
    compositions.path("mean").write_bytes(msgspec.json.encode(closed))  # by hand
    world.watcher.poll()
    for worker in (world, restart()):
        assert probability(worker) == pytest.approx(MEAN)
        assert probability(worker, "outer") == pytest.approx((MEAN + score(30, ROW)) / 2)
        refused = worker.state.slots["mean"].refused
        assert refused is not None
        assert "it leads back to itself" in refused.reason


def test_what_is_kept_stops_when_its_feature_views_change(
    world: ComposedWorld, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.now = 1e9  # later than what the machine's own clock has shown
    monkeypatch.setattr(composed_documents, "time", clock)
    world.release("south", 21, task="regression", threshold=None)
    assert probability(world) == pytest.approx(MEAN)
    hashes = dict.fromkeys(HASHES, "d" * 64)
    fill_online_store(settings, hashes=hashes)
    manifest = msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest)
    lookups = tuple(msgspec.structs.replace(one, view_hash="d" * 64) for one in manifest.lookups)
    world.release("north", 2, lookups=lookups)
    world.release("south", 22, lookups=lookups, task="regression", threshold=None)
    assert world.answer("north", ROW).version == 2
    clock.now += composed_documents.RETRY_SECONDS + 1
    world.watcher.poll()
    assert world.refused("mean", ROW).status == 503
    world.release("south", 23, lookups=lookups)
    assert world.answer("mean", ROW).members == {"north": 2, "south": 23}


def test_who_looks_at_one_model_leaves_composed_endpoints_alone(world: ComposedWorld, settings: Settings) -> None:
    with open_online_store(settings.online_uri) as online:
        alone = watcher_of(settings, online, world.state, world.metrics)
        assert isinstance(alone, Watcher)
        alone._names = "north"
        before = dict(world.state.slots)
        alone.poll()
    assert world.state.slots["mean"] is before["mean"]
    assert world.alerts() == []
