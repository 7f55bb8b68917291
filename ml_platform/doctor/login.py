"""Checks of who may sign in."""

from collections.abc import Iterator

from ml_platform.doctor.findings import Finding, error, ok, warning
from ml_platform.gateway_identity import SECRET, login_in_use
from ml_platform.login.accounts import AccountStore
from ml_platform.login.roles import UIS
from ml_platform.login.sessions import SessionsDamaged, SessionStore
from ml_platform.login.settings import LoginSettings
from ml_platform.settings import Settings


def login(settings: Settings) -> Iterator[Finding]:
    """Check that whoever must sign in can, and that somebody may do everything."""
    options = LoginSettings()
    try:
        accounts = AccountStore(settings).accounts()
    except ValueError as problem:
        yield error("login", str(problem), "until then nobody can sign in by a password")
        return
    if not login_in_use(settings.keys_dir):
        if accounts or options.oidc_issuer:
            yield warning("login", "there are accounts, and login is not in use yet", "start `make dev` again")
        else:
            yield ok("login", "nobody signs in: the user interfaces are open to whoever reaches 127.0.0.1 here")
        return
    try:
        SessionStore(settings.login_dir, idle_seconds=1, lasting_seconds=1).check()
    except SessionsDamaged as problem:
        yield error("login", str(problem), "until then nobody can sign in, and whoever was is answered 503")
        return
    active = [one for one in accounts if not one.is_disabled]
    if not active and not options.oidc_issuer:
        yield error(
            "login",
            "people must sign in, and no account is active",
            "ml-platform accounts add <name> --role admin; to open the user interfaces again, stop the platform and "
            f"remove {settings.keys_dir / SECRET}",
        )
        return
    if not options.oidc_issuer and not any(all(one.roles.get(ui) == "admin" for ui in UIS) for one in active):
        yield warning("login", "no account is an admin everywhere", "ml-platform accounts role <name> --role admin")
    elif not options.url and options.trusted_proxies:
        yield warning("login", "proxies are trusted, and ML_PLATFORM_LOGIN_URL is not set", "set it to their address")
    else:
        provider = f", and {options.oidc_issuer}" if options.oidc_issuer else ""
        yield ok("login", f"{len(active)} accounts may sign in{provider}")
