"""`ml-platform keys …`: make, list, rotate and revoke the API keys that serving asks for."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ml_platform.governance.access.changes import PLATFORM_OBJECT, check_not_locked_out
from ml_platform.governance.access.principals import principal_of_key
from ml_platform.governance.access.speaker import policy_store, require
from ml_platform.governance.keys import ALL_MODELS, ROLES, Key, KeyStore
from ml_platform.lake.access import AccessDenied
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(no_args_is_help=True, help="Manage API keys. Once one exists, every request to serving needs one.")
KeyId = Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what the key is for; it shows in the audit log.")],
    role: Annotated[list[str], typer.Option(help=f"What it may do: {', '.join(ROLES)}. May be repeated.")],
    model: Annotated[list[str] | None, typer.Option(help="Model it is for; all by default. May be repeated.")] = None,
    *,
    days: Annotated[float | None, typer.Option(help="Days until it expires; never by default.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second; the server's limit by default.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once within that rate.")] = None,
) -> None:
    """Make a key and print it, this once.

    Example: ml-platform keys create "nightly job" --role predict --model my_model --days 90
    """
    store = _store(makes_admin="admin" in role and not model)
    try:
        key, token = store.create(name, roles=role, models=model or [ALL_MODELS], days=days, rate=rate, burst=burst)
    except ValueError as error:
        stop(f"no key was made: {error}")
    say(f"Key {key.id} for '{key.name}'. It is shown this once:", err=True)
    typer.echo(token)
    settings = Settings()
    if policy_store(settings, with_owners=False).in_use() and not key.may("admin", ALL_MODELS):
        say(
            f"An access policy is in force: the key can do nothing until something is granted to service:{key.name} or "
            "a group that it is in (ml-platform grant …).",
            err=True,
        )


@app.command("list")
def list_keys() -> None:
    """List every key with its roles, models and state."""
    keys = _store().keys()
    if not keys:
        say("There are no keys: the server is open on 127.0.0.1, and refuses to listen elsewhere.")
    for key in keys:
        roles, models = ", ".join(key.roles), ", ".join(key.models)
        rate = "" if key.rate is None else f"; {key.rate:g} requests/s"
        since = f"{key.created_at:%Y-%m-%d}"
        say(f"{key.id}  {_state(key):<24}  {key.name}: {roles}; models {models}{rate}; since {since}")


@app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[
        float, typer.Option(min=0, max=87_600, help="Hours for which the old key stays valid; ten years at most.")
    ] = 24,
) -> None:
    """Replace a key by a new one with the same name, roles, models and expiry."""
    try:
        key, token = _store().rotate(key_id, grace=timedelta(hours=grace_hours))
    except LookupError as error:
        stop(str(error))
    say(f"Key {key.id} takes the place of {key_id}, which ends in {grace_hours:g} hours. Shown this once:", err=True)
    typer.echo(token)


@app.command()
def revoke(key_id: KeyId) -> None:
    """Revoke a key, at once and for good."""
    store = _store()
    try:
        _check_admins_stay(store, key_id)
        key = store.revoke(key_id)
    except (LookupError, ValueError) as error:
        stop(str(error))
    say(f"Key {key.id} ('{key.name}') is revoked; servers follow within a second.")


def _store(*, makes_admin: bool = False) -> KeyStore:
    """The store, for an admin; where no admin has a valid key, whoever has the files may make one for an admin."""
    settings, now = Settings(), datetime.now(UTC)
    known = KeyStore(settings.keys_dir).keys()
    has_admin = any(key.may("admin", ALL_MODELS) and key.is_valid(now) for key in known)
    by = None
    if has_admin or not makes_admin:
        try:
            by = require(settings, "manage", PLATFORM_OBJECT, role="admin").text
        except AccessDenied as error:
            stop(str(error))
    return KeyStore(settings.keys_dir, settings.audit_dir, by=by if has_admin else None)


def _check_admins_stay(store: KeyStore, key_id: str) -> None:
    """Refuse to revoke the last key that could change an access policy in force (raises LockedOut)."""
    now = datetime.now(UTC)
    known = store.keys()
    others = [principal_of_key(key) for key in known if key.id != key_id and key.is_valid(now)]
    check_not_locked_out(policy_store(Settings(), with_owners=False).read(), others, now)


def _state(key: Key) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.is_valid(datetime.now(UTC)) else 'ended'} {key.expires_at:%Y-%m-%d}"
