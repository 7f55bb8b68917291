"""Who may ask what: checks the API key or token of every request.

A server without keys is open, but answers its own machine only. Once there is a key, every route except the probes
requires one: as bearer token, as `X-API-Key`, or as the password in a browser's login dialog (for pages only). Where an
OpenID Connect issuer is configured, its tokens are accepted too; and where people sign in, what the login gateway says.
"""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.types import Scope

from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from ml_platform.serving.access.gateway import GatewayCallers, PersonCaller
from ml_platform.serving.access.governed import FEATURES, GovernedCaller, object_of, privilege_of
from ml_platform.serving.access.tokens import TokenCaller, Tokens
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.query_options import wants_details
from ml_platform.serving.http.request_context import RequestContext

PROBES = frozenset({"/health/live", "/health/ready", "/health", "/ping", "/v2/health/live", "/v2/health/ready"})
# For keys of any model: lists show the models that the key covers.
# What Feast's clients ask for is in the body: the route looks whether the key covers it.
_ANY_SCOPE = frozenset(
    {"/models", "/streams", "/docs", "/version", "/v2", "/api/2.0/serving-endpoints", "/get-online-features"}
)
_LOOPBACK = ("127.", "::1", "::ffff:127.")
# Prefixes of paths in which the name of a model comes next.
_MODEL_PATHS = (
    ("predict",),
    ("endpoints",),
    ("models",),
    ("serving-endpoints",),
    ("api", "2.0", "serving-endpoints"),
    ("v2", "models"),
)
_OF_THE_ONLY_MODEL = "/invocations"
_SERVICE_PATH = re.compile(r"/serving-endpoints/([^/]+)/invocations")  # of models, and of feature services
_REMEMBERED = 1000  # requests
_REMEMBERED_BYTES = 512  # of path, query and credentials

Caller = Key | TokenCaller | PersonCaller | GovernedCaller


class Need(NamedTuple):
    """What a request needs: a role, on one model, on all models ("*") or on any model (None)."""

    role: str
    model: str | None


def _no_service(_: str) -> bool:
    return False


def need_of(
    method: str,
    path: str,
    query: bytes,
    only_model: Callable[[], str | None],
    is_service: Callable[[str], bool] = _no_service,
) -> Need | None:
    """What a request needs; None for the probes, which are open.

    A key is for a view or feature service under the name `features/<name>`.

    Examples
    --------
    >>> need_of("POST", "/predict/flight_delay", b"", lambda: None)
    Need(role='predict', model='flight_delay')
    >>> need_of("POST", "/features/origin_weather/lookup", b"", lambda: None)
    Need(role='predict', model='features/origin_weather')
    >>> need_of("GET", "/metrics", b"", lambda: None)
    Need(role='predict', model='*')
    """
    if path in PROBES and method in ("GET", "HEAD"):
        return None
    parts = path.strip("/").split("/")
    role = "explain" if query and wants_details(query) else "predict"
    if method in ("PUT", "PATCH", "DELETE") or (
        method == "POST" and (parts[0] == "endpoints" or path.rstrip("/") == "/api/2.0/serving-endpoints")
    ):
        role = "promote"
    if (features := _need_of_features(method, path, parts, is_service)) is not None:
        return features
    for prefix in _MODEL_PATHS:
        if tuple(parts[: len(prefix)]) == prefix and len(parts) > len(prefix):
            return Need(role, parts[len(prefix)])
    if path == _OF_THE_ONLY_MODEL:
        return Need(role, only_model() or ALL_MODELS)
    if path.rstrip("/") in _ANY_SCOPE or parts[0] in ("docs", "assets", "catalogue", "audit"):
        return Need("promote" if role == "promote" else "predict", None)
    return Need("predict", ALL_MODELS)


def _need_of_features(method: str, path: str, parts: list[str], is_service: Callable[[str], bool]) -> Need | None:
    """What a request about features needs; None for any other request."""
    if parts[0] == "features":
        if (len(parts) == 3 and parts[2] in ("lookup", "console")) or method in ("GET", "HEAD"):
            return Need("predict", f"{FEATURES}{parts[1]}" if len(parts) > 1 else None)
        return Need("push", ALL_MODELS)  # a view's rows reach every model that looks them up
    called = _SERVICE_PATH.fullmatch(path)
    return Need("predict", f"{FEATURES}{called[1]}") if called is not None and is_service(called[1]) else None


class Access:
    """Checks keys and tokens of requests. One per worker."""

    def __init__(
        self,
        keys: KeyStore,
        only_model: Callable[[], str | None],
        tokens: Tokens | None = None,
        is_service: Callable[[str], bool] = _no_service,
        *,
        policy: PolicyStore | None = None,
        gateway: GatewayCallers | None = None,
    ) -> None:
        self._keys = keys
        self._policy = policy
        self._gateway = gateway
        self._is_service = is_service
        self._only_model = only_model
        self._tokens = tokens
        self._passed: dict[tuple[Any, ...], tuple[Key, Caller]] = {}
        self._revision = (0, 0)

    def in_use(self) -> bool:
        """Whether requests must carry a key or token, or come from the login gateway."""
        by_login = self._gateway is not None and self._gateway.in_use()
        return self._tokens is not None or self._keys.in_use() or by_login or self._is_governed()

    def _is_governed(self) -> bool:
        return self._policy is not None and self._policy.in_use()

    def check_open(self, scope: Scope) -> None:
        """While there are no keys: refuse requests from other machines (raises Refused)."""
        client = scope.get("client")
        if client is not None and not client[0].startswith(_LOOPBACK):
            message = (
                "this server has no keys yet and answers its own machine only: make one with `ml-platform keys create`"
            )
            raise Refused(403, "no_keys", message, close=True)

    @staticmethod
    def check_page(scope: Scope) -> None:
        """While there are no keys: refuse requests from pages of other sites (raises Refused).

        A browser lets any page post text to this machine, where it would be read as JSON. Its header `Origin` names
        the page's site.
        """
        head = RequestContext.of(scope)
        if head.origin is not None and head.origin.partition(b"://")[2] != head.host:
            message = "this server has no keys yet and answers no pages but its own"
            raise Refused(403, "foreign_origin", message, close=True)

    def recall(self, scope: Scope) -> Caller | None:
        """The caller with whose key an equal request passed `check` before, while that key is valid; else None.

        What a key may do changes only with the keys and the access policy: then everything remembered is forgotten.
        """
        revision = (self._keys.revision(), 0 if self._policy is None else self._policy.revision())
        if revision != self._revision:
            self._passed, self._revision = {}, revision
        key, caller = self._passed.get(_cache_key(scope), (None, None))
        if key is None or (key.expires_at is not None and not key.is_valid(datetime.now(UTC))):
            return None
        context = RequestContext.of(scope)
        context.is_keyed, context.key = True, caller
        return caller

    async def check(self, scope: Scope) -> Caller | None:
        """The caller of a request that may pass, None for a probe without a key; also put into its context.

        Raises
        ------
        Refused
            401 without a valid key or token, 403 for one that lacks the role, the model or a grant, 503 while tokens
            cannot be checked.
        """
        context = RequestContext.of(scope)
        context.is_keyed, context.key = True, None
        need = need_of(scope["method"], scope["path"], scope["query_string"], self._only_model, self._is_service)
        token = _token(scope)
        found: Key | TokenCaller | PersonCaller | None = None if token is None else self._keys.find(token)
        if token is None and self._gateway is not None:
            found = self._gateway.find(context.credentials)
        if found is None and token is not None and self._tokens is not None and token.count(".") == 2:
            found = self._tokens.remembered(token) if need is None else await self._tokens.find(token)
        caller: Caller | None = found
        if found is not None and self._policy is not None and self._is_governed():
            caller = GovernedCaller(found, self._policy.policy)
        context.key = caller
        if need is None:
            return caller
        if caller is None:
            message = "send a valid API key as `Authorization: Bearer <key>`; `ml-platform keys create` makes one"
            raise Refused(401, "unauthenticated", message, close=True)
        what = "key" if isinstance(found, Key) else "person" if isinstance(found, PersonCaller) else "token"
        if not caller.has_role(need.role):
            raise Refused(403, "forbidden", f"this {what} lacks the role '{need.role}'", close=True)
        if need.model is not None and found is not None and not found.may(need.role, need.model):
            which = "for certain models only" if need.model == ALL_MODELS else "not for that model"
            raise Refused(403, "forbidden", f"this {what} is {which}", close=True)
        if isinstance(caller, GovernedCaller):
            _check_granted(scope, caller, need)
        if isinstance(found, Key):
            self._remember(scope, found, caller)
        return caller

    def _remember(self, scope: Scope, key: Key, caller: Caller) -> None:
        """Let `recall` find the next equal request. Not for tokens: their issuer's keys may be withdrawn."""
        length = len(scope["path"]) + len(scope["query_string"])
        length += sum(len(value) for _, value in RequestContext.of(scope).credentials)
        if length > _REMEMBERED_BYTES:
            return
        path = scope["path"]
        if path == _OF_THE_ONLY_MODEL or _SERVICE_PATH.fullmatch(path):  # which model or service that is may change
            return
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed[_cache_key(scope)] = (key, caller)


def _check_granted(scope: Scope, caller: GovernedCaller, need: Need) -> None:
    """Refuse a request whose privilege is not granted (raises Refused); what is only read wants `browse`."""
    model = need.model
    if need.role == "push":  # the role is for all views, the privilege for the one of the path
        parts = scope["path"].strip("/").split("/")
        model = f"{FEATURES}{parts[1]}" if len(parts) > 1 else ALL_MODELS
    if model is None:
        return  # lists: of what the caller may see
    is_read = need.role == "predict" and scope["method"] in ("GET", "HEAD")
    granted = caller.covers(model) if is_read else caller.is_granted(need.role, model)
    if not granted:
        privilege = "browse" if is_read else privilege_of(need.role, model)
        who, on = caller.principal.text, object_of(model).text
        message = f"{who} lacks the privilege '{privilege}' on {on}: ask its owner for a grant"
        raise Refused(403, "forbidden", message, close=True)


def _cache_key(scope: Scope) -> tuple[Any, ...]:
    """The parts of a request that `Access.check` looks at, when it names its model."""
    return scope["method"], scope["path"], scope["query_string"], RequestContext.of(scope).credentials


def _token(scope: Scope) -> str | None:
    """The key or token that a request carries, from the first header that holds one."""
    for name, value in RequestContext.of(scope).credentials:
        text = value.decode("latin-1")
        if name == b"x-api-key":
            return text
        kind, _, rest = text.partition(" ")
        if kind.lower() == "bearer":
            return rest.strip()
        # A browser sends these along from pages of any site, so they are not accepted for a POST.
        if kind.lower() == "basic" and scope["method"] == "GET":
            try:
                return base64.b64decode(rest, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return None
    return None
