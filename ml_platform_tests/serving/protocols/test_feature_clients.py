"""Features by the clients of Databricks' feature serving and of Feast."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.feature_services import ROTATION, SERVICE, WEATHER, fill, publish_service, write_view

ROWS: list[dict[str, Any]] = [
    {"origin": "EWR", "aircraft": "N1", "departure": "2013-07-05T12:00:00Z", "distance": 200},
    {"origin": "JFK", "aircraft": None, "departure": "2013-07-05T12:00:00Z", "distance": None},
]
Serve = Callable[..., Server]
OUTPUTS: list[dict[str, Any]] = [
    {**ROWS[0], "temp": 39.5, "visib": None, "legs": 2, "day": 5, "km": 300.0},
    {**ROWS[1], "temp": None, "visib": None, "legs": None, "day": 5, "km": 150.0, "distance": 100.0},
]


@pytest.fixture(scope="module")
def filled(module_settings: Settings) -> datetime:
    return fill(module_settings)


@pytest.fixture(scope="module")
def server(module_settings: Settings, filled: datetime) -> Iterator[Server]:
    publish_service(module_settings)
    server = start_server(module_settings)
    yield server
    server.stop()


def test_databricks_sdk_asks_a_service(server: Server) -> None:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import BadRequest
    from databricks.sdk.service.serving import DataframeSplitInput

    endpoints = WorkspaceClient(host=server.url, token="any", auth_type="pat").serving_endpoints
    answer = endpoints.query(SERVICE, dataframe_records=ROWS)
    assert (answer.outputs, answer.served_model_name) == (OUTPUTS, SERVICE)
    split = DataframeSplitInput(columns=list(ROWS[0]), data=[list(row.values()) for row in ROWS])
    assert endpoints.query(SERVICE, dataframe_split=split).outputs == OUTPUTS
    with pytest.raises(BadRequest, match="origin: wanted a string, found 7"):
        endpoints.query(SERVICE, dataframe_records=[{**ROWS[0], "origin": 7}])


def test_mlflow_deployments_asks_a_service(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "any")
    answer = get_deploy_client("databricks").predict(endpoint=SERVICE, inputs={"dataframe_records": ROWS})
    assert answer["outputs"] == OUTPUTS
    assert answer["freshness"][WEATHER]["status"] == ["present", "expired"]
    assert answer["freshness"]["rotation"]["status"] == ["present", "null_key"]


def feast(client: httpx.Client, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = client.post("/get-online-features", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def test_feasts_body_is_answered_by_column(client: httpx.Client, filled: datetime) -> None:
    keys = ["EWR", "JFK", "LGA"]
    names = [f"{WEATHER}:visib", f"{WEATHER}:temp"]
    found = by_name(feast(client, entities={"origin": keys}, features=names))
    assert list(found) == ["origin", "visib", "temp"]
    assert found["origin"]["values"] == keys
    assert found["temp"]["values"] == [39.5, None, None]
    assert found["temp"]["statuses"] == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found["visib"]["statuses"][0] == "NULL_VALUE"
    assert datetime.fromisoformat(found["temp"]["event_timestamps"][0]) == filled
    assert found["temp"]["event_timestamps"][2] == "1970-01-01T00:00:00Z"


def test_feast_asks_several_views_and_a_service(client: httpx.Client) -> None:
    entities = {"origin": ["EWR"], "tailnum": ["N1"], "day": [5]}
    names = [f"{WEATHER}:temp", f"{ROTATION}:temp"]
    error = feast(client, 422, entities=entities, features=names)
    assert "['temp'] would stand for two columns" in error["detail"]
    found = by_name(feast(client, entities=entities, features=names, full_feature_names=True))
    assert found[f"{WEATHER}__temp"]["values"] == [39.5]
    assert found[f"{ROTATION}__temp"]["values"] == [1.5]
    entities = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    found = by_name(feast(client, entities=entities, feature_service=SERVICE))
    assert {name: one["values"] for name, one in found.items() if name not in entities} == {
        name: [row[name] for row in OUTPUTS] for name in ("temp", "visib", "legs", "day", "km")
    }


def test_what_json_cannot_say_is_a_null_value_and_counts_go_by_view(settings: Settings, serve: Serve) -> None:
    rows = [
        {"origin": name, "temp": temp, "visib": 1.0, "event_time": datetime.now(UTC)}
        for name, temp in (("EWR", float("nan")), ("JFK", float("inf")), ("LGA", 3.0))
    ]
    write_view(settings, WEATHER, rows)
    client = serve(settings).client
    keys = ["EWR", "JFK", "LGA"]
    found = by_name(feast(client, entities={"origin": keys}, features=[f"{WEATHER}:temp"]))["temp"]
    assert found["values"] == [None, None, 3.0]
    assert found["statuses"] == ["NULL_VALUE", "NULL_VALUE", "PRESENT"]
    feast(client, 422, entities={"origin": [7]}, features=[f"{WEATHER}:temp"])
    metrics = client.get("/metrics").text
    for status in (200, 422):
        assert f'ml_platform_feature_lookups_total{{name="{WEATHER}",status="{status}"}} 1.0' in metrics
    assert f'ml_platform_feature_lookup_rows_total{{name="{WEATHER}"}} 3.0' in metrics


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (422, {"entities": {"origin": ["EWR"]}}, "wanted either `features` or `feature_service`"),
        (422, {"entities": {"origin": []}, "features": [f"{WEATHER}:temp"]}, "wanted columns of one length"),
        (422, {"entities": {"origin": ["EWR"], "b": []}, "features": [f"{WEATHER}:temp"]}, "origin 1, b 0"),
        (422, {"entities": {"origin": ["EWR"]}, "features": ["temp"]}, "wanted `view:feature`"),
        (422, {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:nope"]}, "has no feature 'nope'"),
        (422, {"entities": {"origin": [7]}, "features": [f"{WEATHER}:temp"]}, "origin: wanted a string, found 7"),
        (422, {"entities": {"dest": ["EWR"]}, "features": [f"{WEATHER}:temp"]}, "dest: is not a field"),
        (404, {"entities": {"origin": ["EWR"]}, "features": ["nope:temp"]}, f"there are: {SERVICE}"),
        (422, {"entities": {"origin": ["EWR"]}, "features": [f"{SERVICE}:temp"]}, "ask for it as `feature_service`"),
        (404, {"entities": {"origin": ["EWR"]}, "feature_service": "nope"}, f"there are: {SERVICE}"),
        (422, {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:temp"], "x": 1}, "x: is not a field"),
        (422, {"entities": 3, "features": [f"{WEATHER}:temp"]}, "Expected `object`"),
    ],
)
def test_feasts_clients_are_told_what_is_wrong(
    client: httpx.Client, status: int, body: dict[str, Any], words: str
) -> None:
    assert words in feast(client, status, **body)["detail"]


FEAST_CLIENT = """
import json, sys
from datetime import timedelta
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

url, folder, view, service = sys.argv[1:]
store = FeatureStore(config=RepoConfig(
    project="client", provider="local", registry=f"{folder}/registry.db", offline_store={"type": "dask"},
    online_store={"type": "remote", "path": url}, entity_key_serialization_version=3,
))
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
weather = FeatureView(
    name=view, entities=[origin], ttl=timedelta(hours=6), source=FileSource(path="x.parquet", timestamp_field="t"),
    schema=[Field(name="temp", dtype=Float64), Field(name="visib", dtype=Float64)],
)
store.apply([origin, weather])
rows = [{"origin": key} for key in ("EWR", "JFK", "LGA")]
answer = store.get_online_features([f"{view}:temp", f"{view}:visib"], rows, full_feature_names=True)
statuses = [list(one.statuses) for one in answer.proto.results]
entities = json.loads(sys.stdin.read())
named = FeatureService(name=service, features=[weather])
other = store._get_provider().get_online_features(
    config=store.config, features=named, entity_rows=entities, registry=store.registry, project="client",
    full_feature_names=False,
)
print(json.dumps({"values": answer.to_dict(), "statuses": statuses, "service": other.to_dict()}))
"""


@pytest.mark.slow
def test_feasts_own_remote_online_store_reads_from_here(server: Server, tmp_path: Path) -> None:
    python = tmp_path / "venv/bin/python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", str(python), "feast==0.67.*", "pandas<3"]
    subprocess.run(install, check=True)
    entities = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    done = subprocess.run(
        [str(python), "-c", FEAST_CLIENT, server.url, str(tmp_path), WEATHER, SERVICE],
        input=json.dumps(entities),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FEAST_USAGE": "False"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["values"]["origin"] == ["EWR", "JFK", "LGA"]
    assert found["values"][f"{WEATHER}__temp"] == [39.5, None, None]
    assert found["statuses"][1] == [1, 4, 3]  # PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND
    assert found["service"]["temp"] == [39.5, None]
    assert found["service"]["km"] == [300.0, 150.0]
