"""Versions by number, the features that were used, and explanations, from a server as it is run."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from ml_platform.registry.manifest import Imported, Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.prediction.explanations import why_not_explained
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, features, fill_online_store, score

PATH = "/predict/flight_delay"


def boosted() -> tuple[Any, bytes]:
    """A few trees over the columns of the tests' model, and their graph."""
    from lightgbm import LGBMClassifier

    from ml_platform.training.export.onnx_trees import export_trees
    from ml_platform.training.families.lightgbm import trees_of

    random = np.random.default_rng(0)
    X = random.normal(size=(5000, len(features()))) * 20
    X[:, 7] = np.where(random.random(len(X)) < 0.3, np.nan, X[:, 7])
    y = (X[:, 1] / 50 + X[:, 5] + np.nan_to_num(X[:, 7]) + random.normal(size=len(X)) * 10) > 0
    model = LGBMClassifier(n_estimators=30, num_leaves=15, verbosity=-1, random_state=0).fit(X, y)
    return model, export_trees(trees_of(model.booster_, "binary"), "binary", len(features()))


@pytest.fixture(scope="module")
def trees() -> tuple[Any, bytes]:
    return boosted()


@pytest.fixture(scope="module")
def server(module_settings: Settings, trees: tuple[Any, bytes]) -> Iterator[Server]:
    fill_online_store(module_settings)
    store = ReleaseStore(module_settings.releases_dir)
    boosted_digest = store.put_bundle(bundle(7, graph=trees[1], family="lightgbm"))
    linear_digest = store.put_bundle(bundle(8))
    targets = [
        Target(version=7, digest=boosted_digest, share=1.0),
        Target(version=8, digest=linear_digest, share=0.0, mode="shadow"),
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")
    server = start_server(module_settings)
    yield server
    server.stop()


def test_a_version_is_asked_by_its_number(client: httpx.Client) -> None:
    answer = client.post(f"{PATH}/versions/8", json=ROW).json()
    assert answer["version"] == 8
    assert answer["predictions"][0]["probability"] == pytest.approx(score(8, ROW), abs=1e-12)
    assert client.post(PATH, json=ROW).json()["version"] == 7
    many = client.post(f"{PATH}/versions/8", json={"rows": [ROW] * 50}).json()
    assert (many["version"], len(many["predictions"])) == (8, 50)


@pytest.mark.parametrize("version", ["9", "x", "-1", "8.0", "١", "9" * 400, "%2e%2e"])
def test_an_unknown_version_is_404(client: httpx.Client, version: str) -> None:
    answer = client.post(f"{PATH}/versions/{version}", json=ROW)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("unknown_version", "not_found")
    if version == "9":
        assert "loaded are: 7, 8" in answer.json()["error"]["message"]


@pytest.mark.parametrize("count", [1, 3, 50])
def test_features_are_given_as_the_model_saw_them(client: httpx.Client, count: int) -> None:
    rows = [{**ROW, "tailnum": None, "flight_id": str(number)} for number in range(count)]
    body = rows[0] if count == 1 else {"rows": rows}
    for prediction in client.post(PATH, params={"features": "true"}, json=body).json()["predictions"]:
        assert list(prediction["features"]) == [feature.name for feature in features()]
        assert prediction["features"]["carrier"] == "UA"
        assert prediction["features"]["minute_of_day"] == 480
        assert prediction["features"]["origin_weather__temp"] == 17.0
        assert prediction["features"]["aircraft_rotation__legs_today"] is None
        assert "explanation" not in prediction


@pytest.mark.parametrize("count", [1, 3, 50])
def test_trees_are_explained_exactly(client: httpx.Client, trees: tuple[Any, bytes], count: int) -> None:
    rows = [{**ROW, "distance": 100 + 37 * number, "carrier": ("UA", "ZZ")[number % 2]} for number in range(count)]
    body = rows[0] if count == 1 else {"rows": rows}
    answer = client.post(PATH, params={"features": "true", "explain": "true"}, json=body).json()
    names = [feature.name for feature in features()]
    for prediction in answer["predictions"]:
        said = prediction["explanation"]
        assert (said["method"], said["of"]) == ("tree_shap", "log-odds")
        values = dict(prediction["features"])
        values["carrier"] = {"UA": 2.0, "ZZ": -1.0}[values["carrier"]]
        matrix = np.array([[np.nan if values[name] is None else float(values[name]) for name in names]])
        wanted = trees[0].booster_.predict(matrix, pred_contrib=True)[0]
        assert [said["contributions"][name] for name in names] == pytest.approx(list(wanted[:-1]), abs=1e-9)
        assert said["base"] == pytest.approx(wanted[-1], abs=1e-9)
        total = said["base"] + sum(said["contributions"].values())
        assert said["raw_score"] == pytest.approx(total, abs=1e-9)
        assert prediction["probability"] == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-9)
        sizes = [abs(value) for value in said["contributions"].values()]
        assert sizes == sorted(sizes, reverse=True)


def test_what_cannot_be_explained_says_so(client: httpx.Client) -> None:
    answer = client.post(f"{PATH}/versions/8?explain=true", json=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "not_explainable")
    assert "has no explanations: its family 'linear' exports none" in answer.json()["error"]["message"]


def test_why_there_are_no_explanations_depends_on_what_made_the_version() -> None:
    made = msgspec.json.decode(bundle(8)["manifest.json"], type=Manifest)
    assert "Training it again gives the same" in why_not_explained(msgspec.structs.replace(made, family="ensemble"), 8)
    assert why_not_explained(msgspec.structs.replace(made, family="torch_mlp"), 8).endswith("torch_mlp: train it again")
    imported = Imported(by="ann", source="m.onnx", flavor="onnx", digest="0", library="onnx 1", summary="ONNX graph")
    provenance = msgspec.structs.replace(made.provenance, imported=imported)
    told = why_not_explained(msgspec.structs.replace(made, provenance=provenance), 8)
    assert "it was imported (ONNX graph)" in told
    assert "train it again" not in told


def test_at_most_a_hundred_rows_are_explained(client: httpx.Client) -> None:
    answer = client.post(f"{PATH}?explain=1", json={"rows": [ROW] * 101})
    assert answer.status_code == 422
    assert "at most 100 rows to explain, found 101" in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["explian=true", "explain=maybe", "features", "explain=true&x=1"])
def test_an_option_that_is_misspelt_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.post(f"{PATH}?{query}", json=ROW)
    assert answer.status_code == 422
    assert "explain or features" in answer.json()["error"]["message"]
