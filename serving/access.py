"""Who may ask what: API keys at the door of every route, and a line in the audit log for each request.

Without keys a server is open, and answers this machine alone. From the first key on, every route but the probes wants
one: as bearer token, as `X-API-Key`, or as the password of a browser's own dialog (for pages only). Where an issuer of
tokens is set, one of its tokens does as well.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.types import Scope

from ml_platform.governance.audit import Entry
from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from serving.tokens import TokenCaller, Tokens
from serving.wire import Refused

PROBES = frozenset({"/health/live", "/health/ready", "/health", "/ping", "/v2/health/live", "/v2/health/ready"})
_ANY_SCOPE = frozenset(
    {"/models", "/docs", "/version", "/v2", "/api/2.0/serving-endpoints"}
)  # lists show what is covered
_LOOPBACK = ("127.", "::1", "::ffff:127.")
# Where the name of a model is in a path.
_MODEL_PATHS = (
    ("predict",),
    ("endpoints",),
    ("models",),
    ("serving-endpoints",),
    ("api", "2.0", "serving-endpoints"),
    ("v2", "models"),
)


Caller = Key | TokenCaller


class Need(NamedTuple):
    """What a request takes: a role, on a model or on all ("*"), or no certain one (None)."""

    role: str
    model: str | None


def need_of(method: str, path: str, query: bytes, only_model: Callable[[], str | None]) -> Need | None:
    """What a request takes; None for the probes, which are open.

    Examples
    --------
    >>> need_of("POST", "/predict/flight_delay", b"", lambda: None)
    Need(role='predict', model='flight_delay')
    >>> need_of("GET", "/metrics", b"", lambda: None)
    Need(role='predict', model='*')
    """
    if path in PROBES and method in ("GET", "HEAD"):
        return None
    parts = path.strip("/").split("/")
    role = "explain" if b"explain" in query or b"features" in query or b"%" in query else "predict"
    if method in ("PUT", "DELETE") or (method == "POST" and path.rstrip("/") == "/api/2.0/serving-endpoints"):
        role = "promote"
    if parts[0] == "features":  # a view's rows reach every model that looks them up
        return Need("push", ALL_MODELS)
    for prefix in _MODEL_PATHS:
        if tuple(parts[: len(prefix)]) == prefix and len(parts) > len(prefix):
            return Need(role, parts[len(prefix)])
    if path == "/invocations":
        return Need(role, only_model() or ALL_MODELS)
    if path.rstrip("/") in _ANY_SCOPE or parts[0] in ("docs", "assets"):
        return Need("promote" if role == "promote" else "predict", None)
    return Need("predict", ALL_MODELS)


class Access:
    """Lets requests in. One per worker."""

    def __init__(self, keys: KeyStore, only_model: Callable[[], str | None], tokens: Tokens | None = None) -> None:
        self._keys = keys
        self._only_model = only_model
        self._tokens = tokens

    def in_use(self) -> bool:
        """Whether keys or tokens are asked for."""
        return self._tokens is not None or self._keys.in_use()

    def check_open(self, scope: Scope) -> None:
        """While there are no keys: let in this machine alone (raises Refused)."""
        client = scope.get("client")
        if client is not None and not client[0].startswith(_LOOPBACK):
            told = (
                "this server has no keys yet and answers its own machine only: make one with `ml-platform keys create`"
            )
            raise Refused(403, "no_keys", told, close=True)

    async def check(self, scope: Scope) -> Caller | None:
        """Who sends a request that may pass, None for an open probe without a key; `scope["key"]` as soon as known.

        Raises
        ------
        Refused
            401 without a valid key or token, 403 for one that lacks the role or the model, 503 while tokens cannot be
            checked.
        """
        scope["key"] = None
        need = need_of(scope["method"], scope["path"], scope["query_string"], self._only_model)
        token = _token(scope)
        caller: Caller | None = None if token is None else self._keys.find(token)
        if caller is None and token is not None and self._tokens is not None and token.count(".") == 2:
            caller = self._tokens.remembered(token) if need is None else await self._tokens.find(token)
        scope["key"] = caller
        if need is None:
            return caller
        if caller is None:
            told = "send a valid API key as `Authorization: Bearer <key>`; `ml-platform keys create` makes one"
            raise Refused(401, "unauthenticated", told, close=True)
        what = "key" if isinstance(caller, Key) else "token"
        if not caller.has_role(need.role):
            raise Refused(403, "forbidden", f"this {what} lacks the role '{need.role}'", close=True)
        if need.model is not None and not caller.may(need.role, need.model):
            which = "for certain models only" if need.model == ALL_MODELS else "not for that model"
            raise Refused(403, "forbidden", f"this {what} is {which}", close=True)
        return caller


def covered(scope: Scope, model: str) -> bool:
    """Whether who asks may know of a model."""
    key = scope.get("key")
    return key is None or key.covers(model)


def audited(scope: Scope, status: int) -> Entry:
    """What the audit log keeps of a request that was answered; never what was sent or answered."""
    caller: Caller | None = scope.get("key")
    return Entry(
        time=datetime.now(UTC),
        request_id=scope.get("request_id"),
        key=caller.id if caller else None,
        name=caller.name if caller else None,
        client=scope["client"][0] if scope.get("client") else None,
        method=scope["method"],
        path=scope["path"][:500],
        status=status,
    )


def _token(scope: Scope) -> str | None:
    """The key that a request carries, from the first header that holds one."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return str(value.decode("latin-1"))
        if name == b"authorization":
            kind, _, rest = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer":
                return str(rest.strip())
            # A browser sends these along from any page, so they open nothing that is posted.
            if kind.lower() == "basic" and scope["method"] == "GET":
                try:
                    return base64.b64decode(rest, validate=True).decode("latin-1").partition(":")[2]
                except ValueError:
                    return None
    return None
