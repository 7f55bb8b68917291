"""Features by the clients of Databricks' feature serving and of Feast."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.feature_services import (
    ROTATION,
    SCHEMAS,
    SERVICE,
    WEATHER,
    fill,
    publish_service,
    write_view,
)

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


FEAST_SERVER = """
import sys
from datetime import UTC, datetime, timedelta
import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

folder, port, view, service = sys.argv[1:]
store = FeatureStore(config=RepoConfig(
    project="server", provider="local", registry=f"{folder}/registry.db", offline_store={"type": "dask"},
    online_store={"type": "sqlite", "path": f"{folder}/online.db"}, entity_key_serialization_version=3,
))
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
now = datetime.now(UTC)
rows = pd.DataFrame({
    "origin": ["EWR", "JFK"], "temp": [39.5, 41.0], "visib": [None, 10.0],
    "event_timestamp": [now - timedelta(minutes=5), now - timedelta(hours=7)],
})
source = FileSource(path=f"{folder}/x.parquet", timestamp_field="event_timestamp")
rows.to_parquet(f"{folder}/x.parquet")
fields = [Field(name="temp", dtype=Float64), Field(name="visib", dtype=Float64)]
views = [FeatureView(name=name, entities=[origin], ttl=timedelta(hours=6), source=source, schema=fields)
         for name in (view, "other")]
store.apply([origin, *views, FeatureService(name=service, features=views[:1])])
for one in views:
    store.write_to_online_store(one.name, rows)
store.serve("127.0.0.1", int(port), no_access_log=True, workers=1, max_requests=0)
"""
TEMP = [f"{WEATHER}:temp"]
# What the documentation's table says: a body, and how Feast's server and this one answer it.
DIFFERENCES: dict[str, tuple[dict[str, Any], int, int]] = {
    "a null key": ({"entities": {"origin": ["EWR", None]}, "features": TEMP}, 500, 200),
    "another type": ({"entities": {"origin": [True]}, "features": TEMP}, 200, 422),
    "a further entity": ({"entities": {"origin": ["EWR"], "b": [1]}, "features": TEMP}, 200, 422),
    "an unknown member": ({"entities": {"origin": ["EWR"]}, "features": TEMP, "x": 1}, 200, 422),
    "both": ({"entities": {"origin": ["EWR"]}, "features": TEMP, "feature_service": SERVICE}, 200, 422),
    "an unknown view": ({"entities": {"origin": ["EWR"]}, "features": ["nope:temp"]}, 404, 404),
    "an unknown service": ({"entities": {"origin": ["EWR"]}, "feature_service": "nope"}, 404, 404),
    "an unknown feature": ({"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:nope"]}, 500, 422),
    "uneven": ({"entities": {"origin": ["EWR"], "b": []}, "features": TEMP}, 500, 422),
    "no rows": ({"entities": {"origin": []}, "features": TEMP}, 500, 422),
    "no entity": ({"entities": {"b": ["EWR"]}, "features": TEMP}, 500, 422),
    "one name twice": ({"entities": {"origin": ["EWR"]}, "features": [*TEMP, "other:temp"]}, 500, 422),
}


@pytest.fixture(scope="module")
def feast_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with Feast, which needs an older pandas than ours."""
    folder = tmp_path_factory.mktemp("feast") / "venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin/python"
    install = [*uv, "pip", "install", "--quiet", "--python", str(python), "feast==0.67.*", "pandas<3"]
    subprocess.run(install, check=True)
    return python


@pytest.fixture
def feast_server(feast_python: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """Feast's own server, with two views of the same rows and a service."""
    port = free_port()
    command = [str(feast_python), "-c", FEAST_SERVER, str(tmp_path), str(port), WEATHER, SERVICE]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "FEAST_USAGE": "False"})
    try:
        limits = httpx.Limits(max_keepalive_connections=0)  # it closes them after some of its errors
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client:
            deadline = time.monotonic() + 240
            while True:
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                    assert time.monotonic() < deadline, "Feast's server does not answer"
                    time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_feasts_own_server_differs_as_documented(settings: Settings, serve: Serve, feast_server: httpx.Client) -> None:
    fill(settings)
    other = [{"origin": "EWR", "temp": 39.5, "visib": None, "event_time": datetime.now(UTC)}]
    write_view(settings, "other", other, view_hash="3" * 64, schema=SCHEMAS[WEATHER])
    publish_service(settings)
    client = serve(settings).client

    def answers(body: dict[str, Any]) -> list[httpx.Response]:
        return [one.post("/get-online-features", json=body) for one in (feast_server, client)]

    statuses = {name: tuple(answer.status_code for answer in answers(body)) for name, (body, *_) in DIFFERENCES.items()}
    assert statuses == {name: tuple(wanted) for name, (_, *wanted) in DIFFERENCES.items()}
    body = {"entities": {"origin": ["EWR", "JFK", "XXX"]}, "features": [*TEMP, f"{WEATHER}:visib"]}
    theirs, ours = (by_name(answer.json()) for answer in answers(body))
    assert theirs["temp"]["values"] == [39.5, 41.0, None]
    assert theirs["temp"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert theirs["visib"]["statuses"][0] == "PRESENT"
    assert theirs["visib"]["values"][0] is None
    assert ours["temp"]["values"] == [39.5, None, None]
    assert ours["temp"]["statuses"] == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert ours["visib"]["statuses"][0] == "NULL_VALUE"
    assert theirs["temp"]["event_timestamps"][2] == ours["temp"]["event_timestamps"][2] == "1970-01-01T00:00:00Z"


@pytest.mark.slow
def test_feasts_own_remote_online_store_reads_from_here(server: Server, feast_python: Path, tmp_path: Path) -> None:
    entities = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    done = subprocess.run(
        [str(feast_python), "-c", FEAST_CLIENT, server.url, str(tmp_path), WEATHER, SERVICE],
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
