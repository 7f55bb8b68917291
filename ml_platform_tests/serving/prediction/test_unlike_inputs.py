"""Versions with different inputs share the traffic: who answers, what each reads, refuses, logs and documents."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore
from ml_platform.inference.log import InferenceLog
from ml_platform.inference.outcomes import OutcomeLog, read_outcomes
from ml_platform.registry.canary import start_walk
from ml_platform.registry.manifest import CanaryPolicy, Input, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.predictor import PredictionOptions, Predictor
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.in_process import alerts_of, watcher_of
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, bundle, fill_online_store, score

SEATS = Input(name="seats", type="integer", minimum=1.0, example=149, description="Of the aircraft.")
LENGTHY = {"distance": 5500}
NEWER = (*(msgspec.structs.replace(one, maximum=5000.0) if one.name == "distance" else one for one in INPUTS), SEATS)
OLDER = (*INPUTS, Input(name="gate", type="string", required=False, example="C1"))
BOTH = {**ROW, "seats": 149, "gate": "C1"}


def targets(store: ReleaseStore, share: float = 0.5) -> list[Target]:
    """Version 1 reads a gate, version 2 needs seats and takes shorter flights only."""
    return [
        Target(version=1, digest=store.put_bundle(bundle(1, inputs=OLDER)), share=1 - share),
        Target(version=2, digest=store.put_bundle(bundle(2, inputs=NEWER)), share=share),
    ]


class World:
    """One worker's parts over two versions that share the traffic."""

    def __init__(self, settings: Settings, online: OnlineStore) -> None:
        self.settings, self.store = settings, ReleaseStore(settings.releases_dir)
        self.state, self.metrics = ServingState({}), Metrics()
        self.watcher = watcher_of(settings, online, self.state, self.metrics)
        self.log = InferenceLog(settings.inference_log_dir)
        self.outcomes = OutcomeLog(settings.outcomes_dir)
        health = LogHealth(self.log, alerts_of(settings, self.metrics))
        self.predictor = Predictor(
            self.state, self.log, self.metrics, ServingSettings(), health, outcomes=self.outcomes
        )  # fmt: skip

    def publish(self, those: list[Target], **options: Any) -> None:
        self.store.publish(MODEL, those, reason="for a test", by="pytest", **options)
        self.watcher.poll()

    @property
    def slot(self) -> EndpointState:
        return self.state.slots[MODEL]

    def answer(self, body: Any, version: int | None = None, request_id: str = "r1") -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.predictor.answer_now(self.slot, content, PredictionOptions(request_id, "ann", version))

    def refused(self, body: Any, version: int | None = None) -> Refused:
        with pytest.raises(Refused) as refused:
            self.answer(body, version)
        return refused.value

    def logged(self, name: str = MODEL) -> list[dict[str, Any]]:
        paths = self.settings.inference_log_dir.glob(f"{name}/*.jsonl")
        return [msgspec.json.decode(line) for path in paths for line in path.read_bytes().splitlines()]

    def close(self) -> None:
        self.predictor.close()
        self.log.close()
        self.outcomes.close()


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    fill_online_store(settings)
    with open_online_store(settings.online_uri) as online:
        world = World(settings, online)
        world.publish(targets(world.store))
        yield world
        world.close()


def keys_of(slot: EndpointState) -> dict[int, str]:
    """A flight that each version answers."""
    return {slot.choose(f"flight {number}").version: f"flight {number}" for number in range(50)}


def test_the_key_chooses_the_version_and_its_contract_decides(world: World) -> None:
    flights = keys_of(world.slot)
    assert sorted(flights) == [1, 2]
    for version, flight in flights.items():
        answer = world.answer({**BOTH, "flight_id": flight})
        assert (answer.version, answer.predictions[0].id) == (version, flight)
        assert answer.predictions[0].probability == pytest.approx(score(version, ROW), abs=1e-12)
    assert world.answer({**ROW, "flight_id": flights[1]}).version == 1  # as clients sent it before
    assert world.answer({**BOTH, **LENGTHY, "flight_id": flights[1]}).version == 1
    missing = world.refused({**ROW, "flight_id": flights[2]})
    assert (missing.status, missing.code) == (422, "invalid_request")
    assert missing.message == (
        "seats: is missing; wanted an integer of at least 1 (by version 2, which this request falls to; version 1 has "
        "no such input)"
    )
    assert [problem.field for problem in missing.problems] == ["seats"]
    assert world.refused({**BOTH, **LENGTHY, "flight_id": flights[2]}).message == (
        "distance: wanted a finite number of at least 0 and at most 5000, found 5500 (by version 2, which this request "
        "falls to; version 1 wants a finite number of at least 0 and at most 6000)"
    )
    typo = world.refused({**BOTH, "flight_id": flights[2], "seat": 3}).message
    assert "seat: is not a field of this request; did you mean 'seats'? (by version 2, which" in typo
    twice = json.dumps({**BOTH, "flight_id": flights[1]})[:-1] + ', "seats": 150}'
    assert "seats: appears twice" in world.refused(twice.encode()).message
    assert world.refused(b"{").status == 400
    assert "by version" not in world.refused(b"{").message


def test_each_version_logs_its_own_inputs_only(world: World) -> None:
    flights = keys_of(world.slot)
    for flight in flights.values():
        world.answer({**BOTH, "flight_id": flight, "gate": 'C1:":', "seats": 150})
        world.answer({"rows": [{**BOTH, "flight_id": flight}] * 2})
        world.answer({"rows": [{**BOTH, "flight_id": flight}] * 40})
        world.answer(
            json.dumps({"rows": [{**BOTH, "flight_id": flight}] * 40}).replace('"gate"', '"\\u0067ate"').encode()
        )
    records = world.logged()
    assert len(records) == 2 * 5
    for record in records:
        inputs = record["inputs"]["rows"] if "batch" in record else [record["inputs"]]
        assert len(inputs) == record.get("batch", 1)
        assert {(record["version"], "gate" in row, "seats" in row) for row in inputs} == {
            (record["version"], record["version"] == 1, record["version"] == 2)
        }


def test_a_batch_goes_whole_to_the_version_of_its_first_row(world: World) -> None:
    flights = keys_of(world.slot)
    for version, flight in flights.items():
        other = {**BOTH, "flight_id": flights[3 - version]}
        for count in (1, 40):  # by row, and by column
            answer = world.answer({"rows": [{**BOTH, "flight_id": flight}, *[other] * count]})
            assert (answer.version, len(answer.predictions)) == (version, count + 1)
    lacking = {name: value for name, value in BOTH.items() if name != "seats"}
    for count in (1, 40):
        refused = world.refused({"rows": [{**BOTH, "flight_id": flights[2]}, *[lacking] * count]})
        assert refused.message.startswith("row 1, seats: is missing; wanted an integer of at least 1 (by version 2, ")
        assert ("and 39 more" in refused.message) == (count == 40)


def test_a_version_that_is_asked_for_passes_over_what_others_read(world: World) -> None:
    assert world.answer(BOTH, version=2).version == 2
    assert world.answer(ROW, version=1).version == 1
    assert world.refused(ROW, version=2).message == "seats: is missing; wanted an integer of at least 1"


def test_without_a_key_the_requests_id_chooses(world: World) -> None:
    row = {name: value for name, value in BOTH.items() if name != "flight_id"}
    assert {world.answer(row, request_id=f"r{number}").version for number in range(30)} == {1, 2}
    world.publish(targets(world.store), key="tailnum")
    assert len({world.answer(BOTH, request_id=f"r{number}").version for number in range(30)}) == 1
    with pytest.raises(ValueError, match="the key must be an input of every version; version 1 has no 'seats'"):
        world.publish(targets(world.store), key="seats")


def test_versions_that_stay_alone_are_strict_again(world: World) -> None:
    flights = keys_of(world.slot)
    world.publish([msgspec.structs.replace(targets(world.store)[0], share=1.0)])
    assert "seats: is not a field of this request" in world.refused({**BOTH, "flight_id": flights[1]}).message
    assert world.answer({**ROW, "flight_id": flights[2]}).version == 1


def test_a_canary_that_needs_more_is_judged_by_what_it_refuses(world: World) -> None:
    [first, second] = targets(world.store)
    world.publish([msgspec.structs.replace(first, share=1.0)])
    policy = CanaryPolicy(steps=(50, 100), minutes=0)
    start_walk(world.store, MODEL, 2, second.digest, policy=policy, reason="seats", by="ann")
    world.watcher.poll()
    for number in range(60):
        for body in (BOTH, ROW):
            with contextlib.suppress(Refused):
                world.answer({**body, "flight_id": f"flight {number}"})
        world.refused(b"{}}")
    endpoint = world.slot.endpoint
    assert endpoint is not None
    outcomes = read_outcomes(world.settings.outcomes_dir, MODEL, endpoint.revision, 2)
    canary = sum(world.slot.choose(f"flight {number}").version == 2 for number in range(60))
    assert 10 < canary < 50
    assert (outcomes.is_canary.sum(), len(outcomes.is_canary)) == (2 * canary, 120)  # what is not JSON is nobody's
    assert outcomes.failed[outcomes.is_canary].sum() == canary
    assert outcomes.failed[~outcomes.is_canary].sum() == 0


def test_a_shadow_with_other_inputs_is_shown_what_it_reads(world: World) -> None:
    [first, second] = targets(world.store)
    shadow = msgspec.structs.replace(second, share=0.0, mode="shadow")
    world.publish([msgspec.structs.replace(first, share=1.0), shadow])

    async def ask() -> None:
        for body in (BOTH, ROW):
            await world.predictor.answer(world.slot, json.dumps(body).encode(), PredictionOptions("r1", None))

    asyncio.run(ask())
    world.predictor.close()
    [record] = world.logged(f"{MODEL}__shadow")
    assert (record["version"], record["inputs"]["seats"], "gate" in record["inputs"]) == (2, 149, False)
    lost = world.metrics.registry.get_sample_value(
        "ml_platform_shadow_lost_total", {"model": MODEL, "version": "2", "reason": "InvalidRequest"}
    )
    assert lost == 1
    assert {field.name: field.required for field in world.slot.inputs}["seats"] is False


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill_online_store(module_settings)
    store = ReleaseStore(module_settings.releases_dir)
    store.publish(MODEL, targets(store), reason="for a test", by="pytest")
    server = start_server(module_settings)
    yield server
    server.stop()


def bodies(rows: list[dict[str, Any]], names: list[str]) -> dict[str, tuple[str, Callable[[], dict[str, Any]]]]:
    from ml_platform.serving.protocols.open_inference import DATATYPES

    kinds = {one.name: DATATYPES[one.type] for one in (*OLDER, SEATS)}
    table = [[row[name] for name in names] for row in rows]
    lines = [",".join(names), *(",".join(map(str, row)) for row in table)]
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": kinds[name], "data": [row[name] for row in rows]}
        for name in names
    ]
    split = {"columns": names, "data": table}
    return {
        "mlflow": (f"/models/{MODEL}/invocations", lambda: {"json": {"dataframe_split": split}}),
        "records": ("/invocations", lambda: {"json": {"dataframe_records": rows}}),
        "positional": ("/invocations", lambda: {"json": {"instances": table}}),
        "databricks": (f"/serving-endpoints/{MODEL}/invocations", lambda: {"json": {"inputs": rows}}),
        "csv": ("/invocations", lambda: {"content": "\n".join(lines), "headers": {"content-type": "text/csv"}}),
        "open inference": (f"/v2/models/{MODEL}/infer", lambda: {"json": {"inputs": tensors}}),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["mlflow", "records", "positional", "databricks", "csv", "open inference"])
def test_every_protocol_takes_the_inputs_of_both(server: Server, protocol: str) -> None:
    names = [*(field.name for field in OLDER), "seats"]
    answered = set()
    for number in range(12):
        row = {**BOTH, "flight_id": f"flight {number}"}
        path, content = bodies([row], names)[protocol]
        plain = server.client.post(f"/predict/{MODEL}", json=row).json()
        answer = server.client.post(path, **content())
        assert answer.status_code == 200, answer.text
        assert f"{plain['predictions'][0]['probability']:.12f}"[:10] in answer.text
        answered.add(plain["version"])
    assert answered == {1, 2}


def test_documents_say_what_either_needs(server: Server) -> None:
    schema = server.client.get("/openapi.json").json()["components"]["schemas"][f"{MODEL}_row"]
    assert {"seats", "gate", "distance"} <= schema["properties"].keys()
    assert "seats" in schema["required"]
    assert "gate" not in schema["required"]
    assert schema["properties"]["seats"]["description"] == "Of the aircraft. Only version 2 reads it."
    assert schema["properties"]["gate"]["description"] == "Only version 1 reads it."
    about = schema["properties"]["distance"]["description"]
    assert about == "Flown. Version 2 wants a finite number of at least 0 and at most 5000. (mile)"
    inputs = server.client.get(f"/models/{MODEL}").json()["inputs"]
    assert [one["name"] for one in inputs] == [*(field.name for field in OLDER), "seats"]
    tensors = server.client.get(f"/v2/models/{MODEL}").json()["inputs"]
    assert [one["name"] for one in tensors] == [*(field.name for field in OLDER), "seats"]
    page = server.client.get(f"/models/{MODEL}/console").text
    assert "Only version 2 reads it" in page
