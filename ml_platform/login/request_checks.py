"""By which name, from which page, with which session: what a request's headers say, before anything is done."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Headers = Iterable[tuple[bytes, bytes]]
SAFE_METHODS = frozenset({"GET", "HEAD"})
METHODS = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
# Of one connection, of this server alone, or what only the gateway says to the servers behind it.
_OWN = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"host", b"cookie", b"authorization", b"x-api-key",
        b"origin", b"referer", b"forwarded", b"x-real-ip", b"via",
    }
)  # fmt: skip
_OWN_BEGINNINGS = (b"x-forwarded", b"sec-", b"x-ml-platform", b"x-original", b"x-rewrite")


class Connection(NamedTuple):
    """A request or WebSocket of a client: ASGI's scope, and how to receive from it and send to it."""

    scope: "Scope"
    receive: "Receive"
    send: "Send"


@dataclass(frozen=True)
class Refusal:
    """Why a request is not passed on: status, and what to do."""

    status: int
    reason: str


@dataclass(frozen=True)
class Site:
    """The names and the scheme by which people reach the gateway.

    Examples
    --------
    >>> site = Site.of("https://ml.example.com", port=4000)
    >>> sorted(site.hosts), site.cookie
    (['ml.example.com'], '__Host-ml_platform')
    """

    url: str
    hosts: frozenset[str]

    @classmethod
    def of(cls, url: str, port: int) -> "Site":
        """The site of an address: of this machine under each of its own names."""
        parts = urlsplit(url)
        host = parts.netloc.lower()
        if parts.hostname in {"localhost", "127.0.0.1", "::1"}:
            port = parts.port or port
            return cls(url, frozenset({f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"}))
        default = ":443" if parts.scheme == "https" else ":80"
        return cls(url, frozenset({host, host.removesuffix(default)}))

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it by TLS."""
        return self.url.startswith("https://")

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: with TLS one that no other site below the same domain can set."""
        return "__Host-ml_platform" if self.is_secure else "ml_platform"

    def refuse_host(self, scope: Any) -> Refusal | None:
        """Refuse a request for another name, which somebody else's DNS points here."""
        hosts = header(scope, b"host")
        if len(hosts) == 1 and hosts[0].lower() in self.hosts:
            return None
        return Refusal(421, f"this server is {self.url}; another address of it goes into ML_PLATFORM_LOGIN_URL")

    def refuse_page(self, scope: Any) -> Refusal | None:
        """Refuse what a page of another site sends; and every change without `Origin`, which browsers always send."""
        origins = header(scope, b"origin")
        (host,) = header(scope, b"host")
        own = f"{'https' if self.is_secure else 'http'}://{host.lower()}"
        is_socket = scope["type"] == "websocket"
        if origins and [origin.lower() for origin in origins] != [own]:
            return Refusal(403, f"sent by a page of another site: {', '.join(origins)[:200]}")
        if not origins and (is_socket or scope["method"] not in SAFE_METHODS):
            return Refusal(403, "changes want the header Origin, which browsers send; programs use an API key")
        sites = header(scope, b"sec-fetch-site")
        if sites in ([], ["same-origin"], ["none"]):
            return None
        is_followed_link = (
            not is_socket and scope["method"] == "GET" and header(scope, b"sec-fetch-mode") == ["navigate"]
        ) and header(scope, b"sec-fetch-dest") == ["document"]
        return None if is_followed_link else Refusal(403, f"sent by a page of another site ({', '.join(sites)})")

    def cookie_of(self, scope: Any, suffix: str = "") -> str | None:
        """The value of a cookie of this server; None for none, or several, of which one is somebody else's."""
        name = self.cookie + suffix
        values = [
            value.strip()
            for line in header(scope, b"cookie")
            for part in line.split(";")
            for found, equals, value in [part.strip().partition("=")]
            if equals and found == name
        ]
        return values[0] if len(values) == 1 else None


def header(scope: Any, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def refuse_shape(scope: Any) -> Refusal | None:
    """Refuse what servers disagree about: methods that nothing here has, two lengths, two kinds of framing."""
    if scope["type"] == "http" and scope["method"] not in METHODS:
        return Refusal(405, f"{scope['method'][:20]} is not a method here")
    lengths, encodings = header(scope, b"content-length"), header(scope, b"transfer-encoding")
    if len(lengths) > 1 or (lengths and encodings) or (encodings and [one.lower() for one in encodings] != ["chunked"]):
        return Refusal(400, "the length of the body is not clear")
    return None


def passed_on(headers: Headers, also: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """The headers that the server behind gets: without those of the connection, of this server, and with `_` in names.

    Examples
    --------
    >>> passed_on([(b"Accept", b"*/*"), (b"X_ML_Platform_Role", b"admin"), (b"Cookie", b"a=b")])
    [(b'accept', b'*/*')]
    """
    named = {
        name.strip().lower()
        for key, value in headers
        if key.lower() == b"connection"
        for name in value.split(b",")
    }  # fmt: skip
    kept = []
    for key, value in headers:
        name = key.lower()
        if name in also or not (name in _OWN or name in named or b"_" in name or name.startswith(_OWN_BEGINNINGS)):
            kept.append((name, value))
    return kept
