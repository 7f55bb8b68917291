"""`ml-platform accounts …` and `ml-platform login-server`: who may sign in, and the gateway."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from ml_platform.gateway_identity import ROLES, login_in_use
from ml_platform.login.accounts import Account, AccountRefused, AccountsDamaged, AccountStore
from ml_platform.login.passwords import PasswordRefused
from ml_platform.login.people import People
from ml_platform.login.roles import UIS, RoleUnknown, in_words
from ml_platform.login.sessions import SessionsDamaged
from ml_platform.login.settings import LoginSettings
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(
    no_args_is_help=True,
    help="Manage the accounts of people, who sign in to Dagster, MLflow and the console. Once one exists, all do.",
)
Name = Annotated[str, typer.Argument(help="The account's name.")]
Roles = Annotated[
    list[str],
    typer.Option("--role", help=f"{', '.join(ROLES)}; for one place as {'|'.join(UIS)}=<role>. May be repeated."),
]
Groups = Annotated[list[str] | None, typer.Option("--group", help="Group that grants name. May be repeated.")]
_REFUSED = (AccountRefused, AccountsDamaged, PasswordRefused, RoleUnknown)


@app.command()
def add(name: Name, role: Roles, group: Groups = None) -> None:
    """Make an account; its password is asked for, or read from standard input where that is no terminal.

    Example: ml-platform accounts add ada --role editor --role mlflow=viewer --group analysts
    """
    settings, store = Settings(), _store()
    was_in_use = login_in_use(settings.keys_dir)
    try:
        account = store.add(name, _password(), roles=role, groups=group or ())
    except _REFUSED as error:
        stop(f"no account was made: {error}")
    say(f"{account.name} may sign in: {in_words(account.roles)}.")
    if not was_in_use:
        say("From now on people sign in. Start `make dev` again: it starts the login too, and says its address.")


@app.command("list")
def list_accounts() -> None:
    """List every account with its roles, groups and state."""
    settings, store = Settings(), _store()
    try:
        accounts = store.accounts()
    except AccountsDamaged as error:
        stop(str(error))
    if not accounts and login_in_use(settings.keys_dir):
        say(
            f"There are no accounts in {store.path}, and the servers still want a sign-in. Where there were some, "
            "restore the file from a backup."
        )
    elif not accounts:
        say(
            "There are no accounts: whoever reaches 127.0.0.1 on this machine may do everything in the user interfaces."
        )
    for account in accounts:
        state = "disabled" if account.is_disabled else "may sign in"
        groups = f"; groups {', '.join(account.groups)}" if account.groups else ""
        say(f"{account.name}  {state}  {in_words(account.roles)}{groups}; since {account.created_at:%Y-%m-%d}")


@app.command()
def role(name: Name, role: Roles, group: Groups = None) -> None:
    """Replace an account's roles, and its groups where some are given; its sessions follow with the next request.

    Example: ml-platform accounts role ada --role viewer --role dagster=launcher
    """
    _say_changed(lambda store: store.set_roles(name, role, group))


@app.command()
def password(name: Name) -> None:
    """Set a new password, which ends the account's sessions."""
    _say_changed(lambda store: store.set_password(name, _password()))


@app.command()
def disable(name: Name) -> None:
    """Let nobody sign in by an account, and end its sessions at once."""
    _say_changed(lambda store: store.disable(name))


@app.command()
def enable(name: Name) -> None:
    """Let a disabled account sign in again."""
    _say_changed(lambda store: store.enable(name))


@app.command()
def sessions(
    name: Annotated[str | None, typer.Argument(help="Only this person's; all by default.")] = None,
    *,
    end: Annotated[bool, typer.Option("--end", help="End them, at once.")] = False,
) -> None:
    """List who is signed in, from where; `--end` signs a person out everywhere.

    Example: ml-platform accounts sessions ada --end
    """
    by = _admin(Settings())
    people = People(Settings(), LoginSettings())
    try:
        known = people.sessions.sessions(name)
    except SessionsDamaged as error:
        stop(str(error))
    if not known:
        say("Nobody is signed in." if name is None else f"{name} is not signed in.")
    if end and name is None:
        stop("name the person whose sessions end")
    for one in known:
        seen = datetime.fromtimestamp(one.seen, UTC)
        say(f"{one.digest[:12]}  {one.name}  by {one.source} from {one.address}, last used {seen:%Y-%m-%d %H:%M} UTC")
    if end and name is not None:
        from ml_platform.governance.audit import record_event

        settings = Settings()
        record_event(settings.audit_dir, settings.keys_dir, "sessions ended", f"user:{name}", by=by)
        say(f"{people.sessions.end_all(name)} sessions of {name} have ended.")


def login_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; ML_PLATFORM_LOGIN_PORT, else 4000, by default.")] = None,
    certificate: Annotated[str | None, typer.Option(help="TLS certificate, where no proxy in front has it.")] = None,
    private_key: Annotated[str | None, typer.Option(help="The certificate's private key.")] = None,
) -> None:
    """Run the login in front of Dagster's UI, MLflow's and the console; `make dev` does where there are accounts."""
    from ml_platform.login.__main__ import main

    given = {"--host": host, "--port": port, "--certificate": certificate, "--private-key": private_key}
    arguments = [text for option, value in given.items() if value is not None for text in (option, str(value))]
    raise typer.Exit(main(arguments))


def _store() -> AccountStore:
    """The accounts, for an admin."""
    settings = Settings()
    return AccountStore(settings, by=_admin(settings))


def _admin(settings: Settings) -> str | None:
    """Who speaks, where the platform asks for a key: an account is worth what its role is, so an admin's is wanted."""
    from ml_platform.governance.access.changes import PLATFORM_OBJECT
    from ml_platform.governance.access.speaker import asks_for_key, require
    from ml_platform.lake.access import AccessDenied

    try:
        who = require(settings, "manage", PLATFORM_OBJECT, role="admin")
        return who.text if asks_for_key(settings) else None
    except AccessDenied as error:
        stop(str(error))


def _say_changed(change: Callable[[AccountStore], Account]) -> None:
    store = _store()
    try:
        account = change(store)
    except _REFUSED as error:
        stop(f"nothing was changed: {error}")
    state = "disabled, and signed out everywhere" if account.is_disabled else in_words(account.roles)
    say(f"{account.name}: {state}.")


def _password() -> str:
    """A password from the terminal, twice, or from standard input: never an argument, which others can read."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first: str = typer.prompt("Password", hide_input=True)
    if typer.prompt("The same again", hide_input=True) != first:
        stop("the two were not the same")
    return first
