"""Who a session stands for, as accounts, settings and groups are now: a change counts with the next request."""

from collections.abc import Iterable
from dataclasses import dataclass

from ml_platform.gateway_identity import GatewaySigner, Identity
from ml_platform.governance.keys import ALL_MODELS, Key
from ml_platform.login.accounts import AccountStore
from ml_platform.login.roles import highest, parse_roles
from ml_platform.login.sessions import Session, SessionStore
from ml_platform.login.settings import LoginSettings
from ml_platform.settings import Settings

ACCOUNT, OIDC = "account", "oidc"


@dataclass(frozen=True)
class Person:
    """Whoever sends a request: a person with a session, or a program with an API key.

    Attributes
    ----------
    roles
        Role by user interface.
    session
        None for a program.
    """

    name: str
    roles: dict[str, str]
    groups: tuple[str, ...] = ()
    session: Session | None = None

    @property
    def principal(self) -> str:
        """The name by which grants and the audit log know them."""
        return f"{'service' if self.session is None else 'user'}:{self.name}"

    def identity(self, ui: str) -> Identity:
        """What the server behind is told of them."""
        return Identity(self.name, self.roles[ui], self.groups)


class People:
    """Accounts, sessions and groups of a home.

    Parameters
    ----------
    settings, login
        Where accounts and sessions are, how long sessions last, which roles groups have.
    """

    def __init__(self, settings: Settings, login: LoginSettings) -> None:
        self.accounts = AccountStore(settings)
        self.sessions = SessionStore(
            settings.login_dir, idle_seconds=login.idle_minutes * 60, lasting_seconds=login.session_hours * 3600
        )
        self._login = login

    def of_session(self, secret: str) -> Person | None:
        """The person of a session's secret; None when the session has ended, or what it stands on is gone."""
        session = self.sessions.find(secret)
        if session is None:
            return None
        if session.source == OIDC:
            roles = self.roles_of_groups(session.groups) if self._login.oidc_issuer else {}
            return Person(session.name, roles, session.groups, session) if roles else None
        account = self.accounts.get(session.name)
        if account is None or account.is_disabled or account.stamp != session.stamp:
            return None
        return Person(account.name, account.roles, account.groups, session)

    def roles_of_groups(self, groups: Iterable[str]) -> dict[str, str]:
        """The highest roles that an identity provider's groups have here."""
        granted = self._login.oidc_roles
        return highest(parse_roles(granted[group].split(",")) for group in ("*", *groups) if group in granted)


def person_of_key(key: Key) -> Person:
    """A program that speaks with an API key: an admin's is an admin, one that may promote all models an editor.

    The prediction server judges keys by itself.
    """
    role = None
    if key.covers(ALL_MODELS):
        role = "admin" if key.has_role("admin") else "editor" if key.has_role("promote") else None
    return Person(key.name, {"dagster": role, "mlflow": role} if role is not None else {})


def prepare(settings: Settings, login: LoginSettings) -> GatewaySigner | None:
    """Put login into use where there are accounts or an identity provider; None where there are none."""
    if not (login.oidc_issuer or AccountStore(settings).accounts()):
        return None
    return GatewaySigner(settings.keys_dir, create=True)
