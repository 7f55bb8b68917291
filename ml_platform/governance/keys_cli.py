"""`ml-platform keys …`: make, list, rotate and revoke the API keys that serving asks for."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ml_platform.governance.keys import ALL_MODELS, ROLES, Key, KeyStore
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
    try:
        key, token = _store().create(name, roles=role, models=model or [ALL_MODELS], days=days, rate=rate, burst=burst)
    except ValueError as error:
        stop(f"no key was made: {error}")
    say(f"Key {key.id} for '{key.name}'. It is shown this once:", err=True)
    typer.echo(token)


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
    try:
        key = _store().revoke(key_id)
    except LookupError as error:
        stop(str(error))
    say(f"Key {key.id} ('{key.name}') is revoked; servers follow within a second.")


def _store() -> KeyStore:
    settings = Settings()
    return KeyStore(settings.keys_dir, settings.audit_dir)


def _state(key: Key) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.is_valid(datetime.now(UTC)) else 'ended'} {key.expires_at:%Y-%m-%d}"
