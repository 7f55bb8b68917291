"""The gateway's own pages: signing in and out, where one may go, one's sessions and password."""

import asyncio
import hmac
import logging
import secrets
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ml_platform.gateway_identity import GatewaySigner
from ml_platform.login.accounts import AccountRefused, AccountsDamaged
from ml_platform.login.oidc import CALLBACK, PENDING_SECONDS, Provider, SignInFailed
from ml_platform.login.passwords import SHORTEST, PasswordRefused, is_right
from ml_platform.login.paths import local_target
from ml_platform.login.people import ACCOUNT, OIDC, People, Person
from ml_platform.login.request_checks import Site
from ml_platform.login.roles import DOES
from ml_platform.login.sessions import SessionsDamaged
from ml_platform.login.settings import LoginSettings
from ml_platform.login.sign_in_log import SignInLog

if TYPE_CHECKING:
    from jinja2 import Environment

logger = logging.getLogger("login")

OWN = "/-/"
LOGIN, HOME = "/-/login", "/-/"
FOLDER = Path(__file__).parent
_LARGEST_FORM = 8192
_FORM_SECONDS = 3600
_NOBODYS = "a name that nobody has"
_WRONG = "That name and password do not belong together."
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PLACES = (
    ("console", "Console and predictions", "/"),
    ("dagster", "Dagster", "/dagster/"),
    ("mlflow", "MLflow", "/mlflow/"),
)


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    return Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True)


class _FormRefused(ValueError):
    """A form that did not come from a page of this server, or not lately."""


class Pages:
    """Answers what is below `/-/`."""

    def __init__(self, people: People, site: Site, login: LoginSettings, signer: GatewaySigner, log: SignInLog) -> None:
        self._people, self._site, self._login, self._signer, self._log = people, site, login, signer, log
        self._provider = Provider(login, site.url + CALLBACK) if login.oidc_issuer else None
        self._static = StaticFiles(directory=FOLDER / "static")

    async def answer(self, request: Request, path: str, person: Person | None) -> Any:
        """The answer to a request below `/-/`: an ASGI app."""
        if path.startswith("/-/static/") and request.method == "GET":
            return await self._static_file(request, path.removeprefix("/-/static/"))
        routes = {
            ("GET", LOGIN): self._login_page,
            ("POST", LOGIN): self._sign_in,
            ("GET", "/-/oidc/start"): self._to_provider,
            ("GET", CALLBACK): self._from_provider,
            ("GET", HOME): self._home,
            ("POST", "/-/logout"): self._sign_out,
            ("POST", "/-/sessions/end"): self._end_session,
            ("POST", "/-/password"): self._change_password,
        }
        handler = routes.get((request.method, path))
        if handler is None:
            return self._nothing()
        try:
            return await handler(request, person)
        except _FormRefused as error:
            return self.message(
                403, "Not done", f"{error} Open the page again and repeat it.", link=HOME, link_text="Back"
            )
        except (AccountsDamaged, SessionsDamaged) as error:
            logger.error("%s", error)
            return self.message(503, "Not done", "Nobody can sign in now: the server's log has the reason.")
        except OSError as error:  # the audit log cannot be written, or the sessions
            return self.message(503, "Not done", f"The server cannot write what it must: {error.strerror or error}")

    async def _static_file(self, request: Request, name: str) -> Response:
        try:
            response = await self._static.get_response(name, request.scope)
        except HTTPException:
            return self._nothing()
        response.headers.update({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"})
        return response

    def _nothing(self) -> Response:
        return self.message(404, "Nothing is here", "", link=HOME, link_text="Where you may go")

    def message(self, status: int, title: str, text: str, *, link: str = "", link_text: str = "") -> Response:
        """A page that says one thing."""
        return self._page("message.html", status, title=title, text=text, link=link, link_text=link_text)

    async def _login_page(self, request: Request, person: Person | None) -> Response:
        target = local_target(request.query_params.get("next"))
        if person is not None:
            return RedirectResponse(target if target != "/" else HOME, 303)
        return self._form(request, target)

    def _form(self, request: Request, target: str, *, problem: str = "", name: str = "", status: int = 200) -> Response:
        anonymous = self._site.cookie_of(request.scope, "_form") or ""
        if not 20 <= len(anonymous) <= 100:
            anonymous = secrets.token_urlsafe(24)
        provider = self._login.oidc_issuer and f"/-/oidc/start?{urlencode({'next': target})}"
        response = self._page(
            "login.html",
            status,
            problem=problem,
            name=name,
            form=self._token(anonymous),
            with_accounts=bool(self._people.accounts.accounts()),
            provider=provider,
            provider_name=urlsplit(self._login.oidc_issuer).hostname,
        )
        self._set_cookie(response, "_form", anonymous, _FORM_SECONDS)
        return response

    async def _sign_in(self, request: Request, person: Person | None) -> Response:  # noqa: ARG002
        target = local_target(request.query_params.get("next"))
        form = await _read_form(request)
        name, password = form.get("name", "")[:63], form.get("password", "")
        anonymous = self._site.cookie_of(request.scope, "_form")
        if anonymous is None or not self._is_own(form, anonymous):
            return self._form(
                request, target, problem="The page was too old, or your browser keeps no cookies.", status=403
            )
        address = _address(request)
        wait = self._people.sessions.try_attempt(name, address)
        if wait:
            who = f"user:{name}" if self._people.accounts.get(name) else _NOBODYS
            self._log.note("sign-in refused", who=None, client=address, detail=f"{who}: too many attempts", status=429)
            minutes = max(1, round(wait / 60))
            problem = f"Too many attempts: wait {minutes} minute{'s' if minutes > 1 else ''}."
            response = self._form(request, target, problem=problem, name=name, status=429)
            response.headers["Retry-After"] = str(round(wait))
            return response
        account = self._people.accounts.get(name)
        right = await asyncio.to_thread(is_right, password, account.password if account else None)
        if account is None or not right or account.is_disabled:
            # The same answer and the same work for names that nobody has. What was typed may be a password: only
            # names that exist are noted.
            who = f"user:{name}" if account else _NOBODYS
            why = " (disabled)" if account is not None and account.is_disabled else ""
            self._log.note("sign-in failed", who=None, client=address, detail=f"{who}{why}", status=401)
            return self._form(request, target, problem=_WRONG, name=name, status=401)
        self._people.sessions.succeeded(name, address)
        return self._begin(request, account.name, source=ACCOUNT, stamp=account.stamp, target=target)

    def _begin(
        self,
        request: Request,
        name: str,
        *,
        source: str,
        stamp: str = "",
        groups: tuple[str, ...] = (),
        target: str = "/",
    ) -> Response:
        """Begin a session under a new secret, whatever the browser sent, and end the one it had."""
        address = _address(request)
        self._log.note("signed in", who=f"user:{name}", client=address, detail=f"by {source}", status=303)
        if (old := self._site.cookie_of(request.scope)) is not None and (session := self._people.sessions.find(old)):
            self._people.sessions.end(session.digest)
        secret = self._people.sessions.begin(
            name, source=source, stamp=stamp, address=address, groups=groups,
            browser=request.headers.get("user-agent", ""),
        )  # fmt: skip
        # To its own page when nothing was asked for; a page of another site may have led here: Lax cookies go with it.
        response = RedirectResponse(quote(target, safe="/?&=%:@+,;!$'()*~#[]|^{}") if target != "/" else HOME, 303)
        self._set_cookie(response, "", secret, round(self._login.session_hours * 3600))
        response.delete_cookie(self._site.cookie + "_form", path="/", secure=self._site.is_secure, httponly=True)
        response.headers.update(_HEADERS)
        return response

    async def _to_provider(self, request: Request, person: Person | None) -> Response:  # noqa: ARG002
        if self._provider is None:
            return self.message(
                404, "Nothing is here", "There is no identity provider.", link=LOGIN, link_text="Sign in"
            )
        try:
            url, pending = await self._provider.begin()
        except SignInFailed as error:
            return self._failed(request, error)
        bound = secrets.token_urlsafe(24)
        content = pending | {"bound": bound, "next": local_target(request.query_params.get("next"))}
        self._people.sessions.put_pending(pending["state"], content, PENDING_SECONDS)
        response = RedirectResponse(url, 303)
        self._set_cookie(response, "_oidc", bound, round(PENDING_SECONDS))
        response.headers.update(_HEADERS)
        return response

    async def _from_provider(self, request: Request, person: Person | None) -> Response:  # noqa: ARG002
        query = request.query_params
        pending = self._people.sessions.take_pending(query.get("state", ""))
        bound = self._site.cookie_of(request.scope, "_oidc") or ""
        if (
            self._provider is None
            or pending is None
            or not hmac.compare_digest(pending["bound"].encode(), bound.encode())
        ):
            return self._failed(
                request, SignInFailed("the sign-in was begun in another browser, twice, or too long ago")
            )
        if "code" not in query:
            return self._failed(request, SignInFailed(f"the provider says: {query.get('error', 'nothing')[:100]}"))
        try:
            claims = await self._provider.finish(query["code"], pending, query.get("iss"))
            if any(one.name.lower() == claims.name.lower() for one in self._people.accounts.accounts()):
                raise SignInFailed(f"there is a local account {claims.name}: sign in by its password")
            if not self._people.roles_of_groups(claims.groups):
                groups = ", ".join(claims.groups)[:200] or "no group"
                raise SignInFailed(f"none of the groups of {claims.name} has a role here: {groups}")
        except SignInFailed as error:
            return self._failed(request, error)
        return self._begin(request, claims.name, source=OIDC, groups=claims.groups, target=pending["next"])

    def _failed(self, request: Request, error: SignInFailed) -> Response:
        self._log.note("sign-in failed", who=None, client=_address(request), detail=f"oidc: {error}", status=403)
        response = self.message(
            403, "You are not signed in", f"{error}."[:1].upper() + f"{error}."[1:], link=LOGIN, link_text="Try again"
        )
        response.delete_cookie(self._site.cookie + "_oidc", path="/", secure=self._site.is_secure, httponly=True)
        return response

    async def _home(self, request: Request, person: Person | None) -> Response:  # noqa: ARG002
        if person is None or person.session is None:
            return RedirectResponse(LOGIN, 303)
        return self._home_page(person, "")

    def _home_page(self, person: Person, done: str, status: int = 200) -> Response:
        assert person.session is not None
        sessions = [
            {
                "id": one.digest[:16],
                "since": _when(one.created),
                "seen": _when(one.seen),
                "address": one.address,
                "is_this": one.digest == person.session.digest,
            }
            for one in self._people.sessions.sessions(person.name)
            if one.source == person.session.source
        ]
        roles = person.roles
        places = [
            {"title": title, "path": path, "role": roles.get(ui), "does": DOES.get(roles.get(ui, ""), "")}
            for ui, title, path in PLACES
        ]
        return self._page(
            "home.html",
            status,
            person=person,
            form=self._token(person.session.digest),
            places=places,
            sessions=sessions,
            done=done,
            with_password=person.session.source == ACCOUNT,
            shortest=SHORTEST,
        )

    async def _sign_out(self, request: Request, person: Person | None) -> Response:
        if person is not None and person.session is not None:
            if not self._is_own(await _read_form(request), person.session.digest):
                raise _FormRefused("The form is not of this session.")
            self._people.sessions.end(person.session.digest)
            self._log.note("signed out", who=person.principal, client=_address(request))
        at_provider = " At your identity provider you may still be." if self._provider is not None else ""
        response = self.message(
            200, "You are signed out", f"On this browser.{at_provider}", link=LOGIN, link_text="Sign in"
        )
        response.delete_cookie(self._site.cookie, path="/", secure=self._site.is_secure, httponly=True)
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    async def _end_session(self, request: Request, person: Person | None) -> Response:
        if person is None or person.session is None:
            return RedirectResponse(LOGIN, 303)
        form = await _read_form(request)
        if not self._is_own(form, person.session.digest):
            raise _FormRefused("The form is not of this session.")
        named = form.get("session", "")
        for one in self._people.sessions.sessions(person.name):
            if len(named) == 16 and one.digest.startswith(named) and one.source == person.session.source:
                self._people.sessions.end(one.digest)
                self._log.note("session ended", who=person.principal, client=_address(request), detail=named)
        return RedirectResponse(HOME, 303)

    async def _change_password(self, request: Request, person: Person | None) -> Response:
        if person is None or person.session is None or person.session.source != ACCOUNT:
            return RedirectResponse(LOGIN, 303)
        form, address = await _read_form(request), _address(request)
        if not self._is_own(form, person.session.digest):
            raise _FormRefused("The form is not of this session.")
        if self._people.sessions.try_attempt(person.name, address):
            return self._home_page(person, "Too many attempts: wait some minutes.", 429)
        account = self._people.accounts.get(person.name)
        if account is None or not await asyncio.to_thread(is_right, form.get("old", ""), account.password):
            return self._home_page(person, "The present password is another one.", 403)
        try:
            account = await asyncio.to_thread(
                self._people.accounts.set_password, person.name, form.get("new", ""), by=person.principal
            )
        except (PasswordRefused, AccountRefused) as error:
            return self._home_page(person, f"It stays as it was: {error}.", 422)
        self._people.sessions.succeeded(person.name, address)
        self._people.sessions.end_all(person.name)
        return self._begin(request, account.name, source=ACCOUNT, stamp=account.stamp)

    def _page(self, template: str, status: int, **values: Any) -> Response:
        return HTMLResponse(_templates().get_template(template).render(values), status, headers=_HEADERS)

    def _set_cookie(self, response: Response, suffix: str, value: str, seconds: int) -> None:
        response.set_cookie(
            self._site.cookie + suffix, value, max_age=seconds, path="/", secure=self._site.is_secure, httponly=True,
            samesite="lax",
        )  # fmt: skip

    def _token(self, of: str) -> str:
        """What a form of this browser carries; no other site can know it."""
        now = str(int(time.time()))
        return f"{now}.{self._signer.mac('form', f'{of}.{now}'.encode()).hex()[:32]}"

    def _is_own(self, form: dict[str, str], of: str) -> bool:
        made, _, mac = form.get("form", "").partition(".")
        wanted = self._signer.mac("form", f"{of}.{made}".encode()).hex()[:32]
        in_time = (
            made.isdecimal()
            and len(made) < 12
            and time.time() - int(made) < max(_FORM_SECONDS, self._login.session_hours * 3600)
        )
        return hmac.compare_digest(mac.encode(), wanted.encode()) and in_time


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the first of each (raises _FormRefused)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise _FormRefused("Wanted a form.")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST_FORM:
                raise _FormRefused("The form is too large.")
    except ClientDisconnect:
        raise _FormRefused("The form did not come whole.") from None
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise _FormRefused("The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items()}


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
