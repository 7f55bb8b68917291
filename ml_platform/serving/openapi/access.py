"""What all routes share in the OpenAPI document: keys and tokens, and the refusals of requests that are not let in."""

from typing import Any

from ml_platform.serving.access.authorization import PROBES
from ml_platform.serving.openapi.predictions import error_responses
from ml_platform.serving.protocols.error_responses import shape_at

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the identity provider."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_REFUSALS = {
    "401": "The request has no valid key or token.",
    "403": "The key or token lacks the role or the model; or the server has no keys yet and another machine asks.",
    "421": "The Host header names another server.",
    "429": "More requests per second than the caller may send; Retry-After says when to try again.",
}
_NOT_FOUND = {"404": "There is nothing of this name; the message lists what there is."}


def with_access(document: dict[str, Any]) -> dict[str, Any]:
    """Add keys, tokens and refusals to every route of the document."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        shape = shape_at(path)
        for operation in operations.values():
            responses = operation["responses"]
            if path in PROBES:
                responses |= error_responses({"421": _REFUSALS["421"]}, shape)
                continue
            operation["security"] = [{}, *({name: []} for name in _SCHEMES)]
            if "HTTPValidationError" in str(responses.get("422")):  # FastAPI adds it, but no route here answers with it
                del responses["422"]
            named = _NOT_FOUND if "{" in path else {}
            operation["responses"] = error_responses(named | _REFUSALS, shape) | responses
    return document
