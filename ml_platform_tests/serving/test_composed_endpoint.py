"""A composed endpoint over HTTP: every protocol, keys, metrics, descriptions and the console treat it as a model."""

import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.governance.keys import KeyStore
from ml_platform.inference.composition.publish import publish_composition
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.manifest import Golden, Input, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.openapi.test_document import FEW, assert_keeps_its_contract
from ml_platform_tests.serving.releases import INPUTS, ROW, bundle, fill_online_store, score

NAME = "late_together"
MEAN = (score(1, ROW) + score(20, ROW)) / 2
SPEC = ComposedEndpointSpec.model_validate(
    {
        "name": NAME,
        "description": "Late, by two models.",
        "owner": "team:x",
        "ensemble": {"members": {"north": 1, "south": 1}},
    }
)


def release(settings: Settings, name: str, version: int, **changes: Any) -> None:
    store = ReleaseStore(settings.releases_dir)
    files = bundle(version, model=name, **changes)
    golden = msgspec.json.decode(files["golden.json"], type=Golden)
    names = [one.name for one in changes.get("inputs", INPUTS)]
    rows = tuple({**dict.fromkeys(names), **row} for row in golden.inputs)
    files["golden.json"] = msgspec.json.encode(msgspec.structs.replace(golden, inputs=rows))
    digest = store.put_bundle(files)
    store.publish(name, [Target(version=version, digest=digest)], reason="for a test", by="pytest")


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill_online_store(module_settings)
    release(module_settings, "north", 1)
    release(module_settings, "south", 20)
    publish_composition(ReleaseStore(module_settings.releases_dir), SPEC, by="pytest", reason="for a test")
    server = start_server(module_settings)
    yield server
    server.stop()


def test_every_protocol_answers_the_mean(server: Server) -> None:
    own = server.client.post(f"/predict/{NAME}", json=ROW).json()
    assert own["members"] == {"north": 1, "south": 20}
    assert own["predictions"][0]["probability"] == pytest.approx(MEAN)
    assert server.client.post(f"/predict/{NAME}/versions/1", json=ROW).json()["predictions"] == own["predictions"]
    records = {"dataframe_records": [ROW]}
    mlflow = server.client.post(f"/models/{NAME}/invocations", json=records)
    databricks = server.client.post(f"/serving-endpoints/{NAME}/invocations", json=records)
    assert mlflow.status_code == databricks.status_code == 200
    probability = own["predictions"][0]["probability"]
    assert [str(probability) in answer.text for answer in (mlflow, databricks)] == [True, True]
    about = server.client.get(f"/v2/models/{NAME}").json()
    assert about["versions"] == ["1"]
    inputs = [
        {"name": one["name"], "datatype": one["datatype"], "shape": [1, 1], "data": [ROW[one["name"]]]}
        for one in about["inputs"]
    ]
    tensors = server.client.post(f"/v2/models/{NAME}/infer", json={"inputs": inputs})
    assert tensors.status_code == 200, tensors.text
    values = {one["name"]: one["data"] for one in tensors.json()["outputs"]}
    assert [MEAN] in [pytest.approx(data) for data in values.values() if isinstance(data[0], float)]


def test_it_is_described_like_a_model(server: Server) -> None:
    listed = {one["name"]: one for one in server.client.get("/models").json()["models"]}
    assert listed[NAME]["status"] == "serving"
    assert listed[NAME]["versions"][0]["family"] == "ensemble"
    assert (listed[NAME]["members"], listed["north"]["members"]) == ({"north": [1], "south": [20]}, {})
    assert server.client.get(f"/models/{NAME}").json()["owner"] == "team:x"
    document = server.client.get("/openapi.json").json()
    answer = document["paths"][f"/predict/{NAME}"]["post"]["responses"]["200"]
    assert NAME in json.dumps(answer)
    schemas = [schema.get("properties", {}).get("members", {}) for schema in document["components"]["schemas"].values()]
    [members] = [schema["properties"] for schema in schemas if "properties" in schema]
    assert set(members) == {"north", "south"}
    for path in ("/", f"/models/{NAME}/console"):
        page = server.client.get(path)
        assert page.status_code == 200, page.text
        assert "Late, by two models." in page.text
        assert f"models/{NAME}/console/versions" not in page.text  # it has none of its own
    metrics = server.client.get("/metrics").text
    assert f'ml_platform_predictions_total{{model="{NAME}",version="1"}}' in metrics


def test_requests_and_answers_are_as_its_openapi_document_says(server: Server, tmp_path: Path) -> None:
    assert_keeps_its_contract(server, tmp_path, *FEW, "--include-path-regex", f"^/predict/{NAME}$")


def test_nobody_changes_its_traffic_as_a_model_s(server: Server) -> None:
    config = {"served_entities": [{"entity_name": "north", "entity_version": "1"}]}
    answer = server.client.put(f"/api/2.0/serving-endpoints/{NAME}/config", json=config)
    assert answer.status_code == 400
    assert "is the name of a composed endpoint" in answer.text


def test_parquet_and_columns_are_answered_as_rows_are(server: Server) -> None:
    rows = [{**ROW, "flight_id": f"f{number}", "distance": 300.0 + number} for number in range(1000)]
    own = server.client.post(f"/predict/{NAME}", json={"rows": rows}).json()
    wanted = [one["probability"] for one in own["predictions"]]
    assert len(set(wanted)) > 1
    names = list(ROW)
    split = {"columns": names, "data": [[row[name] for name in names] for row in rows]}
    answer = server.client.post(f"/models/{NAME}/invocations", json={"dataframe_split": split})
    assert answer.status_code == 200, answer.text
    told = server.client.post(f"/models/{NAME}/invocations", json={"dataframe_records": rows})
    assert answer.json() == told.json()
    columns = {name: [row[name] for row in rows] for name in names}
    answer = server.client.post(f"/models/{NAME}/invocations", json={"inputs": columns})
    assert answer.json() == told.json()
    body = io.BytesIO()
    pl.DataFrame(rows).with_columns(
        pl.col("^(scheduled|prediction).*$").str.to_datetime(time_zone="UTC")
    ).write_parquet(body)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    answer = server.client.post(f"/models/{NAME}/invocations", content=body.getvalue(), headers=kind)
    assert answer.status_code == 200, answer.text
    assert answer.json() == told.json()


def test_its_openapi_document_follows_its_members(server: Server, module_settings: Settings) -> None:
    def limits() -> object:
        document = server.client.get("/openapi.json").json()
        return document["components"]["schemas"][f"{NAME}_row"]["properties"].get("seats")

    assert limits() is None
    seats = Input(name="seats", type="number", minimum=0.0, maximum=1.0, example=0.3, required=False)
    release(module_settings, "south", 21, inputs=(*INPUTS, seats))
    server.wait_until(lambda _: limits() is not None)
    assert server.client.post(f"/predict/{NAME}", json={**ROW, "seats": 0.5}).json()["members"]["south"] == 21
    release(module_settings, "south", 22)
    server.wait_until(lambda _: limits() is None)
    assert server.client.post(f"/predict/{NAME}", json={**ROW, "seats": 0.5}).status_code == 422


def test_a_server_that_is_killed_and_started_answers_as_before(
    settings: Settings, serve: Callable[..., Server]
) -> None:
    """A member's canary does not fit: killed at any time, the composed endpoint answers by what fitted last."""
    fill_online_store(settings)
    release(settings, "north", 1)
    release(settings, "south", 20)
    store = ReleaseStore(settings.releases_dir)
    publish_composition(store, SPEC, by="pytest", reason="for a test")
    server = serve(settings)
    server.wait_until(lambda client: client.post(f"/predict/{NAME}", json=ROW).status_code == 200)
    before = server.client.post(f"/predict/{NAME}", json=ROW).json()["predictions"]
    value = bundle(21, model="south", task="regression", threshold=None)
    targets = [
        Target(version=20, digest=store.document("south").targets[0].digest, share=0.5),  # type: ignore[union-attr]
        Target(version=21, digest=store.put_bundle(value), share=0.5),
    ]
    store.publish("south", targets, reason="a canary", by="pytest")
    for _ in range(2):
        server.wait_until(lambda client: client.get(f"/models/{NAME}").json()["refused"] is not None)
        for number in range(10):
            row = {**ROW, "flight_id": f"f{number}"}
            answer = server.client.post(f"/predict/{NAME}", json=row).json()
            assert answer["members"] == {"north": 1, "south": 20}
            assert answer["predictions"][0]["probability"] == before[0]["probability"]
        server.stop(signal.SIGKILL)
        server = serve(settings)
        server.wait_until(lambda client: client.get("/health/ready").status_code == 200)
    alerts = (settings.alerts_dir / "alerts.jsonl").read_text().splitlines()
    told = {(json.loads(line)["model"], json.loads(line)["title"]) for line in alerts}
    assert told == {(NAME, "its members do not answer together")}  # once more where it was killed as it was told
    release(settings, "south", 22)
    server.wait_until(
        lambda client: client.post(f"/predict/{NAME}", json=ROW).json()["members"] == {"north": 1, "south": 22}
    )


def test_a_key_s_rate_counts_its_requests_once(server: Server, module_settings: Settings) -> None:
    """A request to a composed endpoint is one, however many members answer it."""
    keys = KeyStore(module_settings.keys_dir)
    _, slow = keys.create("slow", roles=["predict"], models=[NAME], rate=0.002, burst=3)
    _, later = keys.create("made later", roles=["predict"], models=["another"])
    path = f"{server.url}/predict/{NAME}"
    server.wait_until(lambda _: httpx.post(path, json=ROW, headers=bearer(later), timeout=60).status_code == 403)
    answers = [httpx.post(path, json=ROW, headers=bearer(slow), timeout=60).status_code for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_a_key_for_it_opens_it_and_not_its_members(server: Server, module_settings: Settings) -> None:
    _, key = KeyStore(module_settings.keys_dir).create("clients", roles=["predict"], models=[NAME])

    def status(name: str) -> int:
        return httpx.post(f"{server.url}/predict/{name}", json=ROW, headers=bearer(key), timeout=60).status_code

    server.wait_until(lambda _: status("north") == 403)  # an open server answers 200, one that knows other keys 401
    assert status(NAME) == 200
    CompositionStore(ReleaseStore(module_settings.releases_dir)).publish(
        NAME, None, description=SPEC.description, owner=SPEC.owner, reason="over", by="pytest"
    )
    server.wait_until(lambda _: status(NAME) == 410)
