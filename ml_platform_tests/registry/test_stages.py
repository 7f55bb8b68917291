"""What people say of versions is kept as it was said, and the stage that they choose never contradicts what serves."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stages import StageRefused, choose_stage, current_state
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.registry.version_chart import chart_versions
from ml_platform.registry.version_facts import facts_of
from ml_platform.registry.version_notes import MOST_TAGS, Archived, NoteWish
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import MODEL, bundle, publish


@pytest.fixture
def store(settings: Settings) -> ReleaseStore:
    """Version 1 served, 2 serves, 3 and 4 are registered."""
    store = ReleaseStore(settings.releases_dir)
    for version in range(1, 5):
        store.register_version(MODEL, version, store.put_bundle(bundle(version)))
    publish(settings, 1)
    publish(settings, 2)
    return store


def move(store: ReleaseStore, version: int, stage: Any, **options: Any) -> str:
    choose_stage(store, MODEL, version, stage, by="ann", reason="for a test", **options)
    return current_state(store, MODEL).stages[version]


def serve(store: ReleaseStore, *versions: int, shadow: int | None = None) -> None:
    known = store.versions(MODEL)
    targets = [Target(version=one, digest=known[one], share=1 / len(versions)) for one in versions]
    if shadow is not None:
        targets.append(Target(version=shadow, digest=known[shadow], share=0.0, mode="shadow"))
    store.publish(MODEL, targets, reason="for a test", by="ann")


def test_a_chosen_stage_holds_until_the_version_serves(store: ReleaseStore) -> None:
    assert current_state(store, MODEL).stages == {1: "Archived", 2: "Production", 3: "None", 4: "Staging"}
    assert move(store, 3, "Staging") == "Staging"
    assert current_state(store, MODEL).aliases == {"champion": 2, "challenger": 4}
    assert move(store, 4, "Archived") == "Archived"
    assert current_state(store, MODEL).aliases == {"champion": 2, "challenger": 3}
    assert move(store, 4, "None") == "None"
    serve(store, 3)
    assert current_state(store, MODEL).stages == {1: "Archived", 2: "Archived", 3: "Production", 4: "None"}


def test_what_an_archived_version_may_not(store: ReleaseStore) -> None:
    move(store, 3, "Archived")
    for attempt in (lambda: serve(store, 3), lambda: serve(store, 2, shadow=3)):
        with pytest.raises(Archived, match=r"version 3 was archived by ann .*may not serve; .*models unarchive"):
            attempt()
    assert store.revision(MODEL) == 2
    move(store, 3, "None")
    serve(store, 3)


@pytest.mark.parametrize(
    ("version", "stage", "message"),
    [
        (2, "Archived", r"cannot be archived: it answers requests of flight_delay .*promote another version"),
        (2, "None", "cannot be put into no stage: it answers requests"),
        (1, "Archived", r"a rollback of flight_delay goes back to it: archive it all the same with --force"),
        (3, "Production", r"version 3 is None. Production is what answers requests; to let it: ml-platform promote"),
        (4, "Archived", "it waits for an approval, asked for by bob: ml-platform approvals reject"),
    ],
)
def test_what_stands_against_a_stage_is_said(store: ReleaseStore, version: int, stage: Any, message: str) -> None:
    store.approvals.set_policy(MODEL, ApprovalPolicy())
    store.approvals.request(MODEL, 4, store.versions(MODEL)[4], revision=2, by="bob", comment="passed")
    with pytest.raises(StageRefused, match=message):
        move(store, version, stage)
    assert all(not notes.events for notes in store.notes.all(MODEL))


def test_shadows_rollbacks_and_repetition(store: ReleaseStore) -> None:
    serve(store, 2, shadow=3)
    with pytest.raises(StageRefused, match="it is a shadow of flight_delay"):
        move(store, 3, "Archived")
    assert move(store, 1, "Archived", force=True) == "Archived"
    assert move(store, 1, "Archived") == "Archived"
    assert len(store.notes.load(MODEL, 1).events) == 1  # said once
    assert move(store, 2, "Production") == "Production"
    assert store.notes.load(MODEL, 2).events == ()


def test_archiving_and_releasing_at_once_ends_in_one_of_both(store: ReleaseStore) -> None:
    for _ in range(10):

        def attempt(work: Callable[[], object]) -> bool:
            try:
                work()
            except (StageRefused, Archived):
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(attempt, [lambda: move(store, 3, "Archived"), lambda: serve(store, 3)]))
        assert sorted(done) == [False, True]
        if done[0]:
            move(store, 3, "None")
        serve(store, 2)


def test_notes_only_grow_and_say_who(store: ReleaseStore) -> None:
    def say(by: str, *wishes: NoteWish) -> None:
        store.notes.add(MODEL, 3, wishes, by=by)

    say("ann", NoteWish(action="comment", text="odd on Sundays"), NoteWish(action="tag", name="risk", text="low"))
    say("bob", NoteWish(action="comment", text="timetable", answers=1), NoteWish(action="tag", name="risk", text="low"))
    say("eve", NoteWish(action="tag removed", name="risk"), NoteWish(action="description", text="new carriers"))
    say("ann", NoteWish(action="comment", text="thanks", answers=2), NoteWish(action="comment", text="another matter"))
    notes = store.notes.load(MODEL, 3)
    assert [(depth, number, one.by) for depth, number, one in notes.thread] == [
        (0, 1, "ann"), (1, 2, "bob"), (2, 3, "ann"), (0, 4, "ann")
    ]  # fmt: skip
    assert (notes.tags, notes.description) == ({}, "new carriers")
    assert [event.action for event in notes.events].count("tag") == 1  # the same again says nothing new
    assert store.notes.load(MODEL).events == ()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (NoteWish(action="comment", text="  "), "comment: wanted some text, found none"),
        (NoteWish(action="comment", text="x" * 4001), "comment: wanted at most 4,000 characters, found 4,001"),
        (NoteWish(action="comment", text="x", answers=3), "there is no comment 3 to answer; there are 1"),
        (NoteWish(action="tag", name="stage", text="x"), "'stage' is written by the platform"),
        (NoteWish(action="tag", name="a b", text="x"), "tag: wanted a name of a letter"),
        (NoteWish(action="tag removed", name="gone"), "there is no tag 'gone'; there are none"),
    ],
)
def test_a_wrong_part_keeps_all_of_it_out(store: ReleaseStore, wish: NoteWish, message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        store.notes.add(MODEL, 1, [NoteWish(action="comment", text="fine"), wish], by="ann")
    assert store.notes.load(MODEL, 1).events == ()


def test_many_writers_lose_nothing(store: ReleaseStore) -> None:
    def say(number: int) -> None:
        store.notes.add(MODEL, 1, [NoteWish(action="comment", text=f"{number}")], by="ann")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(say, range(20)))
    assert sorted(int(one.text) for one in store.notes.load(MODEL, 1).comments.values()) == list(range(20))


def test_unknown_and_damaged_are_told(store: ReleaseStore) -> None:
    with pytest.raises(LookupError, match="flight_delay: no version 9 is registered; there are 1, 2, 3, 4"):
        facts_of(store, MODEL, 9)
    with pytest.raises(LookupError, match=r"no model '\.\./x' has a registered version"):
        store.check_version("../x")
    with pytest.raises(ValueError, match="model name: wanted"):
        store.notes.load("../x")
    store.notes.add(MODEL, 3, [NoteWish(action="comment", text="fine")], by="ann")
    (store.folder / "notes" / MODEL / "3.json").write_text("{")
    with pytest.raises(DocumentUnreadable, match="not notes of people"):
        serve(store, 3)  # whether it was archived is not known


def test_a_version_without_bundle_says_so_and_is_left_out_of_the_chart(store: ReleaseStore) -> None:
    digest = store.versions(MODEL)[3]
    for path in store.bundle_path(digest).iterdir():
        path.unlink()
    store.bundle_path(digest).rmdir()
    facts = facts_of(store, MODEL, 3)
    assert facts.missing[0] == f"its bundle {digest[:12]} is gone from bundles/: restore it from a backup"
    assert facts.missing[1].startswith("it has no card")
    chart = chart_versions(store, MODEL)
    assert [point.version for point in chart.points] == [1, 2, 4]
    assert chart.left_out[0].startswith(f"version 3 has no {chart.metric} (its bundle")
    assert [len(point.released) for point in chart.points] == [1, 1, 0]
    assert str(chart.svg()).count("<circle") == 3
    assert "▲ began to answer requests" in chart.note
    assert "◇" not in chart.note
    assert not {"▲", "◇"} & set(chart.lines()[-1])  # a terminal draws neither
    with pytest.raises(LookupError, match="no version has the metric 'nope'; there are"):
        chart_versions(store, MODEL, "nope")
    with pytest.raises(LookupError, match="has no bundle any more, and cannot be put into Staging"):
        move(store, 3, "Staging")


def test_texts_with_control_characters_and_tags_without_end_are_refused(store: ReleaseStore) -> None:
    wished = [NoteWish(action="comment", text="nul \x00 here"), NoteWish(action="tag", name="risk", text="\x1b[2J")]
    for wish in wished:
        with pytest.raises(ValueError, match=f"{wish.action}: wanted text, found the control character U\\+00"):
            store.notes.add(MODEL, 2, [wish], by="ann")
    tags = [NoteWish(action="tag", name=f"t{number}", text="x") for number in range(MOST_TAGS)]
    store.notes.add(MODEL, 2, tags, by="ann")
    store.notes.add(MODEL, 2, [NoteWish(action="tag", name="t0", text="changed")], by="ann")
    with pytest.raises(ValueError, match="at most 100 tags"):
        store.notes.add(MODEL, 2, [NoteWish(action="tag", name="more", text="x")], by="ann")
    with pytest.raises(ValueError, match="'reproduced' is written by the platform"):
        store.notes.add(MODEL, 2, [NoteWish(action="tag", name="reproduced", text="equal")], by="ann")
