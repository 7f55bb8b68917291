"""Gives what Ray Serve's own proxy refuses the status, the headers and the error shape of every other refusal.

Serve calls `middlewares` in each proxy, where the environment variable `ray_app.PROXY_SETTING` names it. The app of a
replica marks its answers, so that those of the proxy can be told from them.
"""

import json
import logging
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.serving.http.messages import INTERNAL_ERROR, Refused
from ml_platform.serving.http.problems import Problem
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.protocols.error_responses import shaped
from ml_platform.serving.ray_app import FROM_REPLICA

_RETRY_SECONDS: Final = 1
_REQUEST_ID = b"x-request-id"
# By these a client could wait without limit, or let work go on that it does not wait for.
_OVERRIDES = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})

logger = logging.getLogger("ray.serve")


def middlewares() -> list[Middleware]:
    """What Serve puts around the app of its proxy."""
    return [Middleware(ProxyAnswers)]


class ProxyAnswers:
    """Passes the answers of replicas on, and answers in the server's own way what got none from a replica.

    Parameters
    ----------
    app
        Serve's proxy. Its own paths, below `/-/`, are left alone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        head = RequestContext(scope)
        answer = _Answer(send)
        if head.sent_id not in (None, head.request_id):  # the proxy fails at bytes that are no UTF-8
            problem = Problem(None, "X-Request-ID", "wanted 1 to 128 letters, digits or any of . _ : / + = -")
            refused = Refused(422, "invalid_request", str(problem), [problem])
        else:
            headers = [pair for pair in scope["headers"] if pair[0] not in _OVERRIDES and pair[0] != _REQUEST_ID]
            inner = {**scope, "headers": [*headers, (_REQUEST_ID, head.request_id.encode())]}
            try:
                await self._app(inner, receive, answer)
            except Exception:
                if answer.is_replicas:
                    raise
                logger.exception("request %s failed in the proxy", head.request_id)
                refused = Refused(500, "internal", INTERNAL_ERROR)
            else:
                if answer.is_replicas:
                    return
                refused = await self._refused(answer, scope)
        response = shaped(scope["path"], refused, head.request_id)
        response.headers.update(refused.headers)
        await response(scope, receive, send)

    async def _refused(self, answer: "_Answer", scope: Scope) -> Refused:
        """Why a request got no answer from a replica."""
        if answer.status is None:
            message = "the replica ended before it had answered: try again"
            return Refused(503, "unavailable", message, retry_after=_RETRY_SECONDS)
        if answer.status == 408:  # which blames the client
            message = "there was no answer within the time that `request_timeout_s` allows: try again"
            return Refused(504, "timeout", message, retry_after=_RETRY_SECONDS)
        if answer.status == 404:
            if await self._serves_something(scope):
                return Refused(404, "not_found", f"there is nothing at {scope['path']}")
            message = "nothing is deployed here yet, or any more: try again"
            return Refused(503, "unavailable", message, retry_after=_RETRY_SECONDS)
        message = "no replica has room for this request, nor may it wait for one: try again"
        return Refused(answer.status, "busy", message, retry_after=answer.retry_after)

    async def _serves_something(self, scope: Scope) -> bool:
        """Whether this proxy knows an application, so that an unknown path is a client's mistake."""
        routes = _Answer(None)
        inner = {**scope, "method": "GET", "path": "/-/routes", "raw_path": b"/-/routes", "headers": []}
        await self._app(inner, _nothing_comes, routes)
        return routes.status == 200 and bool(json.loads(routes.body))


async def _nothing_comes() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class _Answer:
    """An answer of the proxy's app: sent on if it is a replica's, and else kept.

    Attributes
    ----------
    is_replicas
        Whether a replica answers.
    status
        Of the proxy's own answer; None where there is none.
    retry_after
        Seconds.
    """

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self.is_replicas = False
        self.status: int | None = None
        self.retry_after = _RETRY_SECONDS
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_replicas = bool(message.pop(FROM_REPLICA, False))
            if not self.is_replicas:
                self.status = message["status"]
                headers: dict[bytes, Any] = {bytes(name).lower(): value for name, value in message["headers"]}
                self.retry_after = int(headers.get(b"retry-after", _RETRY_SECONDS))
        if self.is_replicas and self._send is not None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
