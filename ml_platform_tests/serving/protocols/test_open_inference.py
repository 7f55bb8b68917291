"""The Open Inference Protocol; and what a path does not offer, in the shape of each protocol."""

import json
from typing import Any

import httpx
import pytest

from ml_platform_tests.serving.protocols.two_rows import ROWS
from ml_platform_tests.serving.releases import INPUTS, MODEL


def tensors() -> list[dict[str, Any]]:
    kinds = {"string": "BYTES", "timestamp": "BYTES", "number": "FP64"}
    return [
        {"name": field.name, "shape": [2], "datatype": kinds[field.type], "data": [row.get(field.name) for row in ROWS]}
        for field in INPUTS
    ]


def test_open_inference_protocol(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    assert client.get("/v2").json()["name"] == "ml-platform"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"/v2/models/{MODEL}/ready").json() == {"name": MODEL, "ready": True}
    found = client.get(f"/v2/models/{MODEL}").json()
    assert (found["versions"], found["inputs"][-1]) == (["3"], {"name": "distance", "datatype": "FP64", "shape": [-1]})
    for path in (f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/3/infer"):
        answer = client.post(path, json={"id": "call-1", "inputs": tensors()}).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == (MODEL, "3", "call-1")
        probabilities = [prediction["probability"] for prediction in wanted]
        assert answer["outputs"][1] == {
            "name": "probability", "datatype": "FP64", "shape": [2], "data": probabilities
        }  # fmt: skip
        assert answer["outputs"][0]["data"] == [prediction["prediction"] for prediction in wanted]
    selected = client.post(
        f"/v2/models/{MODEL}/infer", json={"inputs": tensors(), "outputs": [{"name": "probability"}]}
    ).json()
    assert [output["name"] for output in selected["outputs"]] == ["probability"]
    assert "id" not in selected
    nested = [{**tensor, "shape": [2, 1], "data": [[value] for value in tensor["data"]]} for tensor in tensors()]
    assert client.post(f"/v2/models/{MODEL}/infer", json={"inputs": nested}).json()["outputs"] == answer["outputs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": 1}, "wanted an array of tensors"),
        ({"outputs": [{"name": "nope"}]}, "wanted names among prediction, probability"),
        ({"id": 7}, "wanted a string"),
        ({"input": []}, "is not a field of an inference request"),
        ({"inputs": [{"name": "nope", "shape": [1], "datatype": "FP64", "data": [1]}]}, "is not an input"),
        ({"inputs": [*tensors(), tensors()[0]]}, "appears twice"),
        ({"inputs": [{**tensors()[-1], "datatype": "BYTES"}]}, "wanted datatype FP64"),
        ({"inputs": [{**tensors()[-1], "datatype": "INT32", "data": [1400.5, 1]}]}, "wanted whole numbers"),
        ({"inputs": [{**tensors()[-1], "shape": [3]}]}, "wanted shape [2] for 2 values, found [3]"),
        ({"inputs": [{**tensors()[-1], "data": None}]}, "binary_data=False"),
        ({"inputs": tensors()[:-1]}, "is missing"),
        ({"inputs": []}, "at least one"),
    ],
)
def test_bad_inference_requests_are_400_with_one_sentence(
    client: httpx.Client, change: dict[str, Any], message: str
) -> None:
    answer = client.post(f"/v2/models/{MODEL}/infer", json={"inputs": tensors(), **change})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert message in answer.json()["error"]


def test_binary_tensors_are_refused_by_their_name(client: httpx.Client) -> None:
    content = json.dumps({"inputs": tensors()}).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    answer = client.post(f"/v2/models/{MODEL}/infer", content=content + b"\0" * 16, headers=headers)
    assert (answer.status_code, set(answer.json())) == (415, {"error"})
    assert "binary data extension is not supported" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v2/models", {"error"}),
        (f"/v2/models/{MODEL}", {"error"}),
        ("/invocations", {"error_code", "message"}),
        (f"/api/2.0/serving-endpoints/{MODEL}/tags", {"error_code", "message"}),
    ],
)
def test_what_a_path_does_not_offer_is_told_in_its_protocols_shape(
    client: httpx.Client, path: str, shape: set[str]
) -> None:
    answer = client.patch(path, headers={"X-Request-ID": "mine"})
    assert set(answer.json()) == shape
    assert answer.headers["x-request-id"] == "mine"
    assert (answer.status_code, "PATCH is not allowed here; allowed are " in answer.text) in ((404, False), (405, True))


def test_unknown_models_and_versions_are_404_there(client: httpx.Client) -> None:
    for path in ("/v2/models/nope", f"/v2/models/{MODEL}/versions/9", f"/v2/models/{MODEL}/versions/x/ready"):
        assert (client.get(path).status_code, set(client.get(path).json())) == (404, {"error"})
