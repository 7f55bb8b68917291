"""MLflow's scoring protocol, also by MLflow's own client."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.protocols.mlflow import PARQUET
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.protocols.two_rows import COLUMNS, MLFLOW_PATHS, ROWS, as_split
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, bundle, fill_online_store, publish, score


@pytest.fixture(scope="module")
def strict(module_settings: Settings, server: Server) -> Iterator[Server]:
    """A second server of the module's models, which refuses what MLflow ignores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_SERVING_MLFLOW_EXTRAS", "refuse")
        strict = start_server(module_settings)
    yield strict
    strict.stop()


def parquet_row(**more: Any) -> bytes:
    import pandas as pd

    return pd.DataFrame([{**ROW, **more}]).to_parquet()


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


@pytest.mark.parametrize("path", MLFLOW_PATHS)
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
    "surplus": ("application/json", json.dumps({"instances": [ROW], "params": [], "extra": 1}).encode(), 1),
    "a column that is no input": ("application/json", json.dumps({"instances": [{**ROW, "z": 1}]}).encode(), 1),
    "a column of CSV that is no input": ("text/csv", csv_row(z="1"), 1),
    "the index of pandas": ("text/csv", csv_row(**{"": "0"}), 1),
    "dates": (
        "text/csv", csv_row(scheduled_departure="2013-07-01", scheduled_arrival="2013-07-01T24:00"), 1,
    ),
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
        (json.dumps({"instances": []}).encode(), "at least one row"),
        (json.dumps({"instances": [[1, 2]]}).encode(), "wanted 8 values"),
        (json.dumps({"instances": [5]}).encode(), "wanted an object, found a number"),
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
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"instances": "\xff"}', "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("path", MLFLOW_PATHS)
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
        (csv_row(distance="far"), 'found "far"'),
        (csv_row(distance="1_400"), 'found "1_400"'),
        (csv_row(distance="nan"), "found null"),
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


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("application/json", json.dumps({"instances": [ROW], "extra": 1}).encode(), "nothing else, found extra"),
        ("application/json", json.dumps({"instances": [ROW], "params": [1]}).encode(), "the only parameter"),
        ("application/json", json.dumps({"instances": [{**ROW, "dista": 1}]}).encode(), "did you mean 'distance'"),
        ("text/csv", csv_row(z="1"), "z: is not a field"),
        ("text/csv", csv_row(**{"": "0"}), "to_csv(index=False)"),
        (PARQUET, parquet_row(z=1), "z: is not an input"),
    ],
)
def test_what_mlflow_ignores_is_refused_where_the_settings_say_so(
    strict: Server, kind: str, content: bytes, told: str
) -> None:
    answer = strict.client.post("/invocations", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, told in answer.json()["message"]) == (400, True), answer.text


def test_databricks_own_members_pass_there_too(strict: Server) -> None:
    body = {"dataframe_records": [ROW], "client_request_id": "a", "usage_context": {"b": "c"}, "params": {}}
    assert strict.client.post("/invocations", json=body).status_code == 200


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


def test_mlflows_own_client_works_unchanged(server: Server, wanted: list[dict[str, Any]]) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, port = server.url.removeprefix("http://").split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready()
    assert client.get_version()
    answer = client.invoke(pd.DataFrame(ROWS))
    assert answer.get_predictions()[0].tolist() == [prediction["prediction"] for prediction in wanted]


def test_answers_equal_the_model(client: httpx.Client) -> None:
    answer = client.post("/invocations", json={"instances": [ROW]}).json()
    assert answer["probabilities"] == [pytest.approx(score(3, ROW), abs=1e-12)]
