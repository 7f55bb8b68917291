"""Who asks: the API key or token of a request, and the lake as its principal may see it."""

import time
from collections.abc import Callable, Mapping

from starlette.requests import Request

from ml_platform.governance.access.definitions import Definitions, load_definitions
from ml_platform.governance.access.guard import PolicyGuard
from ml_platform.governance.access.guarded import reads_for
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.speaker import policy_store, project_graph
from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from ml_platform.lake.access import OPEN, Reads, TableRead
from ml_platform.lake.storage.tables import Lake
from ml_platform.lineage.graph import ColumnGraph
from ml_platform.serving.access.governed import principal_of
from ml_platform.serving.access.tokens import TokenCaller, Tokens
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform.spec.protection import Protection

PATH = "sql-server"
_DEFINITIONS_SECONDS = 30.0  # after which a changed filter, mask or tag of a definition counts


class Callers:
    """Checks keys and tokens, and opens the lake for who has one.

    Parameters
    ----------
    settings
        Where keys, policy and lake are.
    definitions
        Gives the row filters, masks and tags that definitions declare.
    graph
        Gives what columns are made of, along which tags flow.
    """

    def __init__(
        self,
        settings: Settings,
        definitions: Callable[[], Definitions] = load_definitions,
        graph: Callable[[], ColumnGraph] = project_graph,
    ) -> None:
        self._settings = settings
        self._store = policy_store(settings)
        self._keys = KeyStore(settings.keys_dir)
        serving = ServingSettings()
        self.tokens = Tokens(serving) if serving.oidc_issuer else None
        self._load, self._graph = definitions, graph
        self._loaded_at = -1e9
        self._definitions = Definitions()

    def in_use(self) -> bool:
        """Whether requests must carry a key or token."""
        return self.tokens is not None or self._keys.in_use() or self._store.in_use()

    async def find(self, request: Request) -> Key | TokenCaller | None:
        """The caller of a request; None where nobody is asked for a key.

        Raises
        ------
        Refused
            401 without a valid key or token, 503 while tokens cannot be checked.
        """
        if not self.in_use():
            return None
        token = _token(request.headers)
        caller: Key | TokenCaller | None = self._keys.find(token) if token else None
        if caller is None and token and self.tokens is not None and token.count(".") == 2:
            caller = await self.tokens.find(token)
        if caller is None:
            raise Refused(401, "unauthenticated", "send a valid API key or token as `Authorization: Bearer <key>`")
        return caller

    def lake(self, caller: Key | TokenCaller | None, reads: list[TableRead]) -> Lake:
        """The lake as a caller may see it; what is read of it is added to `reads`. It may read files.

        Raises
        ------
        Refused
            403 for a key that is no admin's while no access policy says what else it may see.
        """
        who = None if caller is None else self.principal(caller).text
        listener = _listener(reads, reads_for(self._settings, who))
        if not self._store.in_use():
            if caller is not None and not caller.may("admin", ALL_MODELS):
                message = (
                    "no access policy is in force, so SQL is for keys with the role admin: ml-platform grant begins one"
                )
                raise Refused(403, "forbidden", message)
            return Lake(self._settings.lake_uri, reads=listener, path=PATH)
        assert caller is not None  # `find` asks for a key under a policy
        guard = PolicyGuard(self.principal(caller), self._store, self._protections(), graph=self._graph)
        return Lake(self._settings.lake_uri, guard=guard, reads=listener, path=PATH)

    def principal(self, caller: Key | TokenCaller) -> Principal:
        """Who a key or token stands for."""
        return principal_of(caller, self._store.policy)

    def _protections(self) -> Mapping[str, Protection]:
        now = time.monotonic()
        if now - self._loaded_at > _DEFINITIONS_SECONDS:
            self._definitions, self._loaded_at = self._load(), now
        return self._definitions.protections


def name_of(caller: Key | TokenCaller | None) -> str:
    """The caller's name, for the audit log."""
    return OPEN if caller is None else caller.name


def _listener(reads: list[TableRead], audit: Reads | None) -> Reads:
    def listen(read: TableRead) -> None:
        reads.append(read)
        if audit is not None:
            audit(read)

    return listen


def _token(headers: Mapping[str, str]) -> str | None:
    if key := headers.get("x-api-key"):
        return key
    kind, _, rest = headers.get("authorization", "").partition(" ")
    return rest.strip() if kind.lower() == "bearer" else None
