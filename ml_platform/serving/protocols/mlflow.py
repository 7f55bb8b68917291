"""MLflow's scoring protocol: `/models/{model}/invocations`, and `/invocations` while there is only one model.

A client of `mlflow models serve` works unchanged, and what MLflow ignores is ignored here unless the settings say
otherwise. About values this server is stricter: `ml-platform docs protocols` lists the differences.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.distribution import engine_version
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.inputs.tabular_formats import rows_of_csv, rows_of_json
from ml_platform.serving.models.intervals import Interval, IntervalLevel
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.prediction.route_adapter import RouteAdapter, Translate

PARQUET = "application/vnd.apache.parquet"

_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    408: "BAD_REQUEST",
    409: "RESOURCE_ALREADY_EXISTS",
    410: "RESOURCE_DOES_NOT_EXIST",
    412: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    421: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


def mlflow_error(refused: Refused, request_id: str) -> Response:  # noqa: ARG001 - its id is in a header
    """Shape an error as `{"error_code", "message"}`; the protocol answers 400 where other routes answer 422."""
    status = 400 if refused.status == 422 else refused.status
    body = encode({"error_code": _CODES.get(status, "INTERNAL_ERROR"), "message": str(refused)})
    return Response(body, status, media_type="application/json")


def predictions_of(answer: Answer) -> dict[str, object]:
    """MLflow's answer, one value per row; with probabilities and the version, which its clients ignore."""
    content: dict[str, object] = {"predictions": [prediction.prediction for prediction in answer.predictions]}
    if answer.predictions and isinstance(answer.predictions[0].probability, float):
        content["probabilities"] = [
            prediction.probabilities or prediction.probability for prediction in answer.predictions
        ]
    if isinstance(answer.interval, IntervalLevel):
        name = "interval" if isinstance(answer.predictions[0].interval, Interval) else "prediction_set"
        content[f"{name}s"] = [getattr(prediction, name) for prediction in answer.predictions]
        content["interval"] = answer.interval
    if any(isinstance(prediction.extras, Mapping) for prediction in answer.predictions):
        content["extras"] = [prediction.extras or None for prediction in answer.predictions]
    content["model_version"] = answer.version
    if answer.degraded:
        content["degraded"] = answer.degraded
    if answer.flags:
        content["flags"] = answer.flags
    return content


def mlflow_routes(adapter: RouteAdapter) -> list[Route]:
    """Make the routes."""

    @adapter.shaped(mlflow_error)
    async def invocations(request: Request) -> Response:
        model = adapter.model_of(request)
        sent: dict[str, Any] = {}
        translate = translation(adapter, request, sent)
        answer = await adapter.handle(request, model, translate, parameters=lambda: sent)
        return Response(encode(predictions_of(answer)), media_type="application/json")

    @adapter.shaped(mlflow_error)
    async def ping(request: Request) -> Response:
        model = request.path_params.get("model")
        slots = adapter.predictor.state.slots
        healthy = bool(slots[model].served) if model in slots else model is None and adapter.predictor.is_ready()
        return Response("\n", 200 if healthy else 404, media_type="application/json")

    @adapter.shaped(mlflow_error)
    async def version(_: Request) -> Response:
        return Response(engine_version(), media_type="application/json")

    routes = []
    for prefix in ("", "/models/{model}"):
        routes.append(Route(f"{prefix}/invocations", invocations, methods=["POST"]))
        routes += [Route(f"{prefix}/{name}", ping, methods=["GET"]) for name in ("ping", "health")]
        routes.append(Route(f"{prefix}/version", version, methods=["GET"]))
    return routes


def translation(adapter: RouteAdapter, request: Request, parameters: dict[str, Any]) -> Translate:
    """Choose the translator for a request's content type (raises Refused for an unsupported one).

    It puts the body's `params` into `parameters`.
    """
    sent = request.headers.get("content-type", "application/json")
    kind, *attributes = (part.strip().lower() for part in sent.split(";"))
    if kind not in ("application/json", "text/csv", PARQUET):
        message = f"send application/json, text/csv or {PARQUET}"
        raise Refused(415, "unsupported_type", message, close=True)
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        if name != "charset" or value.strip('"') != "utf-8":
            raise Refused(415, "unsupported_type", "the only parameter of a content type is charset=utf-8", close=True)
    strict = adapter.settings.mlflow_extras == "refuse"
    if kind == PARQUET:
        return partial(adapter.parquet.translate, strict=strict)
    if kind == "text/csv":
        return adapter.by(partial(rows_of_csv, strict=strict))
    return adapter.by(partial(rows_of_json, strict=strict, parameters=parameters))
