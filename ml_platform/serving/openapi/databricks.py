"""Databricks' model serving API in the OpenAPI document."""

from typing import Any

import msgspec

from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.mlflow import MLFLOW, invocation
from ml_platform.serving.openapi.operations import (
    STORE,
    TIMES,
    Protocol,
    called,
    example_version,
    in_path,
    json_body,
    served,
)
from ml_platform.serving.openapi.schemas import TEXT, listed, record
from ml_platform.serving.protocols.databricks_schema import Config, Creation

DATABRICKS = Protocol("Databricks model serving", MLFLOW.shape)
_ENDPOINT = {
    **record(name=TEXT, id=TEXT, state=record(ready={"enum": ["READY", "NOT_READY"]}, config_update=TEXT)),
    "title": "An endpoint as Databricks describes it",
}
_ENDPOINT["properties"] |= {
    "creator": TEXT,
    "creation_timestamp": {"type": "integer", "description": "Milliseconds since 1970."},
    "last_updated_timestamp": {"type": "integer", "description": "Milliseconds since 1970."},
    "permission_level": TEXT,
    "config": record(
        config_version={"type": "integer", "description": "The endpoint's revision."},
        served_entities=listed(
            record(name=TEXT, entity_name=TEXT, entity_version=TEXT, state=record(deployment=TEXT))
        ),
        traffic_config=record(
            routes=listed(
                record(
                    served_model_name=TEXT, traffic_percentage={"type": "integer", "minimum": 0, "maximum": 100}
                )
            )
        ),
    ),
}  # fmt: skip
_ERRORS = {**TIMES, **STORE}
_CHANGE_ERRORS = {
    "400": "The body does not fit, or names versions that may not serve; the message says which.",
    "409": "A version would serve for the first time that a person has to approve first.",
    "412": "The endpoint was changed by somebody else meanwhile.",
    "415": "The body is not application/json.",
    **_ERRORS,
}
_NOT_THERE = {"404": "No endpoint has this name; the message lists those that there are."}


def with_databricks(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add Databricks' routes to a document that has MLflow's: predictions of each model, and endpoints."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    schemas["DatabricksEndpoint"] = _ENDPOINT
    schemas |= msgspec.json.schema_components([Creation, Config], ref_template="#/components/schemas/{name}")[1]
    for name, model in served(state):
        path = f"/serving-endpoints/{name}"
        entity = in_path("served", "Name of a served entity.", examples=[f"{model.name}-{model.version}"])
        paths[f"{path}/invocations"] = {"post": invocation(name, model.manifest, DATABRICKS, "query")}
        paths[f"{path}/served-models/{{served}}/invocations"] = {
            "post": invocation(name, model.manifest, DATABRICKS, "query_entity", (entity,))
        }
    example, version = example_version(state)
    config = {"served_entities": [{"entity_name": example, "entity_version": str(version)}]}
    create = json_body("Creation", {"name": "trial", "config": config})
    update = json_body("Config", config)
    answer, by_name = {"$ref": "#/components/schemas/DatabricksEndpoint"}, called(state)

    described = DATABRICKS.operation
    exists = {"409": "The endpoint exists."}
    paths["/api/2.0/serving-endpoints"] = {
        "get": described("list_endpoints", "Endpoints", record(endpoints=listed(answer)), STORE),
        "post": described(
            "create_endpoint", "Create an endpoint, or put one back into service", answer, exists | _CHANGE_ERRORS,
            body=create,
        ),
    }  # fmt: skip
    paths["/api/2.0/serving-endpoints/{model}"] = {
        "get": described("get_endpoint", "One endpoint", answer, _NOT_THERE | STORE, parameters=(by_name,)),
        "delete": described(
            "delete_endpoint", "Take an endpoint out of service", {"type": "object"},
            _NOT_THERE | {"412": _CHANGE_ERRORS["412"]} | STORE, parameters=(by_name,),
        ),
    }  # fmt: skip
    paths["/api/2.0/serving-endpoints/{model}/config"] = {
        "put": described(
            "update_endpoint", "Change what an endpoint serves", answer, _NOT_THERE | _CHANGE_ERRORS,
            parameters=(by_name,), body=update,
        )
    }  # fmt: skip
    return document
