"""Which earlier document may serve while the newest cannot: what was in force last, nothing that was superseded."""

import pytest

from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.traffic import withdraw
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import MODEL, bundle


@pytest.fixture
def store(settings: Settings) -> ReleaseStore:
    return ReleaseStore(settings.releases_dir)


@pytest.fixture
def in_force(settings: Settings, store: ReleaseStore) -> LastKnownGood:
    return LastKnownGood(settings.in_force_dir, store)


def released(store: ReleaseStore, version: int, action: str = "promotion") -> Endpoint:
    targets = [Target(version=version, digest=store.put_bundle(bundle(version)))]
    return store.publish(MODEL, targets, reason="test", by="pytest", action=action)  # type: ignore[arg-type]


def revisions(in_force: LastKnownGood, before: int | None) -> list[int]:
    return [document.revision for document in in_force.fallbacks(MODEL, before)]


def test_it_goes_back_to_what_was_in_force_and_no_further(store: ReleaseStore, in_force: LastKnownGood) -> None:
    documents = [released(store, version) for version in (1, 2, 3, 4)]
    in_force.note(documents[1])
    assert revisions(in_force, 4) == [3, 2]
    assert revisions(in_force, 2) == []  # what was in force is refused itself: what it took the place of stays away
    assert revisions(in_force, None) == [4, 3, 2]
    in_force.note(documents[2])
    assert revisions(in_force, 4) == [3]


def test_what_was_withdrawn_does_not_come_back(store: ReleaseStore, in_force: LastKnownGood) -> None:
    in_force.note(released(store, 1))
    withdraw(store, MODEL, by="pytest", reason="test")
    released(store, 2)
    released(store, 3)
    assert revisions(in_force, 4) == [3]
    assert revisions(in_force, 3) == []


@pytest.mark.parametrize("action", ["rollback", "traffic"])
def test_without_a_note_it_stops_at_what_somebody_set_by_hand(
    store: ReleaseStore, in_force: LastKnownGood, action: str
) -> None:
    released(store, 1)
    released(store, 2)
    released(store, 1, action)
    released(store, 3)
    released(store, 4)
    assert revisions(in_force, 5) == [4, 3]


def test_a_worker_that_is_late_takes_nothing_back_and_a_store_from_a_backup_does(
    settings: Settings, store: ReleaseStore, in_force: LastKnownGood
) -> None:
    first, second, third = (released(store, version) for version in (1, 2, 3))
    in_force.note(second)
    in_force.note(first)
    assert revisions(in_force, 3) == [2]
    in_force.note(third)
    store.endpoint_path(MODEL).write_bytes((store.folder / "history" / MODEL / "00000001.json").read_bytes())
    in_force.note(first)
    assert revisions(in_force, 3) == [2, 1]


def test_a_name_that_no_model_can_have_leads_nowhere(in_force: LastKnownGood) -> None:
    assert list(in_force.fallbacks("../releases", None)) == []


def test_a_note_that_cannot_be_read_is_told(settings: Settings, store: ReleaseStore, in_force: LastKnownGood) -> None:
    in_force.note(released(store, 1))
    (settings.in_force_dir / f"{MODEL}.json").write_text("{")
    with pytest.raises(ValueError, match=f"{MODEL}.json: not a note of what was in force .*; delete it"):
        revisions(in_force, 2)
