"""An approval releases once: nothing that was rolled back, withdrawn or replaced since comes back by it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.approved_release import Answered, answer_and_release, way_into_service
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.traffic import retire_endpoint, withdraw
from ml_platform.registry.version_notes import Archived, NoteWish
from ml_platform_tests.serving.releases import MODEL, bundle


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """Version 1 serves, version 2 waits."""
    store = ReleaseStore(tmp_path)
    for version in (1, 2, 3):
        store.register_version(MODEL, version, store.put_bundle(bundle(version)))
    publish(store, 1)
    store.approvals.set_policy(MODEL, ApprovalPolicy())
    ask(store, 2)
    return store


def ask(store: ReleaseStore, version: int) -> None:
    store.approvals.request(
        MODEL, version, store.versions(MODEL)[version], revision=store.revision(MODEL), by="ann", comment="passed"
    )


def publish(store: ReleaseStore, version: int, action: str = "promotion") -> None:
    target = Target(version=version, digest=store.versions(MODEL)[version])
    store.publish(MODEL, [target], reason="by hand", by="ann", action=action)  # type: ignore[arg-type]


def approve(store: ReleaseStore, version: int = 2) -> Answered:
    return answer_and_release(store, MODEL, version, by="bob", approve=True, comment="fine")


def serving(store: ReleaseStore) -> list[int]:
    document = store.document(MODEL)
    return [target.version for target in document.targets] if document else []


def test_an_approved_version_serves_and_the_same_answer_finds_it_there(store: ReleaseStore) -> None:
    first = approve(store)
    assert (first.endpoint is not None, serving(store), store.revision(MODEL)) == (True, [2], 2)
    assert approve(store) == first


def test_what_was_archived_is_not_approved_and_stays_out_when_it_comes_back(store: ReleaseStore) -> None:
    store.notes.add(MODEL, 2, [NoteWish(action="stage", name="Archived", text="bad data")], by="cleo")
    with pytest.raises(Archived, match=r"archived by cleo .*\(bad data\), and may not serve"):
        approve(store)
    request = store.approvals.get(MODEL, 2)
    assert request is not None
    assert [event.action for event in request.events] == ["approval requested"]
    assert (
        answer_and_release(store, MODEL, 2, by="bob", approve=False, comment="archived").request.events[-1].by == "bob"
    )


def test_a_request_says_why(store: ReleaseStore) -> None:
    for blank in ("", " \t "):
        with pytest.raises(ValueError, match="a request wants a reason"):
            store.approvals.request(MODEL, 3, "ab" * 32, revision=1, by="ann", comment=blank)
    assert store.approvals.get(MODEL, 3) is None


def test_the_way_into_service_is_the_one_that_is_open(store: ReleaseStore) -> None:
    assert way_into_service(store, MODEL, 2).startswith(f"ml-platform approvals request {MODEL} 2 ")
    store.approvals.set_policy(MODEL, None)
    assert way_into_service(store, MODEL, 2).startswith(f"ml-platform promote {MODEL} 2 ")


def test_answers_at_the_same_time_release_once(store: ReleaseStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: approve(store), range(4)))
    assert store.revision(MODEL) == 2
    assert {answer.endpoint.revision for answer in answers if answer.endpoint} == {2}


@pytest.mark.parametrize(
    "since",
    [
        lambda store: publish(store, 1, "rollback"),
        lambda store: withdraw(store, MODEL, by="ann", reason="incident", expected_revision=2),
        lambda store: retire_endpoint(store, MODEL, MODEL, by="ann", reason="replaced"),
    ],
    ids=["rollback", "withdrawal", "retirement"],
)
def test_a_used_approval_brings_nothing_back(store: ReleaseStore, since: Callable[[ReleaseStore], object]) -> None:
    approve(store)
    since(store)
    before = serving(store)
    again = approve(store)
    assert (serving(store), store.revision(MODEL)) == (before, 3)
    assert again.endpoint is not None
    assert again.endpoint.revision == 2  # what the first answer came to


def test_what_changed_since_it_was_asked_for_is_a_persons_to_weigh(store: ReleaseStore) -> None:
    withdraw(store, MODEL, by="eve", reason="incident", expected_revision=1)
    answered = approve(store)
    assert answered.endpoint is None
    assert serving(store) == []
    for said in ("revision 1 → 2", "by eve: incident", f"ml-platform promote {MODEL} 2"):
        assert said in answered.not_released
    publish(store, 2)  # approved it is: by name it may serve
    assert serving(store) == [2]


def test_a_newer_version_is_not_replaced_by_an_older_request(store: ReleaseStore) -> None:
    ask(store, 3)
    approve(store, 3)
    assert serving(store) == [3]
    assert "revision 1 → 2: version 3 (live 100%)" in approve(store, 2).not_released
    assert serving(store) == [3]


def test_a_kill_between_answer_and_release_is_made_up_for_by_the_same_answer(store: ReleaseStore) -> None:
    store.approvals.decide(MODEL, 2, by="bob", approve=True, comment="fine")
    assert serving(store) == [1]
    assert approve(store).endpoint is not None
    assert serving(store) == [2]
