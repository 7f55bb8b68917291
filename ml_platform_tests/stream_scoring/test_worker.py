"""A worker as people start it: what it answers, what it refuses, how it ends and goes on."""

import json

import msgspec
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.inference.outcomes import read_outcomes
from ml_platform.monitoring.canary.advance import judge
from ml_platform.registry.canary import start_walk
from ml_platform.registry.manifest import CanaryPolicy
from ml_platform.registry.releases import ReleaseStore
from ml_platform.stream_scoring.worker import FAILED, FENCED, STOPPED
from ml_platform_tests.serving.releases import INPUTS, MODEL, bundle, score
from ml_platform_tests.stream_scoring.world import flight

STRICT = tuple(msgspec.structs.replace(one, allowed=("AA", "B6")) if one.name == "carrier" else one for one in INPUTS)


def test_answers_are_those_of_http_and_a_restart_goes_on(make_world):
    world = make_world(stream={"mapping": {"key": "booking.code"}})
    world.send([{**flight(n), "booking": {"code": n, "seat": "4A"}} for n in range(3)])
    worker = world.start()
    world.wait_for(3)
    assert world.stop(worker) == STOPPED
    world.send([flight(3)])
    worker = world.start()
    world.wait_for(4)
    assert world.stop(worker) == STOPPED
    answers = world.answered()
    assert list(answers) == [0, 1, 2, 3]
    for number, answer in answers.items():
        assert answer["probability"] == pytest.approx(score(3, flight(number)))
        assert (answer["model"], answer["version"], answer["position"]) == ("flight_delay", 3, number)
        assert answer["id"] == f"f{number}"
    assert [answer.get("key") for answer in answers.values()] == [0, 1, 2, None]
    assert world.refused() == {}
    assert "partition 0 from the start" in world.log()
    assert "partition 0 after 2" in world.log()
    assert world.status().state == "stopped"
    # The same log as of HTTP, with the place that each answer names.
    ingest_log(world.lake, world.settings)
    logged = world.lake.read(f"inference_log/{MODEL}").collect()
    assert logged["caller"].unique().to_list() == ["stream"]
    places = {(row["request_id"], row["row"]): row for row in logged.iter_rows(named=True)}
    for answer in answers.values():
        row = places[answer["request_id"], answer["row"]]
        assert (row["id"], row["score"]) == (answer["id"], answer["probability"])
        assert json.loads(row["inputs"])["carrier"]


def test_what_cannot_be_answered_is_a_dead_letter_and_the_rest_is_answered(make_world):
    messages = [
        flight(0),
        b'{"carrier": "UA"',
        None,
        flight(3, distance=-1.0),
        flight(4, distance="far", carrier=None),
        flight(5, scheduled_departure="2013-07-01T12:00:00"),
        b"\xff\xfe",
        [1, 2],
        flight(8, unknown_to_the_model={"a": [1]}),
        flight(9, booked_at="2013-01-01T00:00:00Z"),
        flight(10),
        b'{"distance": 1, ' + json.dumps(flight(11)).encode()[1:],
    ]
    world = make_world(table=True)
    world.send(messages)
    worker = world.start()
    world.wait_for(len(messages))
    world.wait_until(lambda: world.table().height == 4, "the answers are in the table")
    world.wait_until(lambda: world.table("streams/flights_dead_letters").height == 8, "the dead letters are")
    assert world.stop(worker) == STOPPED
    assert list(world.answered()) == [0, 8, 9, 10]
    refused = world.refused()
    kinds = {position: letter["kind"] for position, letter in refused.items()}
    broken, contract = dict.fromkeys((1, 2, 6, 7), "broken"), dict.fromkeys((3, 4, 5, 11), "contract")
    assert kinds == broken | contract
    assert refused[11]["faults"] == [{"field": "distance", "message": "appears twice"}]
    assert refused[3]["faults"] == [
        {"field": "distance", "message": "wanted a finite number of at least 0 and at most 6000, found -1.0"}
    ]
    assert {fault["field"] for fault in refused[4]["faults"]} == {"carrier", "distance"}
    assert refused[1]["value"] == '{"carrier": "UA"'
    assert (refused[6].get("value"), refused[6]["value_base64"]) == (None, "//4=")
    rows = world.table()
    assert rows["position"].to_list() == [0, 8, 9, 10]
    assert rows["probability"].to_list() == [answer["probability"] for answer in world.answered().values()]
    letters = world.table("streams/flights_dead_letters")
    assert letters["value_bytes"].to_list()[5] == b"\xff\xfe"
    status = world.status()
    assert (status.answered, status.dead_letters, status.refused) == (4, 8, {"broken": 4, "contract": 4})


def test_late_messages_are_dead_letters_by_when_they_arrived(make_world):
    mapping = {"timestamp": "at"}
    world = make_world(stream={"mapping": mapping, "late_after": "1 hour"})
    world.send(
        [flight(0, at="2013-07-01T00:00:00Z"), flight(1, at="2999-01-01T00:00:00Z"), flight(2), flight(3, at="x")]
    )
    worker = world.start()
    world.wait_for(4)
    world.stop(worker)
    assert list(world.answered()) == [1]
    assert world.answered()[1]["event_at"] == "2999-01-01T00:00:00Z"
    assert {position: letter["kind"] for position, letter in world.refused().items()} == {
        0: "late",
        2: "broken",
        3: "broken",
    }
    assert "late_after is 1:00:00" in world.refused()[0]["reason"]


def test_a_release_is_swapped_in_the_middle_and_traffic_is_split_by_id(make_world):
    world = make_world(released=False)
    world.send([flight(n) for n in range(50)])
    worker = world.start()
    world.wait_until(lambda: "no version of flight_delay serves" in world.log(), "it waits for a release")
    world.release(3)
    world.wait_for(50)
    world.release(3, 4)
    world.wait_until(lambda: world.status().versions == [3, 4], "the split is in force")
    sent = len(world.answered())
    world.send([flight(n) for n in range(200)])
    world.wait_for(sent + 200)
    world.stop(worker)
    answers = world.answered()
    assert {answers[n]["version"] for n in range(50)} == {3}
    newest = [answers[position] for position in sorted(answers)[-200:]]
    assert {answer["version"] for answer in newest} == {3, 4}
    for number, answer in enumerate(newest):
        assert answer["probability"] == pytest.approx(score(answer["version"], flight(number)))


@pytest.mark.parametrize(
    ("inputs", "decision"), [(INPUTS, "advance"), pytest.param(STRICT, "roll back", marks=pytest.mark.slow)]
)
def test_a_canary_walk_is_judged_by_messages(make_world, inputs, decision):
    world = make_world()
    store = ReleaseStore(world.settings.releases_dir)
    policy = CanaryPolicy(steps=(50, 100), minutes=0, min_requests=30, max_latency_ratio=1_000)
    document = start_walk(
        store, MODEL, 2, store.put_bundle(bundle(2, inputs=inputs)), policy=policy, reason="try", by="pytest"
    )
    world.send([flight(n) for n in range(120)])
    worker = world.start()
    world.wait_for(120)
    assert world.stop(worker) == STOPPED
    outcomes = read_outcomes(world.settings.outcomes_dir, MODEL, document.revision, 2)
    answers = world.answered()
    by_canary = sum(answer["version"] == 2 for answer in answers.values())
    assert len(outcomes.is_canary) == 120
    assert int((outcomes.is_canary & ~outcomes.failed).sum()) == by_canary
    assert int(outcomes.failed.sum()) == len(world.refused()) == 120 - len(answers)
    report = judge(world.settings, document)
    assert report.decision == decision, report.said
    if decision == "advance":
        assert 30 < by_canary < 90
        assert not world.refused()
    else:
        assert {letter["kind"] for letter in world.refused().values()} == {"contract"}


def test_large_messages_stop_no_stream(make_world):
    """JSON writes a control character as six bytes: what fits into the broker as a message may not as a dead letter."""
    world = make_world()
    world.send([bytes(180_000), bytes(990_000), b"\xff" * 990_000, flight(3), flight(4, flight_id="\x01" * 150_000)])
    worker = world.start()
    world.wait_for(5)
    assert world.stop(worker) == STOPPED
    assert {place: one["truncated"] for place, one in world.refused().items()} == dict.fromkeys(range(3), True)
    answers = world.answered()
    assert "truncated" not in answers[3]
    assert answers[4]["truncated"] == ["id"]
    assert "waiting" not in world.log()


def test_a_second_scorer_takes_over_and_the_first_ends_and_says_so(make_world):
    world = make_world()
    world.send([flight(n) for n in range(10)])
    first = world.start()
    world.wait_for(10)
    second = world.start()
    world.wait_until(lambda: world.status().pid == second.pid and world.status().state == "running", "it took over")
    world.send([flight(n) for n in range(10)])
    assert first.wait(120) == FENCED
    assert "another process has taken over these partitions" in world.log()
    world.wait_for(20)
    assert world.stop(second) == STOPPED
    assert sorted(world.answered()) == list(range(20))


@pytest.mark.slow
def test_partitions_are_divided_and_divided_anew(make_world):
    world = make_world(partitions=3)
    for partition in range(3):
        world.send([flight(n) for n in range(5)], partition)
    workers = [world.start("--worker", "1/2"), world.start("--worker", "2/2")]
    for partition in range(3):
        world.wait_for(5, partition)
    assert [one.partition for one in world.status(worker=1).partitions] == [0, 2]
    assert [one.partition for one in world.status(worker=2).partitions] == [1]
    alone = world.start()  # without ending the others: it takes their partitions
    world.wait_until(lambda: world.log().count("partition 0 after 4") == 1, "it took over")
    for partition in range(3):
        world.send([flight(n) for n in range(5, 10)], partition)
    assert [worker.wait(120) for worker in workers] == [FENCED, FENCED]
    for partition in range(3):
        world.wait_for(10, partition)
        assert sorted(world.answered(partition)) == list(range(10))
    assert world.stop(alone) == STOPPED
    assert world.start("--worker", "4/4").wait(120) == FAILED
    assert "worker 4 of 4 has nothing to do" in world.log()
