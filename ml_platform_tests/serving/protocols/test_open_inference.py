"""The Open Inference Protocol; and what a path does not offer, in the shape of each protocol."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ml_platform.serving.protocols.binary_tensors import DTYPES, encode_tensor
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.protocols.two_rows import ROWS
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, fill_online_store, publish, softmax_graph

KSERVE = {"Content-Type": "application/json"}


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
        ({"parameters": [1]}, "wanted an object"),
        ({"outputs": [{"name": "probability", "parameters": {"classification": 2}}]}, "take the output probabilities"),
        ({"inputs": [{"name": "nope", "shape": [1], "datatype": "FP64", "data": [1]}]}, "is not an input"),
        ({"inputs": [*tensors(), tensors()[0]]}, "appears twice"),
        ({"inputs": [{**tensors()[-1], "datatype": "BYTES"}]}, "wanted datatype FP64"),
        ({"inputs": [{**tensors()[-1], "datatype": "INT32", "data": [1400.5, 1]}]}, "wanted whole numbers"),
        ({"inputs": [{**tensors()[-1], "shape": [3]}]}, "wanted shape [2] for 2 values, found [3]"),
        ({"inputs": [{**tensors()[-1], "data": None}]}, "as bytes behind it"),
        ({"inputs": [{**tensors()[-1], "data": None, "parameters": {"binary_data_size": 8}}]}, "the 0 bytes that are"),
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


def test_what_the_protocol_does_not_know_is_ignored(client: httpx.Client) -> None:
    sent = {"model_name": MODEL, "surplus": 1, "parameters": {"priority": 1}, "inputs": tensors()}
    assert client.post(f"/v2/models/{MODEL}/infer", json=sent).status_code == 200


def test_the_body_of_kserves_client(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    """What `InferenceRESTClient` of kserve 0.21 posts, which wants versions of other packages than this project."""
    sent = {"id": "call-1", "model_name": MODEL, "inputs": tensors()}
    answer = client.post(f"/v2/models/{MODEL}/infer", content=json.dumps(sent).encode(), headers=KSERVE).json()
    assert (answer["id"], answer["model_name"]) == ("call-1", MODEL)
    assert answer["outputs"][1]["data"] == [prediction["probability"] for prediction in wanted]


def infer(url: str, **options: Any) -> Any:
    """Ask by Triton's own client, whose tensors are bytes unless it is told otherwise."""
    import numpy as np
    from tritonclient.http import InferenceServerClient, InferInput

    as_bytes = options.pop("as_bytes", True)
    inputs = []
    for tensor in tensors():
        kind = np.float64 if tensor["datatype"] == "FP64" else np.object_
        inputs.append(InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        inputs[-1].set_data_from_numpy(np.array(tensor["data"], kind), binary_data=as_bytes)
    with InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_model_ready(MODEL)
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        return client.infer(MODEL, inputs, **options)


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_tritonclient_works_unchanged(
    server: Server, wanted: list[dict[str, Any]], encoding: str | None, as_bytes: bool
) -> None:
    answer = infer(
        server.url,
        as_bytes=as_bytes,
        request_id="call-1",
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    assert answer.get_response()["id"] == "call-1"
    assert answer.as_numpy("prediction").tolist() == [prediction["prediction"] for prediction in wanted]
    assert answer.as_numpy("probability").tolist() == [prediction["probability"] for prediction in wanted]


@pytest.mark.parametrize("as_bytes", [True, False])
def test_tritonclient_chooses_outputs(server: Server, wanted: list[dict[str, Any]], as_bytes: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    answer = infer(server.url, outputs=[InferRequestedOutput("probability", binary_data=as_bytes)])
    [output] = answer.get_response()["outputs"]
    assert ("data" in output) is not as_bytes
    assert answer.as_numpy("probability").tolist() == [prediction["probability"] for prediction in wanted]


def asked_in_bytes(*tensors: tuple[str, str, list[int], bytes], behind: bytes = b"") -> tuple[bytes, dict[str, str]]:
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in tensors
    ]
    text = json.dumps({"inputs": described}).encode()
    content = text + b"".join(data for *_, data in tensors) + behind
    return content, {"Inference-Header-Content-Length": str(len(text))}


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (("distance", "FP64", [1], b"1234567"), "wanted whole elements of 8 bytes, found 7 bytes"),
        (("distance", "FP64", [2], bytes(8)), "wanted shape [1] for 1 values, found [2]"),
        (("distance", "FP32", [1], b"\0\0\x80\x7f"), "found an infinite number"),
        (("distance", "FP32", [1], b"\0\0\xc0\x7f"), "is missing"),  # NaN is null; others are missing first
        (("dest", "BYTES", [1], b"\x04\0\0\0IAH"), "its last element is cut off"),
        (("dest", "BYTES", [1], b"\x04\0"), "its last element is cut off"),
        (("dest", "BYTES", [1], b"\x01\0\0\0\xff"), "utf-8"),
        (("dest", "BYTES", [1], bytes(4 * 10_002)), "at most 10,000 rows"),
    ],
)
def test_bad_bytes_are_400_and_name_the_tensor(
    client: httpx.Client, tensor: tuple[str, str, list[int], bytes], told: str
) -> None:
    content, headers = asked_in_bytes(tensor)
    answer = client.post(f"/v2/models/{MODEL}/infer", content=content, headers=headers)
    assert (answer.status_code, told in answer.json()["error"]) == (400, True), answer.text


def test_bytes_that_belong_to_no_tensor_and_wrong_lengths_are_400(client: httpx.Client) -> None:
    path = f"/v2/models/{MODEL}/infer"
    content, headers = asked_in_bytes(("distance", "FP64", [1], bytes(8)), behind=b"12")
    answer = client.post(path, content=content, headers=headers)
    assert (answer.status_code, "2 bytes behind the JSON belong to no tensor" in answer.text) == (400, True)
    for length in ("-1", "x", "", "99999", "1" * 50):
        answer = client.post(path, content=content, headers={"Inference-Header-Content-Length": length})
        assert (answer.status_code, set(answer.json())) == (400, {"error"})


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT32"])
def test_numbers_of_every_width_are_read(client: httpx.Client, datatype: str) -> None:
    import numpy as np

    values = np.array([100, 0], DTYPES[datatype])
    texts = ["carrier", "origin", "dest", "scheduled_departure", "scheduled_arrival"]
    rows = [(name, "BYTES", [2], encode_tensor("BYTES", [ROW[name]] * 2)) for name in texts]
    content, headers = asked_in_bytes(*rows, ("distance", datatype, [2], values.tobytes()))
    answer = client.post(f"/v2/models/{MODEL}/infer", content=content, headers=headers).json()
    sent = [{**{name: ROW[name] for name in texts}, "distance": distance} for distance in (100, 0)]
    own = client.post(f"/predict/{MODEL}", json={"rows": sent}).json()["predictions"]
    assert answer["outputs"][1]["data"] == [prediction["probability"] for prediction in own]


def test_every_class_has_its_probability(settings: Settings, serve: Callable[..., Server]) -> None:
    classes = ("early", "late", "on time")
    fill_online_store(settings)
    publish(settings, 1, graph=softmax_graph(len(classes)), task="multiclass", classes=classes, threshold=None)
    server = serve(settings)
    client = server.client
    own = client.post(f"/predict/{MODEL}", json={"rows": ROWS}).json()["predictions"]
    assert set(own[0]["probabilities"]) == set(classes)
    described = client.get(f"/v2/models/{MODEL}").json()["outputs"][-1]
    names = json.dumps(classes, separators=(",", ":"))
    assert described == {
        "name": "probabilities", "datatype": "FP64", "shape": [-1, 3], "parameters": {"classes": names},
    }  # fmt: skip
    answer = infer(server.url).as_numpy("probabilities")
    assert answer.tolist() == [[row["probabilities"][name] for name in classes] for row in own]


def test_integer_classes_are_integers_in_every_answer(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1, graph=softmax_graph(3), task="multiclass", classes=(1, 2, 10), threshold=None)
    server = serve(settings)
    answers = server.client.post(f"/predict/{MODEL}", json={"rows": ROWS}).json()["predictions"]
    one = server.client.post(f"/predict/{MODEL}", json=ROWS[0]).json()["predictions"]
    assert one[0]["prediction"] == answers[0]["prediction"]
    assert {type(row["prediction"]) for row in [*one, *answers]} == {int}
    assert set(answers[0]["probabilities"]) == {"1", "2", "10"}
    schema = json.dumps(server.client.get("/openapi.json").json())
    assert '"type": "integer", "enum": [1, 2, 10]' in schema
    output = server.client.post(f"/v2/models/{MODEL}/infer", json={"inputs": tensors()}).json()["outputs"][0]
    assert (output["datatype"], output["data"]) == ("INT64", [row["prediction"] for row in answers])


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
