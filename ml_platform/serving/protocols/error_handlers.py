"""Answers for what the routes themselves do not answer: unknown paths and methods, and errors in the server's code."""

import logging

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from ml_platform.serving.http.messages import INTERNAL_ERROR, Refused
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.protocols.error_responses import shaped

_CODES = {404: "not_found", 405: "method_not_allowed"}

logger = logging.getLogger("serving")


async def http_error(request: Request, error: Exception) -> Response:
    """Answer an error of the router in the shape of the path's protocol."""
    assert isinstance(error, HTTPException)
    code, message = _CODES.get(error.status_code, "error"), str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 404 and message == "Not Found":
        message = f"there is nothing at {request.url.path}; see /docs"
    if error.status_code == 405:  # the route that raised it knows its own methods only
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
        message = f"{request.method} is not allowed here; allowed are {headers['Allow']}"
    answer = shaped(request.url.path, Refused(error.status_code, code, message), _request_id(request))
    answer.headers.update(headers)
    return answer


def _methods_at(request: Request) -> set[str]:
    """The methods that are allowed at a request's path."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def internal_error(request: Request, error: Exception) -> Response:
    """Answer without details; the server's log has the traceback under the same request id."""
    request_id = _request_id(request)
    logger.error("request %s failed: %s", request_id, error)
    return shaped(request.url.path, Refused(500, "internal", INTERNAL_ERROR), request_id)


def _request_id(request: Request) -> str:
    return RequestContext.of(request.scope).request_id
