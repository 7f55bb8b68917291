"""Databricks model serving's API: query, list and get, as `databricks-sdk` and `mlflow.deployments` call them."""

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import covered
from serving.asking import Asking
from serving.foreign import rows_of_json
from serving.mlflow_routes import mlflow_error, predictions_of
from serving.state import Slot
from serving.wire import Refused, encode


def databricks_routes(asking: Asking) -> list[Route]:
    """Make the routes."""

    @asking.shaped(mlflow_error)
    async def query(request: Request) -> Response:
        answer = await asking.ask(request, request.path_params["model"], rows_of_json)
        headers = {"served-model-name": _served_name(answer.model, answer.version)}
        return Response(encode(predictions_of(answer)), headers=headers, media_type="application/json")

    @asking.shaped(mlflow_error)
    async def endpoints(request: Request) -> Response:
        slots = sorted(asking.predictor.state.slots.items())
        found = [_endpoint(slot) for name, slot in slots if covered(request.scope, name)]
        return Response(encode({"endpoints": found}), media_type="application/json")

    @asking.shaped(mlflow_error)
    async def endpoint(request: Request) -> Response:
        slot = asking.predictor.state.slots.get(request.path_params["model"])
        if slot is None:
            known = ", ".join(asking.predictor.state.names()) or "none yet"
            raise Refused(404, "unknown_model", f"no endpoint has this name; there are: {known}")
        return Response(encode(_endpoint(slot) | {"permission_level": "CAN_QUERY"}), media_type="application/json")

    return [
        Route("/serving-endpoints/{model}/invocations", query, methods=["POST"]),
        Route("/api/2.0/serving-endpoints", endpoints, methods=["GET"]),
        Route("/api/2.0/serving-endpoints/", endpoints, methods=["GET"]),
        Route("/api/2.0/serving-endpoints/{model}", endpoint, methods=["GET"]),
    ]


def _served_name(model: str, version: int) -> str:
    return f"{model}-{version}"


def _endpoint(slot: Slot) -> dict[str, Any]:
    """An endpoint document in Databricks' words."""
    document = slot.endpoint
    found: dict[str, Any] = {
        "name": slot.name,
        "id": slot.name,
        "state": {
            "ready": "READY" if slot.served else "NOT_READY",
            "config_update": "UPDATE_FAILED" if slot.refused else "NOT_UPDATING",
        },
    }
    if document is None:
        return found
    updated = int(datetime.fromisoformat(document.updated_at).timestamp() * 1000)
    targets = [(target, _served_name(slot.name, target.version)) for target in document.targets]
    found |= {
        "creator": document.updated_by,
        "last_updated_timestamp": updated,
        "config": {
            "config_version": document.revision,
            "served_entities": [
                {
                    "name": name,
                    "entity_name": slot.name,
                    "entity_version": str(target.version),
                    "state": {
                        "deployment": "DEPLOYMENT_READY" if slot.version(target.version) else "DEPLOYMENT_FAILED"
                    },
                }
                for target, name in targets
            ],
            "traffic_config": {
                "routes": [
                    {"served_model_name": name, "traffic_percentage": round(100 * target.share)}
                    for target, name in targets
                    if target.mode == "live"
                ]
            },
        },
    }
    return found
