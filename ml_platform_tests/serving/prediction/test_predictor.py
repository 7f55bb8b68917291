"""The predictor in this process: whom it refuses, what it counts, and what it does while its log or store fails."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore
from ml_platform.inference.log import InferenceLog
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.models.slots import EndpointState, ServingState, refusal
from ml_platform.serving.prediction.explanations import MAX_EXPLAINED
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.predictor import INLINE_BYTES, PredictionOptions, Predictor
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform_tests.serving.in_process import alerts_of, watcher_of
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store

BODY = json.dumps(ROW).encode()
OPTIONS = PredictionOptions("r1", "ann")
Make = Callable[..., Predictor]


@pytest.fixture(scope="module")
def online(module_settings: Settings) -> Iterator[OnlineStore]:
    fill_online_store(module_settings)
    with open_online_store(module_settings.online_uri) as store:
        yield store


@pytest.fixture(scope="module")
def state(module_settings: Settings, online: OnlineStore) -> ServingState:
    """Version 1 answers, version 2 is its shadow."""
    store = ReleaseStore(module_settings.releases_dir)
    targets = [
        Target(version=1, digest=store.put_bundle(bundle(1))),
        Target(version=2, digest=store.put_bundle(bundle(2)), share=0.0, mode="shadow"),
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")
    state = ServingState({})
    watcher_of(module_settings, online, state, Metrics()).poll()
    return state


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    """Make a predictor of a state, by settings, with a log in the test's own home."""
    made: list[Predictor] = []
    logs: list[InferenceLog] = []

    def _make(state: ServingState, **options: Any) -> Predictor:
        log, metrics = InferenceLog(settings.inference_log_dir), Metrics()
        health = LogHealth(log, alerts_of(settings, metrics))
        made.append(Predictor(state, log, metrics, ServingSettings(**options), health))
        logs.append(log)
        return made[-1]

    yield _make
    for predictor in made:
        predictor.close()
    for log in logs:
        log.close()


def refused_by(call: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value


def counted(predictor: Predictor, name: str, **labels: str) -> float:
    return predictor.metrics.registry.get_sample_value(f"ml_platform_{name}_total", labels) or 0.0


def logged(settings: Settings, model: str) -> list[dict[str, Any]]:
    paths = settings.inference_log_dir.glob(f"{model}/*.jsonl")
    return [msgspec.json.decode(line) for path in paths for line in path.read_bytes().splitlines()]


def spoil_log(settings: Settings) -> None:
    """Put a file where the log wants a folder."""
    settings.inference_log_dir.mkdir(parents=True, exist_ok=True)
    (settings.inference_log_dir / MODEL).write_text("in the way")


def test_who_has_no_model_is_told_why(make: Make, state: ServingState) -> None:
    empty = make(ServingState({}))
    refused = refused_by(lambda: empty.slot(MODEL))
    assert (refused.status, refused.code, refused.retry_after) == (503, "no_release", 5)
    assert refused.message.endswith("promote a model first: materialise its `release` asset")
    broken = make(ServingState({}, trouble="the release store cannot be read: no such host"))
    assert refused_by(lambda: broken.slot(MODEL)).message.endswith("cannot be read: no such host")
    unknown = refused_by(lambda: make(state).slot("other"))
    assert (unknown.status, unknown.code) == (404, "unknown_model")
    assert unknown.message == f"no released model is called 'other'; released are: {MODEL}"


@pytest.mark.parametrize(
    ("slot", "reason"),
    [
        (EndpointState("m", None), "its release is being loaded"),
        (EndpointState("m", None, refused=refusal(2, "its digest differs")), "its digest differs"),
    ],
)
def test_a_model_that_cannot_answer_says_what_is_wrong(make: Make, slot: EndpointState, reason: str) -> None:
    predictor = make(ServingState({"m": slot}))
    refused = refused_by(lambda: predictor.slot("m"))
    assert (refused.status, refused.code, refused.retry_after) == (503, "model_unavailable", 1)
    assert refused.message == f"model 'm' cannot answer: {reason}"
    assert not predictor.is_ready()


def test_more_requests_than_may_be_under_way_are_refused(make: Make, state: ServingState) -> None:
    predictor = make(state, max_active=2)
    predictor.active = 2
    predictor.check_active()
    predictor.active = 3
    refused = refused_by(predictor.check_active)
    assert (refused.status, refused.code, refused.retry_after) == (503, "busy", 1)


def test_an_answer_is_logged_before_it_is_given(make: Make, state: ServingState, settings: Settings) -> None:
    predictor = make(state)
    assert predictor.is_ready()
    answer = predictor.answer_now(state.slots[MODEL], BODY, OPTIONS)
    assert (answer.model, answer.version, answer.request_id, len(answer.predictions)) == (MODEL, 1, "r1", 1)
    [record] = logged(settings, MODEL)
    assert (record["request_id"], record["caller"], record["version"]) == ("r1", "ann", 1)
    assert counted(predictor, "predictions", model=MODEL, version="1") == 1


@pytest.mark.parametrize("rows", [1, 1200])
def test_a_shadow_scores_the_same_rows_and_logs_them_apart(
    make: Make, state: ServingState, settings: Settings, rows: int
) -> None:
    body = json.dumps({"rows": [ROW] * rows}).encode()
    assert (len(body) > INLINE_BYTES) == (rows > 1), "the second goes through the thread"
    predictor = make(state)
    answer = asyncio.run(predictor.answer(state.slots[MODEL], body, OPTIONS))
    predictor.close()
    assert len(answer.predictions) == rows
    assert counted(predictor, "shadow_predictions", model=MODEL, version="2") == rows
    assert {record["version"] for record in logged(settings, f"{MODEL}__shadow")} == {2}
    assert predictor.queues() == {"large": 0, "shadow": 0}


def test_a_version_that_is_asked_for_answers_and_its_shadow_is_not_sent_it_again(
    make: Make, state: ServingState
) -> None:
    predictor, slot = make(state), state.slots[MODEL]
    asked = msgspec.structs.replace(OPTIONS, version=2)
    assert predictor.answer_now(slot, BODY, asked).version == 2
    predictor.close()
    assert counted(predictor, "shadow_predictions", model=MODEL, version="2") == 0
    refused = refused_by(lambda: predictor.answer_now(slot, BODY, msgspec.structs.replace(OPTIONS, version=9)))
    assert refused.message == f"'{MODEL}' has no version 9 loaded; loaded are: 1, 2"


def test_shadows_that_do_not_keep_up_or_fail_are_counted_and_cost_no_answer(
    make: Make, state: ServingState, settings: Settings
) -> None:
    predictor, slot = make(state, max_shadow_queue=1), state.slots[MODEL]
    release = threading.Event()
    predictor._shadow_threads.submit(release.wait)  # no shadow has its turn before it is set
    for _ in range(3):  # the first waits, and there is room for one
        assert predictor.answer_now(slot, BODY, OPTIONS).version == 1
    assert predictor.queues()["shadow"] == 1
    assert counted(predictor, "shadow_lost", model=MODEL, version="2", reason="busy") == 2
    (settings.inference_log_dir / f"{MODEL}__shadow").write_text("in the way of its log")
    release.set()
    predictor.close()
    assert counted(predictor, "shadow_lost", model=MODEL, version="2", reason="LogUnavailable") == 1


def test_what_cannot_be_logged_is_refused(make: Make, state: ServingState, settings: Settings) -> None:
    spoil_log(settings)
    predictor = make(state)
    refused = refused_by(lambda: predictor.answer_now(state.slots[MODEL], BODY, OPTIONS))
    assert (refused.status, refused.code, refused.retry_after) == (503, "log_unavailable", 5)
    assert set(predictor.unlogged()) == {MODEL}
    assert not predictor.is_ready()
    assert counted(predictor, "inference_log_failures", model=MODEL) == 1
    assert counted(predictor, "predictions", model=MODEL, version="1") == 0


def test_what_cannot_be_logged_is_counted_where_the_settings_say_so(
    make: Make, state: ServingState, settings: Settings
) -> None:
    spoil_log(settings)
    predictor = make(state, log_fallback="count")
    answer = predictor.answer_now(state.slots[MODEL], BODY, OPTIONS)
    assert answer.degraded == ["inference_log"]
    assert (dict(predictor.unlogged()), predictor.is_ready()) == ({}, True)
    assert counted(predictor, "inference_log_lost", model=MODEL) == 1
    assert counted(predictor, "degraded", model=MODEL) == 1


def test_a_bad_row_is_refused_counted_and_not_logged(make: Make, state: ServingState, settings: Settings) -> None:
    predictor = make(state)
    body = json.dumps({**ROW, "distance": "far"}).encode()
    refused = refused_by(lambda: predictor.answer_now(state.slots[MODEL], body, OPTIONS))
    assert (refused.status, refused.code, [one.field for one in refused.problems]) == (
        422,
        "invalid_request",
        ["distance"],
    )
    [violations] = predictor.metrics.contract_violations.collect()
    totals = [one for one in violations.samples if one.name.endswith("_total")]
    assert [(one.labels["field"], one.value) for one in totals] == [("distance", 1)]
    assert logged(settings, MODEL) == []


def test_explanations_are_of_a_few_rows(make: Make, state: ServingState) -> None:
    predictor, slot = make(state), state.slots[MODEL]
    body = json.dumps({"rows": [ROW] * (MAX_EXPLAINED + 1)}).encode()
    asked = msgspec.structs.replace(OPTIONS, explain=True)
    refused = refused_by(lambda: asyncio.run(predictor.answer(slot, body, asked)))
    assert refused.problems[0].message == f"wanted at most {MAX_EXPLAINED} rows to explain, found {MAX_EXPLAINED + 1}"


def test_series_of_a_version_are_made_once(make: Make, state: ServingState) -> None:
    predictor = make(state)
    assert predictor.series(MODEL, 1) is predictor.series(MODEL, 1)
    assert predictor.series(MODEL, 1) is not predictor.series(MODEL, 2)
