"""Passes requests on to the server behind and its answers back, neither of them gathered in memory."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_platform.login.request_checks import Connection

if TYPE_CHECKING:
    import httpx
    from starlette.types import Receive, Scope, Send

SCRIPT = "/-/static/session.js"
_LARGEST_PAGE = 4 * 2**20  # of HTML that is given the script
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 600.0
_DROPPED = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"trailer", b"transfer-encoding", b"upgrade",
        b"set-cookie", b"server", b"date", b"x-ml-platform-sign-in", b"x-ml-platform-refused",
    }
)  # fmt: skip
_NONCE = re.compile(rb"'nonce-([A-Za-z0-9+/=_-]+)'")


class ServerAway(ConnectionError):
    """The server behind gives no answer."""


class ClientGone(ConnectionError):
    """The client has hung up before its whole body came."""


@dataclass(frozen=True)
class Upstream:
    """A server behind the gateway.

    Attributes
    ----------
    url
        Its address, without a path.
    removed
        The beginning of the gateway's paths that it does not know of.
    """

    title: str
    url: str
    removed: str = ""

    def target(self, scope: "Scope") -> bytes:
        """Path and query to ask it for, spelled as the client did."""
        raw = scope["raw_path"].split(b"?")[0].removeprefix(self.removed.encode()) or b"/"
        return raw + (b"?" + scope["query_string"] if scope["query_string"] else b"")

    def location(self, value: bytes) -> bytes:
        """Where the client is sent on to, instead of an address that only the gateway reaches."""
        parts = urlsplit(value.decode("latin-1"))
        if parts.netloc and parts.netloc != urlsplit(self.url).netloc:
            return value
        rest = parts._replace(scheme="", netloc="").geturl()
        return (self.removed + rest).encode("latin-1") if rest.startswith("/") and not rest.startswith("//") else b"/"


class Proxy:
    """Asks the servers behind, over connections that are kept."""

    def __init__(self) -> None:
        import httpx

        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30)
        # A pool without a limit to wait for: long polls and downloads hold connections for as long as they like.
        timeout = httpx.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            limits=limits, timeout=timeout, trust_env=False, follow_redirects=False, headers={}
        )
        self._client.headers.clear()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def pass_on(
        self,
        upstream: Upstream,
        client: Connection,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
        *,
        extra: Sequence[tuple[bytes, bytes]] = (),
        with_script: bool = False,
    ) -> int:
        """Pass a request on, and its answer back; return the answer's status.

        Parameters
        ----------
        headers
            What the server behind gets.
        body
            What it gets in place of the body; None for the client's own.
        extra
            Headers of the answer in place of its own.
        with_script
            Add the script that tells of an ended session to a page of HTML.

        Raises
        ------
        ServerAway
            When there is no answer, and nothing has been sent to the client.
        """
        import httpx

        scope = client.scope
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        content: Any = body if body is not None else (_body(client.receive) if has_body else None)
        target = httpx.URL(upstream.url).copy_with(raw_path=upstream.target(scope))
        if with_script:
            headers = [
                *((name, value) for name, value in headers if name != b"accept-encoding"),
                (b"accept-encoding", b"identity"),
            ]
        request = self._client.build_request(scope["method"], target, headers=list(headers), content=content)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise ServerAway(f"{type(error).__name__}: {error}") from error
        try:
            await _answer(upstream, response, client.send, extra, with_script=with_script)
        finally:
            await response.aclose()
        return response.status_code


async def _body(receive: "Receive") -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _answer(
    upstream: Upstream,
    response: "httpx.Response",
    send: "Send",
    extra: Sequence[tuple[bytes, bytes]],
    *,
    with_script: bool,
) -> None:
    replaced = {name for name, _ in extra}
    headers = [
        (name, upstream.location(value) if name == b"location" else value)
        for name, value in ((name.lower(), value) for name, value in response.headers.raw)
        if name not in _DROPPED and name not in replaced
    ]
    if not any(name == b"x-frame-options" for name, _ in headers):
        headers.append((b"x-frame-options", b"SAMEORIGIN"))
    headers += [*extra, (b"x-content-type-options", b"nosniff")] if b"x-content-type-options" not in replaced else extra
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = response.headers.get("content-length", "")
    if (
        with_script
        and response.status_code == 200
        and kind == "text/html"
        and (not length or int(length) <= _LARGEST_PAGE)
    ):
        page = _with_script(await response.aread(), dict(headers).get(b"content-security-policy", b""))
        headers = [(name, value) for name, value in headers if name not in (b"content-length", b"etag")]
        headers.append((b"content-length", b"%d" % len(page)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page})
        return
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    async for chunk in response.aiter_raw():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _with_script(page: bytes, policy: bytes) -> bytes:
    """A page with the gateway's script first in its head, where its policy lets scripts run."""
    if policy and b"script-src" not in policy:
        return page
    nonce = _NONCE.search(policy)
    tag = b'<script src="%s"%s></script>' % (SCRIPT.encode(), b' nonce="%s"' % nonce[1] if nonce else b"")
    head, opening, rest = page.partition(b"<head>")
    return head + opening + tag + rest if opening else page
