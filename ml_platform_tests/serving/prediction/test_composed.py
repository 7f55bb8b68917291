"""Several models behind one endpoint: who answers, by which version, what is logged, and what happens when one goes."""

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.features.expressions.compile import compile_tree
from ml_platform.features.online.open import open_online_store
from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.manifest import InferenceLogPolicy, Input, Manifest
from ml_platform.serving.prediction.hooks import HookRequest
from ml_platform.serving.prediction.predictor import PredictionOptions
from ml_platform.serving.prediction.responses import Answer, Prediction
from ml_platform.settings import Settings
from ml_platform_tests.serving.composed_world import ComposedWorld, rows_of
from ml_platform_tests.serving.releases import INPUTS, ROW, bundle, features, fill_online_store, score, softmax_graph

SEATS = Input(name="seats", type="number", minimum=0.0, maximum=1.0, example=0.3)
MANY = [1, 3, 40]


@pytest.fixture
def world(settings: Settings) -> Iterator[ComposedWorld]:
    fill_online_store(settings)
    with open_online_store(settings.online_uri) as online:
        world = ComposedWorld(settings, online)
        for name, version in (("north", 1), ("south", 20), ("west", 30)):
            world.release(name, version)
        yield world
        world.close()


def probabilities(answer: Answer) -> dict[str, float]:
    [prediction] = answer.predictions
    assert isinstance(prediction.probabilities, dict)
    return prediction.probabilities


@pytest.mark.parametrize("count", MANY)
def test_an_ensemble_answers_the_weighted_mean(world: ComposedWorld, count: int) -> None:
    world.compose("mean", ensemble={"members": {"north": 3, "south": 1}})
    answer = world.answer("mean", rows_of(count))
    wanted = 0.75 * score(1, ROW) + 0.25 * score(20, ROW)
    assert [one.probability for one in answer.predictions] == pytest.approx([wanted] * count, abs=1e-12)
    assert [one.id for one in answer.predictions] == [f"f{number}" for number in range(count)]
    assert (answer.model, answer.version, answer.members) == ("mean", 1, {"north": 1, "south": 20})
    [record] = world.logged("mean")
    assert (record["model"], record["version"]) == ("mean", 1)
    assert world.logged("north") == world.logged("south") == []  # what they answer for others is not their own


@pytest.mark.parametrize("count", MANY)
def test_a_step_s_output_is_an_input_of_the_next(world: ComposedWorld, count: int) -> None:
    world.release("seated", 7, inputs=(*INPUTS, SEATS))
    world.compose("chain", pipeline=[{"model": "north"}, {"model": "seated", "inputs": {"seats": "north.probability"}}])
    answer = world.answer("chain", rows_of(count))
    assert [one.probability for one in answer.predictions] == pytest.approx([score(7, ROW)] * count, abs=1e-12)
    assert answer.members == {"north": 1, "seated": 7}
    sent = world.refused("chain", {**ROW, "seats": 0.1})
    assert (sent.status, sent.problems[0].field) == (422, "seats")  # nobody but the step gives it
    [model] = world.state.slots["chain"].served
    assert "seats" not in {field.name for field in model.manifest.inputs}


def test_a_step_s_output_that_breaks_the_next_one_s_contract_is_told_as_such(world: ComposedWorld) -> None:
    world.release("strict", 7, inputs=(*INPUTS, msgspec.structs.replace(SEATS, maximum=0.01)))
    world.compose("chain", pipeline=[{"model": "north"}, {"model": "strict", "inputs": {"seats": "north.probability"}}])
    refused = world.refused("chain", ROW)
    assert refused.status == 422
    assert "(this is the probability of 'north')" in refused.message


@pytest.mark.parametrize("count", MANY)
def test_the_value_of_an_output_reaches_the_next_step(world: ComposedWorld, count: int) -> None:
    minutes = (pl.col("scheduled_arrival") - pl.col("scheduled_departure")).dt.total_minutes()
    tree = compile_tree(pl.coalesce(pl.col("seats") * 1000, minutes.cast(pl.Float64)))
    derived = msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest).derived
    fed = tuple(msgspec.structs.replace(one, tree=tree) if one.name == "scheduled_minutes" else one for one in derived)
    world.release("fed", 9, inputs=(*INPUTS, msgspec.structs.replace(SEATS, required=False)), derived=fed)
    world.compose("chain", pipeline=[{"model": "north"}, {"model": "fed", "inputs": {"seats": "north.probability"}}])
    answer = world.answer("chain", rows_of(count))
    given = world.answer("north", ROW).predictions[0].probability
    assert answer.predictions == world.answer("fed", rows_of(count, seats=given)).predictions
    assert answer.predictions[0].probability != world.answer("fed", ROW).predictions[0].probability


@pytest.mark.parametrize("route", [
    {"by": "carrier", "map": {"UA": "north", "AA": "south"}, "default": "west"},
    {
        "rules": [{"when": "carrier = 'UA'", "model": "north"}, {"when": "carrier = 'AA'", "model": "south"}],
        "default": "west",
    },
])  # fmt: skip
@pytest.mark.parametrize("count", [4, 40])
def test_each_row_is_answered_by_its_own(world: ComposedWorld, route: dict[str, Any], count: int) -> None:
    world.compose("routed", route=route)
    carriers = [("UA", "AA", "B6", "ZZ")[number % 4] for number in range(count)]
    rows = [{**ROW, "flight_id": f"f{number}", "carrier": carrier} for number, carrier in enumerate(carriers)]
    answer = world.answer("routed", {"rows": rows})
    versions = {"UA": 1, "AA": 20, "B6": 30, "ZZ": 30}
    names = {1: "north", 20: "south", 30: "west"}
    direct = [world.answer(names[versions[row["carrier"]]], row).predictions[0] for row in rows]
    assert answer.predictions == direct
    assert answer.members == {"north": 1, "south": 20, "west": 30}
    assert world.answer("routed", rows[1]).members == {"south": 20}
    wrong = [*rows[:2], {**rows[2], "distance": "far"}]
    refused = world.refused("routed", {"rows": wrong})
    assert [(one.row, one.field) for one in refused.problems] == [(2, "distance")]
    assert world.refused("routed", b"{").status == 400
    assert world.refused("routed", {"rows": []}).status == 422
    assert world.refused("routed", {**ROW, "carrier": ["UA"]}).status == 422
    assert world.refused("routed", {**ROW, "carier": "UA"}).problems[0].field == "carier"


def test_a_route_by_an_instant_and_by_a_null(world: ComposedWorld) -> None:
    rules = [{"when": "EXTRACT(HOUR FROM scheduled_departure) >= 12", "model": "north"}]
    world.compose("by_hour", route={"rules": rules, "default": "south"})
    assert world.answer("by_hour", ROW).members == {"north": 1}
    assert world.answer("by_hour", {**ROW, "scheduled_departure": "2013-07-01T11:59:59Z"}).members == {"south": 20}
    assert world.refused("by_hour", {**ROW, "scheduled_departure": "noon"}).problems[0].field == "scheduled_departure"
    world.compose("by_tail", route={"by": "tailnum", "map": {"N14228": "north"}, "default": "west"})
    assert world.answer("by_tail", {**ROW, "tailnum": None}).members == {"west": 30}


def test_several_classes_are_averaged_by_name(world: ComposedWorld) -> None:
    kinds: dict[str, Any] = {"task": "multiclass", "threshold": None, "graph": softmax_graph(3)}
    world.release("abc", 1, classes=("a", "b", "c"), **kinds)
    world.release("cab", 2, classes=("c", "a", "b"), **kinds)
    world.compose("vote", ensemble={"members": {"abc": 1, "cab": 1}})
    first, second, both = (probabilities(world.answer(name, ROW)) for name in ("abc", "cab", "vote"))
    assert both == pytest.approx({name: (first[name] + second[name]) / 2 for name in "abc"})
    [prediction] = world.answer("vote", ROW).predictions
    assert (prediction.prediction, prediction.probability) == (
        max(both, key=lambda name: both[name]),
        max(both.values()),
    )
    with pytest.raises(ValueError, match="members must be of the same task"):
        world.compose("mixed", ensemble={"members": {"abc": 1, "north": 1}})


def test_members_swap_roll_back_retire_and_come_again(world: ComposedWorld) -> None:
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    world.compose("outer", ensemble={"members": {"mean": 1, "west": 1}})
    world.release("north", 2)
    assert world.answer("mean", ROW).members == {"north": 2, "south": 20}
    mean = (score(2, ROW) + score(20, ROW)) / 2
    [outer] = world.answer("outer", ROW).predictions
    assert outer.probability == pytest.approx((mean + score(30, ROW)) / 2)
    world.release("north", 1)
    assert world.answer("mean", ROW).members == {"north": 1, "south": 20}
    world.store.publish("south", [], reason="over", by="pytest", action="retirement")
    world.watcher.poll()
    for name in ("mean", "outer"):
        refused = world.refused(name, ROW)
        assert (refused.status, refused.code) == (503, "model_unavailable")
        assert "'south' was retired" in refused.message
    world.release("south", 21)
    assert world.answer("mean", ROW).members == {"north": 1, "south": 21}


def test_what_does_not_fit_any_more_leaves_what_served(world: ComposedWorld) -> None:
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    world.release("south", 21, task="regression", threshold=None)
    assert world.answer("mean", ROW).members == {"north": 1, "south": 20}
    refused = world.state.slots["mean"].refused
    assert refused is not None
    assert "'south' is regression, and 'north' is binary" in refused.reason
    world.release("south", 22)
    assert world.answer("mean", ROW).members == {"north": 1, "south": 22}
    assert world.state.slots["mean"].refused is None


def test_no_request_sees_a_part_of_a_swap(world: ComposedWorld) -> None:
    """Both members are one model's: whatever is released meanwhile, their versions are the same."""
    world.compose("twice", route={"rules": [{"when": "distance > 1000", "model": "north"}], "default": "south"})
    world.compose("both", ensemble={"members": {"twice": 1, "north": 1}})
    ended, pairs = threading.Event(), set()

    def ask() -> None:
        while not ended.is_set():
            slot = world.state.slots["both"]
            content = json.dumps(ROW).encode()
            answer = world.predictor.answer_now(slot, content, PredictionOptions("r", None))
            inner = slot.served[0].members["twice"].served[0].members["north"].served[0].version  # type: ignore[attr-defined]
            assert isinstance(answer.members, dict)
            pairs.add((answer.members["north"], inner))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for version in range(2, 12):
            world.release("north", version)
    finally:
        ended.set()
        thread.join()
    assert pairs
    assert all(outer == inner for outer, inner in pairs)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ({"ensemble": {"members": {"nroth": 1, "south": 1}}}, "no endpoint is called 'nroth'; did you mean 'north'?"),
        ({"ensemble": {"members": {"idle": 1, "south": 1}}}, "'idle' has no release yet"),
        ({"ensemble": {"members": {"own": 1, "south": 1}}}, "it leads back to itself: own → own"),
        ({"route": {"by": "carier", "map": {"UA": "north"}, "default": "south"}}, "did you mean 'carrier'?"),
        ({"route": {"by": "carrier", "map": {7: "north"}, "default": "south"}}, "the map has 7, and 'carrier' is of"),
        ({"route": {"by": "distance", "map": {7: "north"}, "default": "south"}}, "use `rules`"),
        ({"route": {"rules": [{"when": "distance >", "model": "north"}], "default": "south"}}, "cannot be computed"),
        ({"pipeline": [{"model": "north"}, {"model": "south"}]}, "no later step uses what 'north' gives"),
        (
            {"pipeline": [{"model": "north"}, {"model": "seated", "inputs": {"seat": "north.probability"}}]},
            "it has no input 'seat'; did you mean 'seats'?",
        ),
        (
            {"pipeline": [{"model": "north"}, {"model": "seated", "inputs": {"seats": "north.prediction"}}]},
            "input 'seats' is of type number, and the prediction of 'north' is boolean",
        ),
        (
            {"pipeline": [{"model": "north"}, {"model": "seated", "inputs": {"seats": "south.probability"}}]},
            "'south' is not an earlier step",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_published(world: ComposedWorld, of: dict[str, Any], told: str) -> None:
    world.release("seated", 7, inputs=(*INPUTS, SEATS))
    world.store.register_version("idle", 1, world.store.put_bundle(bundle(1, model="idle")))
    with pytest.raises(ValueError, match="composed endpoint") as error:
        world.compose("own", **of)
    assert told in str(error.value)
    assert CompositionStore(world.store).all() == {}


def test_names_are_of_one_thing_only(world: ComposedWorld) -> None:
    with pytest.raises(ValueError, match="'north' is the name of a model"):
        world.compose("north", ensemble={"members": {"west": 1, "south": 1}})
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    with pytest.raises(ValueError, match="'mean' is the name of a composed endpoint"):
        world.release("mean", 1)
    world.compose("outer", ensemble={"members": {"mean": 1, "west": 1}})
    with pytest.raises(ValueError, match="it leads back to itself: mean → outer → mean"):
        world.compose("mean", ensemble={"members": {"outer": 1, "north": 1}})


def test_hooks_policies_and_the_lake_hold_for_it_too(world: ComposedWorld, lake: Lake) -> None:
    world.release("north", 5, inference_log=InferenceLogPolicy(redact=("tailnum",)))
    seen = []

    @world.hooks.before("north")
    def upper(rows: list[dict[str, Any]], request: HookRequest) -> list[dict[str, Any]]:
        seen.append(request.model)
        return [{**row, "carrier": row["carrier"].upper()} for row in rows]

    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    [lower] = world.answer("mean", {**ROW, "carrier": "ua"}).predictions
    assert seen == ["north"]
    assert lower.probability == pytest.approx((score(5, ROW) + score(20, {**ROW, "carrier": "ua"})) / 2, abs=0.01)
    world.answer("mean", rows_of(40), request_id="r2")
    world.log.close()
    ingest_log(lake, world.settings)
    rows = lake.read("inference_log/mean").collect()
    assert rows.height == 41
    assert set(rows["north__version"]) == {5.0}
    assert set(rows["south__version"]) == {20.0}
    assert "N14228" not in "".join(rows["inputs"])


@pytest.mark.parametrize("count", MANY)
def test_members_of_other_orders_of_classes_answer_by_name(world: ComposedWorld, count: int) -> None:
    kinds: dict[str, Any] = {"task": "multiclass", "threshold": None, "graph": softmax_graph(3)}
    world.release("abc", 1, classes=("a", "b", "c"), **kinds)
    world.release("cab", 2, classes=("c", "a", "b"), **kinds)
    world.compose("routed", route={"by": "carrier", "map": {"UA": "abc"}, "default": "cab"})
    other = {**ROW, "carrier": "AA"}
    rows = [ROW, other] * count
    predictions = world.answer("routed", {"rows": rows}).predictions
    direct = [world.answer("abc", ROW).predictions[0], world.answer("cab", other).predictions[0]]
    assert predictions == direct * count
    assert world.answer("routed", other).predictions == direct[1:]
    world.split("abc", {1: {"classes": ("a", "b", "c"), **kinds}, 5: {"classes": ("b", "c", "a"), **kinds}})
    world.compose("vote", ensemble={"members": {"abc": 1, "cab": 1}})
    for number in range(20):
        row = {**ROW, "flight_id": f"f{number}"}
        [both] = world.answer("vote", row).predictions
        assert both.probabilities == pytest.approx(
            {
                name: (probabilities(world.answer("abc", row))[name] + probabilities(world.answer("cab", row))[name])
                / 2
                for name in "abc"
            }
        )


def test_the_threshold_is_that_of_the_versions_that_answered(world: ComposedWorld) -> None:
    world.split("north", {1: {}, 3: {"threshold": 0.99}})
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    outcomes = {}
    for number in range(30):
        answer = world.answer("mean", {**ROW, "flight_id": f"f{number}"})
        assert isinstance(answer.members, dict)
        [prediction] = answer.predictions
        wanted = {1: 0.5, 3: 0.745}[answer.members["north"]]
        assert prediction.prediction == (float(prediction.probability or 0) >= wanted)
        outcomes[answer.members["north"]] = prediction.prediction
    assert outcomes.keys() == {1, 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "regression", "threshold": None}, "is regression"),
        (
            {"task": "multiclass", "threshold": None, "classes": ("a", "b", "c"), "graph": softmax_graph(3)},
            "is multiclass",
        ),
    ],
)
def test_a_canary_of_a_member_that_answers_something_else_leaves_what_served(
    world: ComposedWorld, changes: dict[str, Any], told: str
) -> None:
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    world.split("south", {20: {}, 21: changes})
    for number in range(20):
        assert world.answer("mean", {**ROW, "flight_id": f"f{number}"}).members == {"north": 1, "south": 20}
    refused = world.state.slots["mean"].refused
    assert refused is not None
    assert "'south@v21'" in refused.reason
    assert told in refused.reason
    world.release("south", 22)
    assert world.answer("mean", ROW).members == {"north": 1, "south": 22}


def test_a_canary_with_another_type_of_a_step_s_input_leaves_what_served(world: ComposedWorld) -> None:
    world.release("seated", 7, inputs=(*INPUTS, SEATS))
    world.compose("chain", pipeline=[{"model": "north"}, {"model": "seated", "inputs": {"seats": "north.probability"}}])
    text = Input(name="seats", type="string", required=False)
    world.split("seated", {7: {"inputs": (*INPUTS, SEATS)}, 8: {"inputs": (*INPUTS, text)}})
    refused = world.state.slots["chain"].refused
    assert refused is not None
    assert "step 'seated@v8': input 'seats' is of type string" in refused.reason
    assert world.answer("chain", ROW).members == {"north": 1, "seated": 7}


@pytest.mark.parametrize("count", MANY)
def test_what_any_version_of_a_member_hides_no_composed_log_shows(world: ComposedWorld, count: int) -> None:
    policy = InferenceLogPolicy(redact=("tailnum",), hash=("carrier",))
    world.split("north", {1: {}, 6: {"inference_log": policy}})
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    world.compose("outer", ensemble={"members": {"mean": 1, "west": 1}})
    world.compose("routed", route={"rules": [{"when": "carrier = 'UA'", "model": "mean"}], "default": "west"})
    for name in ("mean", "outer", "routed"):
        for number in range(4):
            world.answer(name, rows_of(count), request_id=f"r{number}")
        logged = world.logged(name)
        assert len(logged) == 4
        assert "N14228" not in json.dumps(logged)
        assert '"UA"' not in json.dumps(logged)
    for record in world.logged("routed"):  # who answered would tell the carrier
        if count == 1:
            assert set(record["features"].values()) == {None}
        else:
            assert np.isnan(np.frombuffer(base64.b64decode(record["matrix"]), dtype="<f8")).all()
    assert world.answer("routed", rows_of(count)).members == {"mean": 1}


def test_an_output_that_the_next_step_hides_is_hidden(world: ComposedWorld) -> None:
    world.release("seated", 7, inputs=(*INPUTS, SEATS), inference_log=InferenceLogPolicy(redact=("seats",)))
    world.compose("chain", pipeline=[{"model": "north"}, {"model": "seated", "inputs": {"seats": "north.probability"}}])
    world.answer("chain", ROW)
    [record] = world.logged("chain")
    assert (record["features"]["north__score"], record["features"]["seated__version"]) == (None, 7)


def test_a_member_that_is_retired_while_requests_run(world: ComposedWorld) -> None:
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    slot = world.predictor.slot("mean")  # as a request that has begun
    world.store.publish("south", [], reason="over", by="pytest", action="retirement")
    world.watcher.poll()
    answer = world.predictor.answer_now(slot, json.dumps(ROW).encode(), PredictionOptions("r1", None))
    assert answer.members == {"north": 1, "south": 20}
    assert world.refused("mean", ROW).status == 503


def test_a_composition_of_a_malformed_expression_keeps_no_other_endpoint_back(world: ComposedWorld) -> None:
    """As somebody wrote it by hand: other endpoints go on, and follow what is released."""
    store = CompositionStore(world.store)
    world.compose("routed", route={"rules": [{"when": "distance > 1000", "model": "north"}], "default": "south"})
    path = store.path("routed")
    whole = json.loads(path.read_text())
    for number, tree in enumerate(({}, {"op": "gt"}, {"op": "no_such", "args": []}, 7, {"op": "column"})):
        whole["of"]["rules"][0]["tree"], whole["revision"] = tree, 2 + number
        path.write_text(json.dumps(whole))
        os.utime(path, (number, number))
        world.release("west", 31 + number)
        assert world.answer("west", ROW).version == 31 + number
        assert world.answer("routed", ROW).version == 1
        assert world.state.slots["routed"].refused is not None


def test_explanations_where_they_add_up(world: ComposedWorld) -> None:
    world.compose("mean", ensemble={"members": {"north": 1, "south": 1}})
    refused = world.refused("mean", ROW, explain=True)
    assert (refused.status, refused.code) == (422, "not_explainable")
    assert "whose mean is not that of probabilities" in refused.message
    assert world.refused("mean", ROW, interval=0.9).code == "no_intervals"
    assert world.refused("mean", ROW, version=7).status == 404
    features = world.answer("mean", ROW, features=True).predictions[0].features
    assert isinstance(features, dict)
    assert features["south__version"] == 20


def values_graph(seed: int) -> bytes:
    """A few trees that give a value, over the columns of the tests' model."""
    from lightgbm import LGBMRegressor

    from ml_platform.training.export.onnx_trees import export_trees
    from ml_platform.training.families.lightgbm import trees_of

    random = np.random.default_rng(seed)
    X = random.normal(size=(500, len(features()))) * 20
    y = X[:, 1] / 50 + X[:, 5]
    model = LGBMRegressor(n_estimators=5, num_leaves=7, verbosity=-1, random_state=0).fit(X, y)
    return export_trees(trees_of(model.booster_, "regression"), "regression", len(features()))


def test_explanations_of_values_and_of_a_route_are_given(world: ComposedWorld) -> None:
    for name, seed in (("minutes", 1), ("delay", 2)):
        world.release(name, seed, graph=values_graph(seed), task="regression", threshold=None, family="lightgbm")
    world.compose("mean", ensemble={"members": {"minutes": 3, "delay": 1}})
    world.compose("routed", route={"by": "carrier", "map": {"UA": "minutes"}, "default": "delay"})
    rows = {"rows": [ROW, {**ROW, "carrier": "AA"}, {**ROW, "distance": 70}]}
    own = {name: world.answer(name, rows, explain=True).predictions for name in ("minutes", "delay")}
    mean = world.answer("mean", rows, explain=True).predictions
    for row, prediction in enumerate(mean):
        explanation, both = explanation_of(prediction), [explanation_of(own[name][row]) for name in own]
        assert prediction.prediction == pytest.approx(explanation["raw_score"])
        assert explanation["base"] + sum(explanation["contributions"].values()) == pytest.approx(prediction.prediction)
        for name, value in explanation["contributions"].items():
            assert value == pytest.approx(0.75 * both[0]["contributions"][name] + 0.25 * both[1]["contributions"][name])
    routed = world.answer("routed", rows, explain=True).predictions
    assert routed == [own["minutes"][0], own["delay"][1], own["minutes"][2]]
    assert world.refused("mean", {"rows": [ROW] * 101}, explain=True).status == 422


def explanation_of(prediction: Prediction) -> Mapping[str, Any]:
    assert isinstance(prediction.explanation, dict)
    return prediction.explanation
