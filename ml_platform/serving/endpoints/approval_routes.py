"""`/endpoints/{model}/approvals`: which versions wait for a person (GET), and a person's answer (POST, by version)."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.serving.endpoints.service import EndpointService
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import own_error


class ApprovalAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an answer: it is released at once when approved."""

    decision: Literal["approve", "reject"]
    comment: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


def approval_routes(changes: EndpointService) -> list[BaseRoute]:
    """Build the routes."""

    def uncounted(request: Request, status: int) -> None:
        """Count nothing: only prediction requests are counted."""

    @changes.adapter.shaped(own_error, uncounted)
    async def listed(request: Request) -> Response:
        requests = await changes.approvals(request.path_params["model"])
        return Response(encode([described(one) for one in requests]), media_type="application/json")

    @changes.adapter.shaped(own_error, uncounted)
    async def answer(request: Request) -> Response:
        model, number = request.path_params["model"], request.path_params["version"]
        if not (number.isdecimal() and number.isascii() and len(number) < 10):
            raise Refused(404, "unknown_version", f"a version is a number, found '{number[:40]}'")
        sent = await changes.read(request, ApprovalAnswer)
        key = RequestContext.of(request.scope).key
        if key is None:
            message = "an answer is a person's: send an API key or token, so that it is known whose it is"
            raise Refused(409, "not_approved", message)
        done = await changes.answer(
            model, int(number), by=key.name, approve=sent.decision == "approve", comment=sent.comment
        )
        revision, why = done.endpoint.revision if done.endpoint else None, done.not_released or None
        body = {**described(done.request), "revision": revision, "not_released": why}
        return Response(encode(body), media_type="application/json")

    path = "/endpoints/{model}/approvals"
    return [Route(path, listed, methods=["GET"]), Route(f"{path}/{{version}}", answer, methods=["POST"])]


def described(request: ApprovalRequest) -> dict[str, Any]:
    """A request as clients see it."""
    return {
        "model": request.model,
        "version": request.version,
        "state": request.state(datetime.now(UTC)),
        "requested_by": request.requested_by,
        "expires_at": request.expires_at,
        "events": [msgspec.structs.asdict(event) for event in request.events],
    }
