"""Databricks model serving's API, as `databricks-sdk` and `mlflow.deployments` call it.

An endpoint there is an endpoint document here. Each model has one of its own name from its first release on; this API
can create others. A served entity is a version in the release store; one without traffic is a shadow. Deleting takes
an endpoint out of service, and a rollback restores it. A feature service answers under its name as an endpoint of
Databricks' feature serving does; no other route here is for it.
"""

from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.features.services.plan import plain_names
from ml_platform.registry.manifest import Endpoint
from ml_platform.serving.access.governed import FEATURES
from ml_platform.serving.endpoints.service import EndpointService
from ml_platform.serving.feature_serving.responses import Found
from ml_platform.serving.feature_serving.service import FeatureServing, Prepared
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.inputs.tabular_formats import body_of, rows_of_json
from ml_platform.serving.models.slots import EndpointState
from ml_platform.serving.prediction.route_adapter import RouteAdapter
from ml_platform.serving.protocols.databricks_schema import Config, Creation, change_of, endpoint_of, served_name
from ml_platform.serving.protocols.mlflow import mlflow_error, predictions_of, translation


def databricks_routes(adapter: RouteAdapter, changes: EndpointService, features: FeatureServing) -> list[Route]:
    """Make the routes."""
    state = adapter.predictor.state

    def count(request: Request, status: int) -> None:
        if (name := request.path_params.get("model", "")) not in state.slots and features.is_service(name):
            features.count_request(name, status)
        else:
            adapter.count(request, status)

    @adapter.shaped(mlflow_error, count)
    async def query(request: Request) -> Response:
        name, version = request.path_params["model"], None
        if name not in state.slots and "served" not in request.path_params and features.is_service(name):
            return await _features_of(request, adapter, features, name)
        if (served := request.path_params.get("served")) is not None:
            version = _version_called(adapter.predictor.slot(name), served)
        sent: dict[str, Any] = {}
        translate = translation(adapter, request, sent)
        answer = await adapter.handle(request, name, translate, version, parameters=lambda: sent)
        slot = state.slots.get(name)
        targets = slot.endpoint.targets if slot and slot.endpoint else ()
        target = next((one for one in targets if one.version == answer.version), None)
        label = served_name(answer.model, target) if target else f"{answer.model}-{answer.version}"
        headers = {"served-model-name": label}
        return Response(encode(predictions_of(answer)), headers=headers, media_type="application/json")

    return [
        Route("/serving-endpoints/{model}/invocations", query, methods=["POST"]),
        Route("/serving-endpoints/{model}/served-models/{served}/invocations", query, methods=["POST"]),
        *_api_routes(adapter, changes),
    ]


def _api_routes(adapter: RouteAdapter, changes: EndpointService) -> list[Route]:
    state = adapter.predictor.state

    def _uncounted(request: Request, status: int) -> None:
        """Count nothing: only prediction requests are counted, and these are in the endpoint's history."""

    @adapter.shaped(mlflow_error, _uncounted)
    async def endpoints(request: Request) -> Response:
        endpoints = []
        stored = await changes.documents()
        for name in sorted({*stored, *state.slots}):
            slot = state.slots.get(name)
            document = stored.get(name) or (slot.endpoint if slot else None)  # it still serves without the store
            if RequestContext.of(request.scope).covers(name) and (document is None or document.targets):
                endpoints.append(endpoint_of(name, document, await changes.first(name), slot))
        return Response(encode({"endpoints": endpoints}), media_type="application/json")

    async def in_service(name: str) -> Endpoint | None:
        slot = state.slots.get(name)
        document = await changes.document(name) or (slot.endpoint if slot else None)
        if (document is None and slot is None) or (document is not None and not document.targets):
            raise Refused(404, "unknown_model", f"no endpoint has this name; there are: {state.known()}")
        return document

    async def described(name: str, document: Endpoint | None) -> Response:
        endpoint = endpoint_of(name, document, await changes.first(name), state.slots.get(name))
        return Response(encode(endpoint | {"permission_level": "CAN_QUERY"}), media_type="application/json")

    @adapter.shaped(mlflow_error, _uncounted)
    async def endpoint(request: Request) -> Response:
        name = request.path_params["model"]
        return await described(name, await in_service(name))

    @adapter.shaped(mlflow_error, _uncounted)
    async def create(request: Request) -> Response:
        sent = await changes.read(request, Creation)
        key = RequestContext.of(request.scope).key
        if key is not None and not key.may("promote", sent.name):
            raise Refused(403, "forbidden", "this key is not for an endpoint of that name")
        current = await changes.document(sent.name)
        if current is not None and current.targets:
            message = f"the endpoint '{sent.name}' exists; update its config instead"
            raise Refused(409, "exists", message)
        change = change_of(sent.config, current)
        return await described(sent.name, await changes.set(request, sent.name, change, "created by Databricks' API"))

    @adapter.shaped(mlflow_error, _uncounted)
    async def update(request: Request) -> Response:
        name = request.path_params["model"]
        sent = await changes.read(request, Config)
        current = await in_service(name)
        change = change_of(sent, current)
        return await described(name, await changes.set(request, name, change, "config updated by Databricks' API"))

    @adapter.shaped(mlflow_error, _uncounted)
    async def delete(request: Request) -> Response:
        name = request.path_params["model"]
        await in_service(name)
        await changes.withdraw(request, name, "deleted by Databricks' API")
        return Response(b"{}", media_type="application/json")

    api = "/api/2.0/serving-endpoints"
    routes = [
        Route(f"{api}/{{model}}", endpoint, methods=["GET"]),
        Route(f"{api}/{{model}}", delete, methods=["DELETE"]),
        Route(f"{api}/{{model}}/config", update, methods=["PUT"]),
    ]
    for path in (api, f"{api}/"):
        routes += [Route(path, endpoints, methods=["GET"]), Route(path, create, methods=["POST"])]
    return routes


async def _features_of(request: Request, adapter: RouteAdapter, features: FeatureServing, name: str) -> Response:
    """Answer as Databricks' feature serving: an object for each row, with what was sent and the features."""
    context = RequestContext.of(request.scope)
    context.check()
    if not context.may(
        "predict", f"{FEATURES}{name}"
    ):  # published since the key was checked, as one for a model of this name
        raise Refused(403, "forbidden", f"this key is not for {FEATURES}{name}")
    body = await adapter.body(request)

    def rows(body: bytes, prepared: Prepared) -> bytes:
        return body_of(rows_of_json(body, prepared.plan.fields), prepared.plan.fields)

    def work() -> bytes:
        started = perf_counter()
        found = features.find(name, body, caller=context.key, derived=True, rows=rows)
        content = encode(_outputs(found))
        features.count(found, perf_counter() - started)
        context.rows = len(found.rows)
        return content

    content = await features.in_turn(len(body), work)
    return Response(content, headers={"served-model-name": name}, media_type="application/json")


def _outputs(found: Found) -> dict[str, Any]:
    names = plain_names(found.plan)
    columns = {names.get(name, name): column for name, column in found.columns().items()}
    sent = [field.name for field in found.plan.fields]
    outputs = [
        {**{name: row[name] for name in sent}, **dict(zip(columns, values, strict=True))}
        for row, values in zip(found.rows, zip(*columns.values(), strict=True), strict=True)
    ]
    freshness = {view.view.name: {"status": view.status, "event_time": view.event_times()} for view in found.views}
    masked = {"masked": [names.get(name, name) for name in found.masked]} if found.masked else {}
    return {"outputs": outputs, "freshness": freshness, **masked}


def _version_called(slot: EndpointState, served: str) -> int:
    for target in slot.endpoint.targets if slot.endpoint else ():
        if served_name(slot.endpoint.model if slot.endpoint else slot.name, target) == served:
            return target.version
    raise Refused(404, "unknown_version", f"'{slot.name}' has no served entity of that name")
