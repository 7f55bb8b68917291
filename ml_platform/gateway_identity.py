"""Who a signed-in person is, said by the login gateway to the server behind it: a header that it alone can make.

`Authorization: Gateway <payload>.<signature>` is valid for `SECONDS`, for one server (`audience`). It is signed with a
secret beside the API keys, which only the platform's user can read. While that secret exists, login is in use:
Dagster's UI and MLflow's answer to nobody but the gateway, and serving wants a key, a token or this header.

Serving imports this: standard library and msgspec only.
"""

import base64
import binascii
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.secret_file import load_secret

SECRET = "gateway.secret"  # below the platform's `keys_dir`
SCHEME = "gateway"
SECONDS = 30.0  # that a header is valid for
LEEWAY_SECONDS = 5.0  # allowed difference of clocks
ROLES = ("viewer", "launcher", "editor", "admin")  # each includes those before it
IDENTITY = "ml_platform.identity"  # of the request, in the scope of the server behind the gateway

_MOST_CHARACTERS = 8192

# As in asgiref's typing, without depending on it.
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Identity(msgspec.Struct, frozen=True):
    """A person who has signed in, as one server is told of them.

    Attributes
    ----------
    name
        The person's name: their principal is `user:<name>`.
    role
        What they may do on this server: viewer, launcher, editor or admin.
    groups
        Names of the groups that the account or the identity provider puts them in.
    """

    name: str
    role: str
    groups: tuple[str, ...] = ()


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    audience: str
    until: float  # seconds since 1970
    identity: Identity


def login_in_use(keys_dir: Path) -> bool:
    """Whether people sign in: from the first account, or the first start of the gateway, on."""
    return (keys_dir / SECRET).exists()


class GatewaySigner:
    """Makes and checks the gateway's headers.

    Parameters
    ----------
    keys_dir
        The platform's `keys_dir`.
    create
        Make the secret if there is none, which puts login into use.

    Raises
    ------
    FileNotFoundError
        When there is no secret, and `create` is false.

    Examples
    --------
    >>> import tempfile
    >>> signer = GatewaySigner(Path(tempfile.mkdtemp()), create=True)
    >>> header = signer.header(Identity("ada", "viewer"), "serving")
    >>> signer.identity(header, "serving").name, signer.identity(header, "dagster")
    ('ada', None)
    """

    def __init__(self, keys_dir: Path, *, create: bool = False) -> None:
        self._secret = load_secret(keys_dir / SECRET, create=create)

    def header(self, identity: Identity, audience: str) -> str:
        """The value of `Authorization` that says to one server who asks, for the next `SECONDS`."""
        payload = msgspec.json.encode(_Payload(audience, time.time() + SECONDS, identity))
        return f"Gateway {_text(payload)}.{_text(self.mac('identity', payload))}"

    def identity(self, header: str, audience: str) -> Identity | None:
        """Who asks, by the value of `Authorization`; None when the gateway has not said it to this server just now."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != SCHEME or len(token) > _MOST_CHARACTERS:
            return None
        try:
            payload, signature = (
                base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
                for part in token.split(".")
            )
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(signature, self.mac("identity", payload)):
            return None
        said = msgspec.json.decode(payload, type=_Payload)
        now = time.time()
        in_time = now - LEEWAY_SECONDS <= said.until <= now + SECONDS + LEEWAY_SECONDS
        return said.identity if in_time and said.audience == audience else None

    def mac(self, purpose: str, content: bytes) -> bytes:
        """HMAC of a content for one purpose, with the gateway's secret."""
        return hmac.digest(self._secret, purpose.encode() + b"\0" + content, "sha256")


@dataclass(frozen=True)
class GatewayOnly:
    """ASGI middleware that answers the gateway alone, and puts the identity it names into the scope.

    Parameters
    ----------
    app
        The server behind the gateway.
    signer
        Checks the headers.
    audience
        The name of this server in them.
    open_paths
        Paths that are answered to everybody: those by which the process is seen to be up.
    """

    app: Callable[[Any, Any, Any], Awaitable[None]]
    signer: GatewaySigner
    audience: str
    open_paths: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that its sender must sign in."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]
        identity = self.signer.identity(sent[0], self.audience) if len(sent) == 1 else None
        is_open = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in self.open_paths
        if identity is not None or is_open:
            await self.app({**scope, IDENTITY: identity}, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "sign in at the login gateway"})
        else:
            body = json.dumps({"error": "people sign in here: open the address of `ml-platform login-server`"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
