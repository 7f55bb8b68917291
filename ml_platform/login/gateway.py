"""The gateway: who asks, whether their role suffices, and on to the server behind, which is told who it is."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ml_platform.gateway_identity import GatewaySigner
from ml_platform.governance.audit import AuditLog
from ml_platform.governance.keys import KeyStore
from ml_platform.login import console_rules, dagster_rules, mlflow_bodies, mlflow_rules, websocket
from ml_platform.login.graphql_document import LARGEST, GraphQLRefused, read_request
from ml_platform.login.judgement import Judgement
from ml_platform.login.pages import LOGIN, OWN, Pages
from ml_platform.login.paths import PathRefused, plain_path
from ml_platform.login.people import People, Person, person_of_key
from ml_platform.login.proxy import ClientGone, Proxy, ServerAway, Upstream
from ml_platform.login.request_checks import SAFE_METHODS, Connection, Site, header, passed_on, refuse_shape
from ml_platform.login.roles import includes
from ml_platform.login.settings import LoginSettings
from ml_platform.login.sign_in_log import SignInLog, named
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger("login")

_UPLOADED = ((b"content-security-policy", b"sandbox; frame-ancestors 'self'"), (b"x-content-type-options", b"nosniff"))
_BODY_SECONDS = 30.0  # for a body of GraphQL to arrive


class _Refused(Exception):
    """An answer in place of the server's behind."""

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        reason = reason.encode("utf-8", "backslashreplace").decode()  # of lone surrogates in what was sent
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Gateway:
    """ASGI app in front of Dagster's UI, MLflow's and the console.

    Parameters
    ----------
    settings, login
        Of the platform and of the gateway.
    site
        By which names people reach it.
    upstreams
        The servers behind, by user interface.
    """

    def __init__(
        self,
        settings: Settings,
        login: LoginSettings,
        site: Site,
        upstreams: Mapping[str, Upstream],
        signer: GatewaySigner,
    ) -> None:
        self._site, self._upstreams, self._signer = site, upstreams, signer
        self._people = People(settings, login)
        self._keys = KeyStore(settings.keys_dir)
        self._log = SignInLog(AuditLog(settings.audit_dir, settings.keys_dir))
        self._pages = Pages(self._people, site, login, signer, self._log)
        self._proxy: Proxy | None = None

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._handle(Connection(scope, receive, send))
        except _Refused as refused:
            await self._refuse(Connection(scope, receive, send), refused)
        except ClientGone:
            logger.info("a client hung up before its body had come")

    async def _live(self, receive: "Receive", send: "Send") -> None:
        await receive()
        self._proxy = Proxy()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._proxy.close()
        self._log.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _handle(self, client: Connection) -> None:
        scope = client.scope
        is_health = scope["type"] == "http" and scope["raw_path"].split(b"?")[0] == b"/-/health"
        if is_health and scope["method"] in SAFE_METHODS:
            # Before the name is looked at: what starts and watches the gateway asks the machine, not the site.
            await JSONResponse({"status": "live"})(*client)
            return
        refusal = self._site.refuse_host(scope) or refuse_shape(scope)
        if refusal is not None:
            raise _Refused(refusal.status, refusal.reason)
        try:
            path = plain_path(scope["raw_path"].split(b"?")[0].decode("latin-1"))
        except PathRefused as error:
            raise _Refused(400, str(error)) from None
        has_credentials = header(scope, b"authorization") or header(scope, b"x-api-key")
        # A page of another site can neither read nor send these headers: a program does.
        refusal = None if has_credentials and not header(scope, b"origin") else self._site.refuse_page(scope)
        if refusal is not None:
            raise _Refused(refusal.status, refusal.reason)
        try:
            person = self._person(scope)
        except (ValueError, OSError) as error:  # of accounts, sessions or keys
            logger.error("%s", error)
            raise _Refused(503, "who you are cannot be looked up now; the server's log has the reason") from None
        if path == "/-" or path.startswith(OWN):
            if scope["type"] != "http":
                raise _Refused(404, "nothing is here")
            answer = await self._pages.answer(Request(scope, client.receive), path, person)
            await answer(*client)
            return
        await self._to_ui(client, path, person)

    def _person(self, scope: "Scope") -> Person | None:
        """Who sends a request: by its key, else by its session."""
        if (text := _key_of(scope)) is not None:
            key = self._keys.find(text)
            return None if key is None else person_of_key(key)
        secret = self._site.cookie_of(scope)
        return None if secret is None else self._people.of_session(secret)

    async def _to_ui(self, client: Connection, path: str, person: Person | None) -> None:
        scope = client.scope
        ui, rest = _place(path)
        if rest is None:
            await RedirectResponse(path + "/", 308)(*client)
            return
        own_key = ui == "console" and _key_of(scope) is not None
        if own_key and scope["type"] == "http":  # which the prediction server judges by itself
            await self._pass_on(client, ui, path, None)
            return
        if person is None:
            raise _signed_out(scope, path)
        if scope["type"] == "websocket":
            await self._subscribe(client, ui, rest, person)
            return
        body, judgement, about = None, None, ""
        if scope["method"] == "POST" and ui in {"dagster", "mlflow"} and rest == dagster_rules.GRAPHQL:
            sent = await _graphql_body(client)
            try:
                request = read_request(sent)
            except GraphQLRefused as error:
                self._note_refused(scope, person, ui, action="GraphQL", why=str(error), status=400)
                raise _Refused(400, str(error)) from None
            rules = dagster_rules if ui == "dagster" else mlflow_rules
            body, judgement = request.body, rules.of_document(request.document)
            about = named(request.variables) if judgement.is_change else ""
        else:
            rules_of = {"dagster": dagster_rules, "mlflow": mlflow_rules, "console": console_rules}[ui]
            judgement = rules_of.of_request(scope["method"], rest)
            role = person.roles.get(ui)
            is_read = ui == "mlflow" and role != "admin" and mlflow_bodies.is_read(scope["method"], rest)
            if is_read and includes(role, judgement.role or "admin"):
                body = await self._mlflow_body(client, person, judgement)
        self._require(scope, person, ui, judgement, about=about)
        await self._pass_on(client, ui, rest, person, body=body)

    async def _mlflow_body(self, client: Connection, person: Person, judgement: Judgement) -> bytes:
        """The body of a request to MLflow that names no place of the server's (raises _Refused)."""
        scope = client.scope
        sent = await _whole_body(client, mlflow_bodies.LARGEST)
        try:
            return mlflow_bodies.checked(sent)
        except (mlflow_bodies.PlaceRefused, mlflow_bodies.BodyRefused) as error:
            status = 403 if isinstance(error, mlflow_bodies.PlaceRefused) else 400
            self._note_refused(scope, person, "mlflow", action=judgement.action, why=str(error), status=status)
            raise _Refused(status, str(error)) from None

    def _require(self, scope: "Scope", person: Person, ui: str, judgement: Judgement, *, about: str) -> None:
        """Refuse what a role does not include, and note changes before they are passed on (raises _Refused)."""
        role = person.roles.get(ui)
        if judgement.role is None:
            if scope["method"] not in SAFE_METHODS:
                self._note_refused(scope, person, ui, action=judgement.action, why=judgement.reason, status=405)
            raise _Refused(405, judgement.reason)
        if not includes(role, judgement.role):
            held = f"your role {role}" if role else "you have no role here, which"
            reason = f"{held} does not include {judgement.action} on {ui}: it takes {judgement.role}"
            if scope["method"] in SAFE_METHODS and ui == "mlflow":  # its page asks for what it can do without
                raise _Refused(403, reason)
            self._note_refused(scope, person, ui, action=judgement.action, why=f"{about} {reason}".strip(), status=403)
            raise _Refused(403, reason, (("x-ml-platform-refused", _header_text(reason)),))
        if judgement.is_change:
            try:
                detail = f"{ui}: {judgement.action}{f' ({about})' if about else ''} as {role}"
                self._log.note(
                    "change", who=person.principal, client=_client(scope), detail=detail, method=scope["method"],
                    path=scope["path"],
                )  # fmt: skip
            except OSError:
                raise _Refused(503, "the audit log cannot be written, so nothing is changed") from None

    def _note_refused(self, scope: "Scope", person: Person, ui: str, *, action: str, why: str, status: int) -> None:
        method = scope.get("method", "WEBSOCKET")
        with contextlib.suppress(OSError):  # it is refused all the same
            self._log.note(
                "refused", who=person.principal, client=_client(scope), detail=f"{ui}: {action}: {why}", method=method,
                path=scope["path"], status=status,
            )  # fmt: skip

    async def _pass_on(
        self, client: Connection, ui: str, path: str, person: Person | None, *, body: bytes | None = None
    ) -> None:
        scope = client.scope
        assert self._proxy is not None
        upstream = self._upstreams[ui]
        headers = passed_on(scope["headers"], (b"authorization", b"x-api-key") if person is None else ())
        headers.append((b"host", _host(upstream.url)))
        if person is not None:
            headers.append((b"authorization", self._signer.header(person.identity(ui), ui).encode()))
        if (address := _client(scope)) is not None:
            headers.append((b"x-forwarded-for", address.encode()))
        if body is not None:
            headers = [(name, value) for name, value in headers if name not in (b"content-length", b"content-type")]
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        is_uploaded = ui == "mlflow" and mlflow_rules.is_uploaded(path)
        is_page = scope["method"] == "GET" and header(scope, b"sec-fetch-dest") == ["document"]
        try:
            await self._proxy.pass_on(
                upstream, client, headers, body, extra=_UPLOADED if is_uploaded else (),
                with_script=is_page and not is_uploaded,
            )  # fmt: skip
        except ServerAway as error:
            logger.error("%s at %s: %s", upstream.title, upstream.url, error)
            raise _Refused(502, f"{upstream.title} does not answer: the server's log has the reason") from error

    async def _subscribe(self, client: Connection, ui: str, path: str, person: Person) -> None:
        scope = client.scope
        if ui != "dagster" or path != dagster_rules.GRAPHQL:
            raise _Refused(404, "there is no WebSocket here")
        if not includes(person.roles.get(ui), "viewer"):
            raise _Refused(403, "you have no role here")
        secret, looked, was = self._site.cookie_of(scope), time.monotonic(), True

        def is_signed_in() -> bool:
            nonlocal looked, was
            if time.monotonic() - looked >= 1.0:
                try:
                    now = self._people.of_session(secret) if secret is not None else self._person(scope)
                except (ValueError, OSError) as error:  # nobody is let on who cannot be looked up
                    logger.error("%s", error)
                    now = None
                looked, was = time.monotonic(), now is not None and includes(now.roles.get(ui), "viewer")
            return was

        upstream = self._upstreams[ui]
        await websocket.pass_on(
            "ws" + (upstream.url + upstream.target(scope).decode("latin-1")).removeprefix("http"),
            [("Authorization", self._signer.header(person.identity(ui), ui))],
            client,
            is_signed_in=is_signed_in,
            on_refused=lambda why: self._note_refused(scope, person, ui, action="WebSocket", why=why, status=403),
        )

    async def _refuse(self, client: Connection, refused: _Refused) -> None:
        """Answer with a reason, as whoever asks can read it: a page, GraphQL's errors, or JSON."""
        scope = client.scope
        if scope["type"] == "websocket":
            code = websocket.SIGN_IN if refused.status == 401 else websocket.REFUSED
            await websocket.close(client, code, refused.reason)
            return
        headers = dict(refused.headers)
        location = headers.pop("location", None)
        is_page = "text/html" in ",".join(header(scope, b"accept"))
        response: Response
        if location is not None and is_page and scope["method"] == "GET":
            response = RedirectResponse(location, 303, headers={"Cache-Control": "no-store"})
        elif is_page:
            title = "Your sign-in has ended" if refused.status == 401 else "Not done"
            text = refused.reason[:1].upper() + refused.reason[1:] + "."
            link = (LOGIN, "Sign in") if refused.status == 401 else ("/-/", "Where you may go")
            response = self._pages.message(refused.status, title, text, link=link[0], link_text=link[1])
        else:
            # Both as MLflow's and serving's clients read errors, and as Dagster's page does.
            content = {"error": refused.reason, "message": refused.reason, "errors": [{"message": refused.reason}]}
            response = JSONResponse(content, refused.status)
        for name, value in headers.items():
            response.headers[name] = value
        if scope["method"] not in SAFE_METHODS:
            response.headers["Connection"] = "close"  # its body was not read
        await response(*client)


def _place(path: str) -> tuple[str, str | None]:
    """The user interface of a path, and the path there; None for a prefix without its slash."""
    for ui, prefix in (("dagster", dagster_rules.PREFIX), ("mlflow", mlflow_rules.PREFIX)):
        if path == prefix:
            return ui, None
        if path.startswith(prefix + "/"):
            return ui, path.removeprefix(prefix)
    return "console", path


def _signed_out(scope: "Scope", path: str) -> _Refused:
    """Without a session: pages lead to the sign-in and back, everything else says what to do and loses nothing."""
    query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
    raw = scope["raw_path"].split(b"?")[0].decode("latin-1")
    address = f"{LOGIN}?{urlencode({'next': raw + query})}" if path != "/" or query else LOGIN
    reason = (
        "your sign-in has ended, and nothing was done: sign in at /-/login in another tab, then repeat it here"
        if scope["type"] == "http"
        else "sign in again"
    )
    return _Refused(401, reason, (("location", address), ("x-ml-platform-sign-in", LOGIN)))


async def _graphql_body(client: Connection) -> bytes:
    """The body of a GraphQL request (raises _Refused)."""
    scope = client.scope
    kinds = [value.partition(";")[0].strip().lower() for value in header(scope, b"content-type")]
    if kinds != ["application/json"]:
        raise _Refused(415, f"wanted Content-Type: application/json, found {', '.join(kinds)[:100] or 'none'}")
    return await _whole_body(client, LARGEST)


async def _whole_body(client: Connection, largest: int) -> bytes:
    """A body that is judged before it is passed on (raises _Refused)."""
    if header(client.scope, b"content-encoding"):
        raise _Refused(415, "this is sent without Content-Encoding")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await client.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > largest:
                    raise _Refused(413, f"such a request may have {largest:,} bytes")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise _Refused(408, "the body did not come in time") from None


def _key_of(scope: "Scope") -> str | None:
    """The API key or token that a program sends; "" for credentials of another kind."""
    for name in (b"authorization", b"x-api-key"):
        for text in header(scope, name):
            kind, _, rest = text.partition(" ")
            return text if name == b"x-api-key" else rest.strip() if kind.lower() == "bearer" else ""
    return None


def _client(scope: "Scope") -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _host(url: str) -> bytes:
    return url.partition("://")[2].encode()


def _header_text(reason: str) -> str:
    return reason.encode("ascii", "replace").decode()
