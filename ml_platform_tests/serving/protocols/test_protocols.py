"""MLflow's, Databricks' and the Open Inference Protocol, by their own clients where there are any."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, bundle, fill_online_store, publish, score

SECOND = {**ROW, "flight_id": "second", "tailnum": None, "distance": 333.5}
ROWS = [ROW, SECOND]
COLUMNS = [field.name for field in INPUTS]
MLFLOW = ("/invocations", f"/models/{MODEL}/invocations", f"/serving-endpoints/{MODEL}/invocations")


@pytest.fixture
def wanted(client: httpx.Client) -> list[dict[str, Any]]:
    """What our own route answers to the two rows."""
    found: list[dict[str, Any]] = client.post(f"/predict/{MODEL}", json={"rows": ROWS}).json()["predictions"]
    assert found[0]["probability"] != found[1]["probability"]
    return found


def as_split() -> dict[str, Any]:
    return {"columns": COLUMNS, "data": [[row.get(name) for name in COLUMNS] for row in ROWS]}


def csv_row(**changes: str) -> bytes:
    row = {**ROW, **changes}
    return f"{','.join(row)}\n{','.join(map(str, row.values()))}".encode()


FORMATS: dict[str, Any] = {
    "dataframe_split": as_split(),
    "dataframe_split with an index": {**as_split(), "index": [0, 1]},
    "dataframe_records": ROWS,
    "instances": ROWS,
    "instances by position": as_split()["data"],
    "inputs": {name: [row.get(name) for row in ROWS] for name in COLUMNS},
    "inputs as rows": ROWS,
}


@pytest.mark.parametrize("path", MLFLOW)
@pytest.mark.parametrize("name", FORMATS)
def test_every_json_format_gives_the_predictions_of_our_own_route(
    client: httpx.Client, wanted: list[dict[str, Any]], path: str, name: str
) -> None:
    answer = client.post(path, json={name.split(maxsplit=1)[0]: FORMATS[name], "params": {}})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["predictions"] == [prediction["prediction"] for prediction in wanted]
    assert body["probabilities"] == [prediction["probability"] for prediction in wanted]
    assert body["model_version"] == 3


def test_csv_as_pandas_writes_it(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    import pandas as pd

    text = pd.DataFrame(ROWS).to_csv(index=False)
    for kind in ("text/csv", "text/csv; charset=utf-8", 'text/csv; charset="UTF-8"'):
        answer = client.post("/invocations", content=text, headers={"Content-Type": kind})
        assert answer.json()["probabilities"] == [prediction["probability"] for prediction in wanted]


def test_pandas_timestamps_without_offset_are_utc(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    for name in ("scheduled_departure", "scheduled_arrival"):
        frame[name] = pd.to_datetime(frame[name]).dt.tz_localize(None)
    body = f'{{"dataframe_split": {frame.to_json(orient="split", date_format="iso")}}}'
    answer = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["probabilities"] == [prediction["probability"] for prediction in wanted]


SOME: dict[str, tuple[str, bytes, int]] = {
    "one record": ("application/json", json.dumps({"dataframe_records": [ROW]}).encode(), 1),
    "one instance": ("application/json", json.dumps({"instances": [ROW]}).encode(), 1),
    "columns of single values": ("application/json", json.dumps({"inputs": ROW}).encode(), 1),
    "columns of one value": ("application/json", json.dumps({"inputs": {n: [v] for n, v in ROW.items()}}).encode(), 1),
    "an index that repeats": (
        "application/json", json.dumps({"dataframe_split": {**as_split(), "index": [0, 0, 0]}}).encode(), 2,
    ),
    "lines between quotes": ("text/csv", csv_row(dest='"I\n\nAH"'), 1),
    "a byte order mark": ("text/csv", b"\xef\xbb\xbf" + csv_row(), 1),
    "times without seconds and offset": (
        "text/csv", csv_row(scheduled_departure="2013-07-01 12:00", scheduled_arrival="2013-07-01T15:30"), 1,
    ),
    "empty lines": ("text/csv", csv_row().replace(b"\n", b"\n\n\n") + b"\n\n\n", 1),
    "many": ("application/json", json.dumps({"instances": ROWS * 700}).encode(), 1_400),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOME)
def test_there_is_one_prediction_for_each_row(client: httpx.Client, kind: str) -> None:
    """MLflow's server may answer more than it was asked, where it stretches values over rows."""
    media_type, body, rows = SOME[kind]
    answer = client.post("/invocations", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == len(answer.json()["probabilities"]) == rows


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "wanted an object with one of dataframe_split"),
        (b"{}", "wanted exactly one of"),
        (json.dumps({"instances": [], "inputs": []}).encode(), "wanted exactly one of"),
        (json.dumps({"instances": ROWS, "extra": 1}).encode(), "nothing else"),
        (json.dumps({"instances": []}).encode(), "at least one row"),
        (json.dumps({"instances": [[1, 2]]}).encode(), "wanted 8 values"),
        (json.dumps({"instances": [5]}).encode(), "wanted an object, found a number"),
        (json.dumps({"instances": ROWS, "params": {"a": 1}}).encode(), "takes parameters"),
        (json.dumps({"inputs": {"carrier": ["a"], "dest": ["a", "b"]}}).encode(), "columns of one length"),
        (json.dumps({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}).encode(), "'a' appears twice"),
        (json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}).encode(), "wanted 1 values"),
        (json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1]], "x": 1}}).encode(), "columns and data"),
        (json.dumps({"instances": [{**ROW, "distance": "far"}]}).encode(), 'found "far"'),
        (json.dumps({"instances": [{**ROW, "distance": float("nan")}]}).encode(), "found null"),
        (json.dumps({"instances": [{**ROW, "distance": float("inf")}]}).encode(), "not JSON"),
        (json.dumps({"instances": [{**ROW, "distance": float("nan"), "tailnum": -float("inf")}]}).encode(), "not JSON"),
        (b'{"instances": [{"distance": NaN, "distance": NaN}]}', "distance: appears twice"),
        (b'{"instances": [{"distance": NaN, "dest": "\\ud800"}]}', "not JSON"),
        (b'{"instances": [{"distance": NaN, "dest": 1' + b"0" * 4000 + b"}]}", "is missing"),
        (b'{"instances": NaN', "not JSON"),
        (b'{"instances": [NaN,' + b"[" * 900 + b"]" * 900 + b"]}", "wanted 8 values"),
        (b'{"instances": [{"carrier": "a", "carrier": "b"}]}', "carrier: appears twice"),
        (b'{"instances": [], "instances": [[1]]}', "instances: appears twice"),
        (b'{"inputs": {"dest": ["a"], "dest": ["b"]}}', "dest: appears twice"),
        (b'{"inputs": {"dest": ["a", "b"], "carrier": "a"}}', "columns of one length"),
        (json.dumps({"instances": ROWS, "params": []}).encode(), "takes parameters"),
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"instances": "\xff"}', "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("path", MLFLOW)
def test_a_bad_body_is_400_in_mlflows_shape_and_tells_nothing_of_the_inside(
    client: httpx.Client, path: str, body: bytes, message: str
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    found = answer.json()
    assert set(found) == {"error_code", "message"}
    assert found["error_code"] == "BAD_REQUEST"
    assert message in found["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"carrier\n\xff", "not UTF-8"),
        (b'carrier\n"a', "not CSV"),
        (b"carrier,dest\na", "wanted 2 values"),
        (b"carrier,carrier\na,b", "appears twice"),
        (b"carrier,nothing\na,b", "is not a field"),
        (csv_row(distance="far"), 'found "far"'),
        (csv_row(distance="1_400"), 'found "1_400"'),
        (csv_row(distance="nan"), "found null"),
        (b",carrier\n0,UA", "to_csv(index=False)"),
        (csv_row(distance="-inf"), 'found "-inf"'),
        (csv_row(distance=""), "found null"),
        (csv_row(scheduled_departure="yesterday"), 'found "yesterday"'),
    ],
)
def test_bad_csv_is_400(client: httpx.Client, content: bytes, message: str) -> None:
    answer = client.post("/invocations", content=content, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_a_number_with_a_fraction_is_no_integer_and_a_whole_one_is(settings: Settings) -> None:
    fill_online_store(settings)
    inputs = (*INPUTS[:-1], msgspec.structs.replace(INPUTS[-1], type="integer"))
    publish(settings, 1, inputs=inputs)
    server = start_server(settings)
    try:
        fine = server.client.post("/invocations", json={"instances": [{**ROW, "distance": 1400.0}]})
        assert fine.status_code == 200
        refused = server.client.post("/invocations", json={"instances": [{**ROW, "distance": 1.5}]})
        assert (refused.status_code, "found 1.5" in refused.json()["message"]) == (400, True)
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "application/json; charset=latin-1", "a/b"])
def test_other_content_types_are_415(client: httpx.Client, kind: str) -> None:
    answer = client.post("/invocations", content=b"x", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error_code"]) == (415, "BAD_REQUEST")


@pytest.mark.parametrize("path", ["/models/nope/invocations", "/serving-endpoints/nope/invocations"])
def test_an_unknown_model_is_404(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={"instances": ROWS})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_pings_and_version(client: httpx.Client) -> None:
    for path in ("/ping", "/health", f"/models/{MODEL}/ping", f"/models/{MODEL}/health"):
        assert (client.get(path).status_code, client.get(path).text) == (200, "\n")
    for path in ("/ping", "/health/live", "/health/ready", "/v2/health/live"):
        assert (client.head(path).status_code, client.head(path).content) == (200, b"")
    assert client.get("/models/nope/ping").status_code == 404
    assert client.get("/version").text == client.get(f"/models/{MODEL}/version").text != ""


def test_the_root_answers_only_while_there_is_one_model(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = ReleaseStore(settings.releases_dir)
    files = bundle(1)
    manifest = msgspec.structs.replace(msgspec.json.decode(files["manifest.json"], type=Manifest), model="other")
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(files["model.onnx"], manifest))
    digest = store.put_bundle({**files, "manifest.json": msgspec.json.encode(manifest)})
    store.publish("other", [Target(version=1, digest=digest)], reason="test", by="pytest")
    server = serve(settings)
    answer = server.client.post("/invocations", json={"instances": ROWS})
    assert answer.status_code == 404
    told = "ask /models/<model>/invocations of one of them: flight_delay, other"
    assert told in answer.json()["message"]
    assert server.client.post("/models/other/invocations", json={"instances": ROWS}).status_code == 200


def test_limits_hold_here_too(client: httpx.Client) -> None:
    large = client.post("/invocations", content=b" " * (17 * 2**20), headers={"Content-Type": "application/json"})
    assert (large.status_code, set(large.json())) == (413, {"error_code", "message"})
    many = client.post("/invocations", json={"instances": [ROW] * 10_001})
    assert (many.status_code, "at most 10,000 rows" in many.json()["message"]) == (400, True)
    assert len(client.post("/invocations", json={"instances": [ROW] * 5_000}).json()["predictions"]) == 5_000


def test_the_databricks_sdk_works_unchanged(server: Server, wanted: list[dict[str, Any]]) -> None:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import BadRequest, NotFound
    from databricks.sdk.service.serving import DataframeSplitInput

    workspace = WorkspaceClient(host=server.url, token="any", auth_type="pat")
    labels = [prediction["prediction"] for prediction in wanted]
    answer = workspace.serving_endpoints.query(MODEL, dataframe_records=ROWS)
    assert (answer.predictions, answer.served_model_name) == (labels, "flight_delay-3")
    split = DataframeSplitInput(columns=as_split()["columns"], data=as_split()["data"])
    assert workspace.serving_endpoints.query(MODEL, dataframe_split=split).predictions == labels
    assert [endpoint.name for endpoint in workspace.serving_endpoints.list()] == [MODEL]
    endpoint = workspace.serving_endpoints.get(MODEL)
    assert endpoint.config is not None
    assert endpoint.config.served_entities is not None
    assert endpoint.config.served_entities[0].entity_version == "3"
    assert endpoint.state is not None
    assert endpoint.state.ready is not None
    assert endpoint.state.ready.value == "READY"
    with pytest.raises(NotFound, match="there are: flight_delay"):
        workspace.serving_endpoints.get("nope")
    with pytest.raises(BadRequest, match="is missing"):
        workspace.serving_endpoints.query(MODEL, dataframe_records=[{"carrier": "UA"}])


def test_mlflows_own_client_works_unchanged(server: Server, wanted: list[dict[str, Any]]) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, port = server.url.removeprefix("http://").split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready()
    assert client.get_version()
    answer = client.invoke(pd.DataFrame(ROWS))
    assert answer.get_predictions()[0].tolist() == [prediction["prediction"] for prediction in wanted]


def test_mlflow_deployments_work_unchanged(
    server: Server, wanted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "any")
    client = get_deploy_client("databricks")
    answer = client.predict(endpoint=MODEL, inputs={"dataframe_records": ROWS})
    assert answer["predictions"] == [prediction["prediction"] for prediction in wanted]
    assert [endpoint["name"] for endpoint in client.list_endpoints()] == [MODEL]
    assert client.get_endpoint(MODEL)["config"]["config_version"] == 1


@pytest.fixture
def changeable(settings: Settings, serve: Callable[..., Server]) -> Server:
    """A server of its own, where versions 1 to 3 may serve and version 1 does."""
    fill_online_store(settings)
    publish(settings, 1)
    store = ReleaseStore(settings.releases_dir)
    for version in (1, 2, 3):
        store.register_version(MODEL, version, store.put_bundle(bundle(version)))
    return serve(settings)


def test_the_databricks_sdk_creates_updates_and_deletes(changeable: Server, settings: Settings) -> None:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import BadRequest, NotFound, ResourceAlreadyExists
    from databricks.sdk.service.serving import EndpointCoreConfigInput, Route, ServedEntityInput, TrafficConfig

    endpoints = WorkspaceClient(host=changeable.url, token="any", auth_type="pat").serving_endpoints
    one = ServedEntityInput(name="steady", entity_name=MODEL, entity_version="2", workload_size="Small")
    config = EndpointCoreConfigInput(name="trial", served_entities=[one])
    created = endpoints.create("trial", config=config).result()
    assert created.state is not None
    assert created.state.ready is not None
    assert created.state.ready.value == "READY"
    assert endpoints.query("trial", dataframe_records=ROWS).served_model_name == "steady"
    with pytest.raises(ResourceAlreadyExists, match="exists; update its config"):
        endpoints.create("trial", config=config)
    other = ServedEntityInput(entity_name=f"main.default.{MODEL}", entity_version="3")
    routes = [Route(served_model_name="steady", traffic_percentage=0)]
    routes += [Route(served_model_name=f"{MODEL}-3", traffic_percentage=100)]
    updated = endpoints.update_config_and_wait(
        "trial", served_entities=[one, other], traffic_config=TrafficConfig(routes=routes)
    )
    assert updated.config is not None
    assert updated.config.config_version == 2
    assert updated.creator == created.creator == "127.0.0.1 (HTTP)"
    assert updated.creation_timestamp == created.creation_timestamp == created.last_updated_timestamp
    assert updated.last_updated_timestamp is not None
    assert updated.creation_timestamp is not None
    assert updated.last_updated_timestamp > updated.creation_timestamp
    with pytest.raises(NotFound, match=r"there is nothing at /api/2.0/serving-endpoints/trial/tags"):
        endpoints.patch("trial", delete_tags=["a"])
    assert endpoints.query("trial", dataframe_records=ROWS).served_model_name == f"{MODEL}-3"
    [target, shadow] = ReleaseStore(settings.releases_dir).documents()["trial"].targets
    assert (target.version, shadow.version, shadow.mode) == (3, 2, "shadow")
    named = "/serving-endpoints/trial/served-models/steady/invocations"
    assert changeable.client.post(named, json={"instances": ROWS}).headers["served-model-name"] == "steady"
    unknown = named.replace("steady", "nope")
    assert changeable.client.post(unknown, json={"instances": ROWS}).status_code == 404
    for entities, told in (
        ([ServedEntityInput(entity_name=MODEL, entity_version="9")], "no version 9"),
        ([one, other], "want traffic_config"),
        ([one, one], "appears twice"),
        ([ServedEntityInput(entity_name=MODEL)], "entity_version, a number"),
        ([one, ServedEntityInput(entity_name="other", entity_version="1")], "versions of one model"),
    ):
        with pytest.raises(BadRequest, match=told):
            endpoints.update_config("trial", served_entities=entities)
    assert sorted(str(endpoint.name) for endpoint in endpoints.list()) == [MODEL, "trial"]
    endpoints.delete("trial")
    with pytest.raises(NotFound, match="no endpoint has this name"):
        endpoints.get("trial")
    with pytest.raises(NotFound):
        endpoints.delete("trial")
    assert [endpoint.name for endpoint in endpoints.list()] == [MODEL]
    again = endpoints.create("trial", config=config).result()
    assert again.config is not None
    assert again.config.config_version == 4


def test_mlflow_deployments_create_update_and_delete(changeable: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", changeable.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "any")
    client = get_deploy_client("databricks")
    entity = {"entity_name": MODEL, "entity_version": "2", "workload_size": "Small", "scale_to_zero_enabled": True}
    client.create_endpoint(name="trial", config={"served_entities": [entity]})

    def is_ready(_: httpx.Client) -> bool:
        state = client.get_endpoint("trial")["state"]
        return bool(state["ready"] == "READY" and state["config_update"] == "NOT_UPDATING")

    changeable.wait_until(is_ready)
    assert client.predict(endpoint="trial", inputs={"dataframe_records": ROWS})["model_version"] == 2
    served = {"served_entities": [{**entity, "entity_version": "3"}]}
    client.update_endpoint_config(endpoint="trial", config=served)
    changeable.wait_until(is_ready)
    assert client.predict(endpoint="trial", inputs={"dataframe_records": ROWS})["model_version"] == 3
    client.delete_endpoint("trial")
    assert [endpoint["name"] for endpoint in client.list_endpoints()] == [MODEL]


def test_the_databricks_api_takes_no_form_of_another_site(changeable: Server) -> None:
    body = json.dumps({"name": "trial", "config": {"served_entities": [{"entity_name": MODEL, "entity_version": "2"}]}})
    path = "/api/2.0/serving-endpoints"
    for kind, status in (("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json", 200)):
        answer = changeable.client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
    bad = changeable.client.post(f"{path}/", json={"name": "../x", "config": {"served_entities": []}})
    assert (bad.status_code, set(bad.json())) == (400, {"error_code", "message"})


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


def test_answers_equal_the_model(client: httpx.Client) -> None:
    answer = client.post("/invocations", json={"instances": [ROW]}).json()
    assert answer["probabilities"] == [pytest.approx(score(3, ROW), abs=1e-12)]
