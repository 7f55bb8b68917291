"""What stands before every request of Dagster's webserver.

Dagster's own server runs GraphQL mutations sent by GET and asks neither for which name nor from which page a request
comes, so any page open in a browser of this machine could start runs.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HOSTS_VARIABLE = "ML_PLATFORM_DAGSTER_ALLOWED_HOSTS"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PRIVATE = (
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not passed on: the status of the answer, and what to change."""

    status: int
    reason: str


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that lets requests of people and programs through, and none that another site's page makes.

    Parameters
    ----------
    app
        Dagster's webserver.
    hosts
        Names (`host:port`, or `host` on the scheme's own port) by which the server may be asked.
    """

    app: "ASGIApp"
    hosts: frozenset[str]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or answer it with the reason why not."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        refusal = self.judge(scope)
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()  # the connection, which is refused before it is accepted: HTTP 403 for the client
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason[:120]})
        else:
            body = json.dumps({"error": refusal.reason}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *PRIVATE]
            await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def judge(self, scope: "Scope") -> Refusal | None:
        """Return why a request is refused, or None.

        Examples
        --------
        >>> guard = Guard(app=None, hosts=frozenset({"localhost:3000"}))
        >>> scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"evil.example")]}
        >>> guard.judge(scope).status
        403
        """
        return self._judge_host(scope) or self._judge_page(scope) or self._judge_body(scope)

    def _judge_host(self, scope: "Scope") -> Refusal | None:
        """By whose name: a name that somebody else's DNS points here makes their page one of this server's."""
        host_headers = _header(scope, b"host")
        if len(host_headers) == 1 and host_headers[0].lower() in self.hosts:
            return None
        return Refusal(
            403,
            f"wanted one of {', '.join(sorted(self.hosts))} as the Host, found {', '.join(host_headers) or 'none'}: "
            f"names of your own go into {HOSTS_VARIABLE}",
        )

    def _judge_page(self, scope: "Scope") -> Refusal | None:
        """From which page: browsers say so, and no page can make them say otherwise. Programs send neither header."""
        (host,) = _header(scope, b"host")
        if (origins := _header(scope, b"origin")) and not (
            len(origins) == 1
            and urlsplit(origins[0]).scheme in {"http", "https"}
            and urlsplit(origins[0]).netloc.lower() == host.lower()
        ):
            return Refusal(403, f"asked by a page of another origin: {', '.join(origins)}")
        sites = _header(scope, b"sec-fetch-site")
        if not sites or sites in (["same-origin"], ["none"]):
            return None
        opens_page = (
            scope["type"] == "http"
            and scope["method"] == "GET"
            and _header(scope, b"sec-fetch-mode") == ["navigate"]
            and _header(scope, b"sec-fetch-dest") == ["document"]
        )
        if opens_page:  # somebody has followed a link to the UI
            return None
        return Refusal(403, f"asked by a page of another site (Sec-Fetch-Site: {', '.join(sites)})")

    @staticmethod
    def _judge_body(scope: "Scope") -> Refusal | None:
        """With what: JSON by POST, which no form, image or link can send without the browser asking first."""
        if scope["type"] != "http":
            return None
        is_graphql = scope["path"].rstrip("/").endswith("/graphql")
        if is_graphql and scope["method"] != "POST":
            return Refusal(405, "GraphQL is asked by POST with a JSON body")
        if scope["method"] in SAFE_METHODS:
            return None
        types = [value.partition(";")[0].strip().lower() for value in _header(scope, b"content-type")]
        if types == ["application/json"]:
            return None
        return Refusal(415, f"wanted Content-Type: application/json, found {', '.join(types) or 'none'}")


def _header(scope: "Scope", name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _with_headers(send: "Send") -> "Send":
    """Keep other sites from framing and embedding what is answered."""

    async def send_with_headers(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *PRIVATE]}
        await send(message)

    return send_with_headers


def own_hosts(port: int, extra: str = "") -> frozenset[str]:
    """Return the names by which a server on this machine's port is asked, and further ones, separated by commas.

    Examples
    --------
    >>> sorted(own_hosts(3000, "dagster.example.com"))
    ['127.0.0.1:3000', '[::1]:3000', 'dagster.example.com', 'localhost:3000']
    """
    named = {name.strip().lower() for name in extra.split(",") if name.strip()}
    return frozenset({f"{name}:{port}" for name in LOOPBACK} | named)
