"""Answers a refused request with an error in the shape of the path's protocol."""

from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml_platform.serving.http.messages import DRAINED_BYTES, Refused, drain
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import ErrorShape, own_error
from ml_platform.serving.protocols.feast import FEAST_PATH, feast_error
from ml_platform.serving.protocols.mlflow import mlflow_error
from ml_platform.serving.protocols.open_inference import oip_error

_DRAIN_SECONDS = 5.0
Shape = Literal["Error", "MLflowError", "InferenceError", "FeastError"]
_MLFLOW = ("/serving-endpoints/", "/api/2.0/", "/invocations")


_SHAPES: dict[Shape, ErrorShape] = {
    "Error": own_error,
    "MLflowError": mlflow_error,
    "InferenceError": oip_error,
    "FeastError": feast_error,
}


def shape_at(path: str) -> Shape:
    """The shape of a path's errors, by its name in the OpenAPI document."""
    if path.startswith("/v2"):
        return "InferenceError"
    if path == FEAST_PATH:
        return "FeastError"
    return "MLflowError" if path.startswith(_MLFLOW) or path.endswith("/invocations") else "Error"


def shaped(path: str, refused: Refused, request_id: str) -> Response:
    """Make an error answer in the shape of the path's protocol."""
    response = _SHAPES[shape_at(path)](refused, request_id)
    response.headers["x-request-id"] = request_id
    return response


async def refuse(scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
    """Answer a refused request, without looking at its body."""
    context = RequestContext.of(scope)
    response = shaped(scope["path"], refused, context.request_id)
    response.headers.update(refused.headers)
    if refused.status == 401:
        response.headers["www-authenticate"] = "Bearer"
        if scope["method"] == "GET":  # a second header: browsers ignore all but the first challenge of a list
            response.headers.append("www-authenticate", 'Basic realm="ml_platform", charset="UTF-8"')
    if scope["method"] not in ("GET", "HEAD") and context.content_length <= DRAINED_BYTES:
        await drain(receive, _DRAIN_SECONDS)
    await response(scope, receive, send)
