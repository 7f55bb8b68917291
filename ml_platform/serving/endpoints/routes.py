"""`GET`, `PUT` and `DELETE /endpoints/{model}`: show and change which versions answer, and their traffic shares.

`GET /endpoints/{model}/history` says what served since when, by whom and why, and which data made it.

A change names the revision that it is based on in `If-Match`, so that two people do not overwrite each other's change.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.instants import read_instant
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.traffic import TrafficChange
from ml_platform.serving.endpoints.service import EndpointService
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.prediction.route_adapter import own_error

_LONGEST_REASON = 1000  # characters: every server and every look at the history reads it
_ETAG = re.compile(r'(?:W/)?"([!#-~]*)"|([0-9]{1,9})')


class TargetChange(msgspec.Struct, forbid_unknown_fields=True):
    """A version that answers a share of the requests, or is scored as a shadow."""

    version: int
    share: float = 0.0
    mode: Literal["live", "shadow"] = "live"


class EndpointChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a change; `targets` replaces all targets."""

    targets: list[TargetChange]
    reason: Annotated[str, msgspec.Meta(max_length=_LONGEST_REASON)]
    key: str | None = None
    model: str | None = None


def endpoint_routes(changes: EndpointService) -> list[BaseRoute]:
    """Build the routes."""
    state = changes.adapter.predictor.state

    async def described(name: str, document: Endpoint | None) -> Response:
        slot = state.slots.get(name)
        model = document.model if document else name
        versions = await changes.versions(model)
        if document is None and not versions:
            raise Refused(404, "unknown_endpoint", f"there is no endpoint '{name[:80]}'; there are: {state.known()}")
        body: dict[str, Any] = {
            "name": name,
            "model": model,
            "revision": document.revision if document else 0,
            "targets": [_target(target) for target in document.targets] if document else [],
            "key": document.key if document else None,
            "reason": document.reason if document else None,
            "updated_at": document.updated_at if document else None,
            "updated_by": document.updated_by if document else None,
            "in_force": slot.endpoint.revision if slot and slot.endpoint else None,
            "refused": slot.refused.reason if slot and slot.refused else None,
            "versions": list(versions),
            "canary": await changes.walk(document) if document else None,
        }
        return Response(encode(body), headers={"ETag": f'"{body["revision"]}"'}, media_type="application/json")

    def uncounted(request: Request, status: int) -> None:
        """Count nothing: only prediction requests are counted, and these are in the endpoint's history."""

    @changes.adapter.shaped(own_error, uncounted)
    async def show(request: Request) -> Response:
        name = request.path_params["model"]
        return await described(name, await changes.document(name))

    @changes.adapter.shaped(own_error, uncounted)
    async def change(request: Request) -> Response:
        name, expected = request.path_params["model"], _expected(request)
        sent = await changes.read(request, EndpointChange)
        live = [target for target in sent.targets if target.mode == "live"]
        if len({target.version for target in sent.targets}) < len(sent.targets):
            raise Refused(422, "invalid_request", "targets: a version appears twice")
        if any(target.share for target in sent.targets if target.mode == "shadow"):
            raise Refused(422, "invalid_request", "targets: a shadow answers nothing, and has no share")
        wanted = TrafficChange(
            shares={target.version: target.share for target in live},
            shadows=[target.version for target in sent.targets if target.mode == "shadow"],
            key=sent.key,
            model=sent.model,
            expected_revision=expected,
        )
        return await described(name, await changes.set(request, name, wanted, sent.reason))

    @changes.adapter.shaped(own_error, uncounted)
    async def withdraw(request: Request) -> Response:
        name, expected = request.path_params["model"], _expected(request)
        document = await changes.document(name)
        if expected is not None and document is not None and document.revision != expected:
            raise Refused(412, "revision_conflict", f"revision {document.revision} is current, not {expected}")
        reason = _option(request, "reason") or "withdrawn over HTTP"
        if len(reason) > _LONGEST_REASON:
            raise Refused(422, "invalid_request", f"reason: wanted at most {_LONGEST_REASON} characters")
        return await described(name, await changes.withdraw(request, name, reason))

    @changes.adapter.shaped(own_error, uncounted)
    async def past(request: Request) -> Response:
        name, at = request.path_params["model"], _instant(request)
        states = await changes.history(name, at)
        if not states:
            since = f" at {at.isoformat()}" if at else ""
            raise Refused(404, "unknown_endpoint", f"the endpoint '{name[:80]}' served nothing{since}")
        body = [
            {
                "revision": reign.document.revision,
                "since": reign.since,
                "until": reign.until,
                "action": reign.document.action,
                "by": reign.document.updated_by,
                "reason": reign.document.reason,
                "targets": [
                    {**_target(target), "origin": origins.get(target.version)} for target in reign.document.targets
                ],
            }
            for reign, origins in states
        ]
        return Response(encode(body), media_type="application/json")

    path = "/endpoints/{model}"
    return [
        Route(f"{path}/history", past, methods=["GET"]),
        Route(path, show, methods=["GET"]),
        Route(path, change, methods=["PUT"]),
        Route(path, withdraw, methods=["DELETE"]),
    ]


def _instant(request: Request) -> datetime | None:
    """The instant of the option `at`, None without it (raises Refused)."""
    text = _option(request, "at")
    if text is None:
        return None
    try:
        instant = read_instant(text)
    except ValueError as error:
        raise Refused(422, "invalid_request", f"at: {error}") from error
    if instant > datetime.now(UTC):
        raise Refused(422, "invalid_request", f"at: {text[:40]} has not come yet")
    return instant


def _option(request: Request, name: str) -> str | None:
    """The one option that a path has, None without it (raises Refused for another)."""
    options = dict(request.query_params)
    text = options.pop(name, None)
    if options:
        raise Refused(422, "invalid_request", f"wanted no option but {name}, found {sorted(options)[0][:40]}")
    return text


def _expected(request: Request) -> int | None:
    """The revision of `If-Match`, None for `*` (raises Refused)."""
    sent = request.headers.get("if-match", "")
    if sent == "*":
        return None
    if not sent:
        raise Refused(428, "precondition_required", "send If-Match with the ETag that GET gave, or * to overwrite")
    if (match := _ETAG.fullmatch(sent)) is None:
        raise Refused(400, "invalid_header", "If-Match wants the ETag that GET gave, in its quotation marks, or *")
    number = match[1] or match[2] or ""
    if not (number.isdigit() and len(number) < 10):
        raise Refused(412, "revision_conflict", "If-Match wants the ETag that GET gave, or *")
    return int(number)


def _target(target: Any) -> dict[str, Any]:
    return {
        "version": target.version, "share": target.share, "mode": target.mode, "digest": target.digest
    }  # fmt: skip
