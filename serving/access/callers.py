"""Who may ask what: API keys at the door of every route.

Without keys a server is open, and answers this machine alone. From the first key on, every route but the probes wants
one: as bearer token, as `X-API-Key`, or as the password of a browser's own dialog (for pages only). Where an issuer of
tokens is set, one of its tokens does as well.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.types import Scope

from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from serving.access.tokens import TokenCaller, Tokens
from serving.wire import Head, Refused

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
_OF_THE_ONLY_MODEL = "/invocations"
_REMEMBERED = 1000  # requests
_REMEMBERED_BYTES = 512  # of path, query and credentials

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
    if path == _OF_THE_ONLY_MODEL:
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
        self._passed: dict[tuple[Any, ...], Key] = {}
        self._revision = 0

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

    @staticmethod
    def check_page(scope: Scope) -> None:
        """While there are no keys: let in no pages but the server's own (raises Refused).

        A browser lets any page post text to this machine, where it would be taken for JSON. It says from where.
        """
        head = Head.of(scope)
        if head.origin is not None and head.origin.partition(b"://")[2] != head.host:
            told = "this server has no keys yet and answers no pages but its own"
            raise Refused(403, "foreign_origin", told, close=True)

    def recall(self, scope: Scope) -> Key | None:
        """The key that a request like this one has passed with before, while that key stands; no role is asked again.

        What a key opens changes with the file of the keys alone, and so does what is remembered.
        """
        revision = self._keys.revision()
        if revision != self._revision:
            self._passed, self._revision = {}, revision
        key = self._passed.get(_likeness(scope))
        if key is None or (key.expires_at is not None and not key.is_valid(datetime.now(UTC))):
            return None
        scope["key"] = key
        return key

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
        if isinstance(caller, Key):
            self._remember(scope, caller)
        return caller

    def _remember(self, scope: Scope, key: Key) -> None:
        """Let the next request like this one pass at once. A token may end with its issuer's keys: it is not kept."""
        length = len(scope["path"]) + len(scope["query_string"])
        length += sum(len(value) for _, value in Head.of(scope).credentials)
        if length > _REMEMBERED_BYTES or scope["path"] == _OF_THE_ONLY_MODEL:  # which model that is may change
            return
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed[_likeness(scope)] = key


def _likeness(scope: Scope) -> tuple[Any, ...]:
    """All that `Access.check` looks at of a request that names its model."""
    return scope["method"], scope["path"], scope["query_string"], Head.of(scope).credentials


def covered(scope: Scope, model: str) -> bool:
    """Whether who asks may know of a model."""
    key = scope.get("key")
    return key is None or key.covers(model)


def _token(scope: Scope) -> str | None:
    """The key that a request carries, from the first header that holds one."""
    for name, value in Head.of(scope).credentials:
        text = value.decode("latin-1")
        if name == b"x-api-key":
            return text
        kind, _, rest = text.partition(" ")
        if kind.lower() == "bearer":
            return rest.strip()
        # A browser sends these along from any page, so they open nothing that is posted.
        if kind.lower() == "basic" and scope["method"] == "GET":
            try:
                return base64.b64decode(rest, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return None
    return None
