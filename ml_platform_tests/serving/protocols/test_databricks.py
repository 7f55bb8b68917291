"""Databricks' model serving, by its own clients."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.protocols.two_rows import ROWS, as_split
from ml_platform_tests.serving.releases import MODEL, bundle, fill_online_store, publish


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


def test_a_config_that_changes_nothing_makes_no_revision(changeable: Server) -> None:
    path = f"/api/2.0/serving-endpoints/{MODEL}"
    entities = [{"entity_name": MODEL, "entity_version": version} for version in ("1", "2")]
    routes = [{"served_model_name": f"{MODEL}-1", "traffic_percentage": 67}]
    routes += [{"served_model_name": f"{MODEL}-2", "traffic_percentage": 33}]
    canary = {"served_entities": entities, "traffic_config": {"routes": routes}}
    for sent, revision in (({}, 1), ({"served_entities": entities[:1]}, 1), (canary, 2), (canary, 2), ({}, 2)):
        answer = changeable.client.put(f"{path}/config", json=sent)
        assert answer.status_code == 200, answer.text
        config = answer.json()["config"]
        assert config["config_version"] == revision
        assert config == changeable.client.get(path).json()["config"]
    assert [route["traffic_percentage"] for route in config["traffic_config"]["routes"]] == [67, 33]


def test_the_databricks_api_takes_no_form_of_another_site(changeable: Server) -> None:
    body = json.dumps({"name": "trial", "config": {"served_entities": [{"entity_name": MODEL, "entity_version": "2"}]}})
    path = "/api/2.0/serving-endpoints"
    for kind, status in (("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json", 200)):
        answer = changeable.client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
    bad = changeable.client.post(f"{path}/", json={"name": "../x", "config": {"served_entities": []}})
    assert (bad.status_code, set(bad.json())) == (400, {"error_code", "message"})
