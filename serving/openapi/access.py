"""What every route of the OpenAPI document has in common: keys and tokens, and being turned away at the door."""

from typing import Any

from serving.access.callers import PROBES
from serving.access.refusals import shape_at
from serving.openapi.predictions import error_responses

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the identity provider."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_DOOR = {
    "401": "No valid key or token came with it.",
    "403": "The key or token lacks the role or the model; or there are no keys yet and another machine asks.",
    "421": "The Host header names another server.",
    "429": "More requests per second than the caller may send; Retry-After says when to come again.",
}
_NOT_FOUND = {"404": "There is nothing of this name; the message lists what there is."}


def with_access(document: dict[str, Any]) -> dict[str, Any]:
    """Add to the document what holds for all its routes: keys are asked for once there are any."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        shape = shape_at(path)
        for operation in operations.values():
            responses = operation["responses"]
            if path in PROBES:
                responses |= error_responses({"421": _DOOR["421"]}, shape)
                continue
            operation["security"] = [{}, *({name: []} for name in _SCHEMES)]
            if "HTTPValidationError" in str(responses.get("422")):  # FastAPI's own, which no route here answers with
                del responses["422"]
            named = _NOT_FOUND if "{" in path else {}
            operation["responses"] = error_responses(named | _DOOR, shape) | responses
    return document
