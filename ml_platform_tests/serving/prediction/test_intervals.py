"""Intervals and sets of classes from a server as it is run: by query and body, of every task, adapted as it serves."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from ml_platform.inference.intervals import interval_bounds
from ml_platform.registry.adapted_conformal import AdaptedConformal, adapted_path, load_adapted, store_adapted
from ml_platform.registry.manifest import Conformal, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.protocols.test_open_inference import tensors
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store, score, softmax_graph

PATH = f"/predict/{MODEL}"
SETS = Conformal(
    levels=(0.5, 0.9, 0.99),
    cutoffs=(0.6, 0.3, 0.05),
    rows=500,
    first="2013-05-01T00:00:00Z",
    last="2013-05-29T00:00:00Z",
)
VALUES = Conformal(
    levels=(0.5, 0.9, 0.99), lower=(-1.0, -3.0, -9.0), upper=(2.0, 5.0, 20.0), rows=500,
    first="2013-05-01T00:00:00Z", last="2013-05-29T00:00:00Z",
)  # fmt: skip
BINARY, WITHOUT, REGRESSION, MULTICLASS = 3, 4, 5, 6


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill_online_store(module_settings)
    store = ReleaseStore(module_settings.releases_dir)
    several: dict[str, Any] = {"task": "multiclass", "classes": ("a", "b", "c"), "threshold": None}
    bundles = {
        BINARY: bundle(BINARY, conformal=SETS),
        WITHOUT: bundle(WITHOUT),
        REGRESSION: bundle(REGRESSION, task="regression", threshold=None, conformal=VALUES),
        MULTICLASS: bundle(MULTICLASS, graph=softmax_graph(3), conformal=SETS, **several),
    }
    targets = [
        Target(version=version, digest=store.put_bundle(files), share=float(version == BINARY), mode="live")
        if version == BINARY
        else Target(version=version, digest=store.put_bundle(files), share=0.0, mode="shadow")
        for version, files in bundles.items()
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")
    server = start_server(module_settings)
    yield server
    server.stop()


def asked(client: httpx.Client, version: int, level: object, count: int = 1) -> Any:
    rows = [{**ROW, "distance": 100 + 57 * number} for number in range(count)]
    body = rows[0] if count == 1 else {"rows": rows}
    return client.post(f"{PATH}/versions/{version}", params={"interval": str(level)}, json=body).json()


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("level", [0.5, 0.7, 0.9, 0.99])
def test_a_regression_gets_an_interval_around_each_value(client: httpx.Client, count: int, level: float) -> None:
    answer = asked(client, REGRESSION, level, count)
    low, high = interval_bounds(VALUES, level)
    assert answer["interval"] == {"level": level, "adapted": False, "last": VALUES.last}
    assert len(answer["predictions"]) == count
    for prediction in answer["predictions"]:
        value = prediction["prediction"]
        assert prediction["interval"] == {
            "lower": pytest.approx(value + low),
            "upper": pytest.approx(value + high),
            "width": pytest.approx(high - low),
        }
        assert "prediction_set" not in prediction


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_classifier_gets_the_classes_that_may_be_true(client: httpx.Client, count: int) -> None:
    for prediction in asked(client, BINARY, 0.9, count)["predictions"]:
        probability = prediction["probability"]
        assert prediction["prediction_set"] == [
            *([False] if 1 - probability >= 0.3 else []), *([True] if probability >= 0.3 else [])
        ]  # fmt: skip
    for prediction in asked(client, MULTICLASS, 0.9, count)["predictions"]:
        named = prediction["probabilities"]
        wanted = [name for name in ("a", "b", "c") if named[name] >= 0.3]
        assert prediction["prediction_set"] == (wanted or [prediction["prediction"]])


def test_nothing_is_added_where_nothing_was_asked(client: httpx.Client) -> None:
    answer = client.post(PATH, json=ROW).json()
    assert "interval" not in answer
    assert set(answer["predictions"][0]) == {"id", "prediction", "probability"}


def test_a_version_without_numbers_says_what_to_do(client: httpx.Client) -> None:
    answer = asked(client, WITHOUT, 0.9)
    assert answer["error"]["code"] == "no_intervals"
    assert "ml-platform recalibrate" in answer["error"]["message"]


@pytest.mark.parametrize("level", ["0.49", "0.991", "1", "-0.9", "nan", "inf", "", "x", "0.9.", "1e400", "90", "٠.٩"])
def test_a_level_that_none_can_have_is_refused(client: httpx.Client, level: str) -> None:
    answer = client.post(PATH, params={"interval": level}, json=ROW)
    assert answer.status_code == 422
    [problem] = answer.json()["error"]["problems"]
    assert problem["field"] == "interval"
    assert "wanted a level from 0.5 to 0.99" in problem["message"]


def test_it_goes_with_details_and_the_last_of_two_levels_counts(client: httpx.Client) -> None:
    answer = client.post(f"{PATH}?interval=0.5&interval=0.9&features=true", json=ROW).json()
    assert answer["interval"]["level"] == 0.9
    assert "features" in answer["predictions"][0]


def test_mlflow_takes_it_from_params_or_the_query(client: httpx.Client) -> None:
    row = {"dataframe_records": [ROW, ROW]}
    wanted = client.post(PATH, params={"interval": "0.9"}, json=ROW).json()["predictions"][0]["prediction_set"]
    for answer in (
        client.post(f"/models/{MODEL}/invocations", json={**row, "params": {"interval": 0.9}}),
        client.post(f"/models/{MODEL}/invocations?interval=0.9", json=row),
        client.post(f"/serving-endpoints/{MODEL}/invocations", json={**row, "params": {"interval": 0.9}}),
    ):
        content = answer.json()
        assert content["interval"]["level"] == 0.9
        assert content["prediction_sets"] == [wanted] * 2
    both = client.post(f"/models/{MODEL}/invocations?interval=0.9", json={**row, "params": {"interval": 0.9}})
    assert both.json()["interval"]["level"] == 0.9
    apart = client.post(f"/models/{MODEL}/invocations?interval=0.8", json={**row, "params": {"interval": 0.9}})
    assert apart.status_code == 400
    assert "interval: wanted one level, found 0.8 in the query and 0.9 in the body" in apart.json()["message"]
    refused = client.post(f"/models/{MODEL}/invocations", json={**row, "params": {"interval": 2}})
    assert refused.status_code == 400
    assert "wanted a level from 0.5 to 0.99" in refused.json()["message"]
    assert "interval" not in client.post(f"/models/{MODEL}/invocations", json={**row, "params": {"other": 1}}).json()


def test_open_inference_takes_it_from_parameters(client: httpx.Client) -> None:
    body = {"inputs": tensors(), "parameters": {"interval": 0.9}}
    outputs = {}
    for version in (BINARY, REGRESSION, MULTICLASS):
        answer = client.post(f"/v2/models/{MODEL}/versions/{version}/infer", json=body).json()
        assert answer["parameters"]["interval"] == 0.9
        outputs[version] = answer["outputs"][-1]
    assert outputs[BINARY]["name"] == outputs[MULTICLASS]["name"] == "prediction_set"
    assert outputs[BINARY]["parameters"] == {"classes": "[false,true]"}
    assert (outputs[BINARY]["shape"], outputs[BINARY]["datatype"]) == ([2, 2], "BOOL")
    assert outputs[MULTICLASS]["shape"] == [2, 3]
    assert outputs[REGRESSION]["name"] == "interval"
    low, high = outputs[REGRESSION]["data"][:2]
    assert high - low == pytest.approx(8.0)


def test_the_width_is_counted(client: httpx.Client) -> None:
    def counted(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        series = f'ml_platform_{name}_total{{model="{MODEL}",version="{REGRESSION}"}}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(series))

    before = counted("intervals"), counted("interval_width")
    asked(client, REGRESSION, 0.9, 4)
    assert counted("intervals") - before[0] == 4
    assert counted("interval_width") - before[1] == pytest.approx(4 * 8.0)


def test_the_document_describes_option_and_answers(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    options = {one["name"]: one for one in document["paths"][PATH]["post"]["parameters"]}
    assert options["interval"]["schema"] == {"type": "number", "minimum": 0.5, "maximum": 0.99}
    answer = document["components"]["schemas"][f"{MODEL}_answer"]["properties"]
    assert answer["interval"]["required"] == ["level", "adapted", "last"]
    assert answer["predictions"]["items"]["properties"]["prediction_set"]["items"] == {"type": "boolean"}


def adapted(digest: str, conformal: Conformal) -> AdaptedConformal:
    return AdaptedConformal(
        digest=digest, conformal=conformal, misses=((0.1, 0.1),) * 3, through="2013-06-20T00:00:00Z", days=3,
        gamma=0.1, updated_at=datetime.now(UTC).isoformat(),
    )  # fmt: skip


def test_adapted_numbers_are_served_as_they_come_and_damage_changes_nothing(
    server: Server, module_settings: Settings
) -> None:
    store = ReleaseStore(module_settings.releases_dir)
    document = store.endpoint(MODEL)
    assert document is not None
    digests = {target.version: target.digest for target in document.targets}
    wider = msgspec.structs.replace(VALUES, lower=(-2.0, -6.0, -9.0), last="2013-06-20T00:00:00Z")
    store_adapted(store, adapted(digests[REGRESSION], wider))
    server.wait_until(lambda client: asked(client, REGRESSION, 0.9)["interval"]["adapted"])
    answer = asked(server.client, REGRESSION, 0.9)
    assert answer["predictions"][0]["interval"]["width"] == pytest.approx(11.0)
    assert answer["interval"]["last"] == "2013-06-20T00:00:00Z"
    store_adapted(store, adapted(digests[WITHOUT], SETS))  # gives intervals to a version that had none
    server.wait_until(lambda client: "error" not in asked(client, WITHOUT, 0.9))
    adapted_path(store, digests[REGRESSION]).write_bytes(b"{")
    further = msgspec.structs.replace(SETS, last="2013-06-21T00:00:00Z")
    store_adapted(store, adapted(digests[BINARY], further))
    server.wait_until(lambda client: asked(client, BINARY, 0.9)["interval"]["adapted"])  # looked at after the damage
    assert asked(server.client, REGRESSION, 0.9)["predictions"][0]["interval"]["width"] == pytest.approx(11.0)
    assert server.client.post(PATH, json=ROW).json()["predictions"][0]["probability"] == pytest.approx(score(3, ROW))


def test_numbers_of_another_bundle_are_refused(module_settings: Settings, tmp_path) -> None:
    store = ReleaseStore(tmp_path / "releases")
    store_adapted(store, adapted("a" * 64, SETS))
    assert load_adapted(store, "b" * 64) is None
    adapted_path(store, "a" * 64).rename(adapted_path(store, "b" * 64))
    with pytest.raises(DocumentUnreadable, match="remove the file"):
        load_adapted(store, "b" * 64)
    with pytest.raises(ValueError, match="wanted 64 hexadecimal digits"):
        adapted_path(store, "../x")
