"""`ml-platform history`: what a model serves and served, who decided so, and which data made it."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.instants import read_instant
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.registry.history import Reign
    from ml_platform.registry.releases import ReleaseStore


def history(
    name: Annotated[str, typer.Argument(help="The model, or an endpoint with a name of its own.", metavar="MODEL")],
    at: Annotated[
        str | None,
        typer.Option(
            help="Instant, as 2026-01-31 or 2026-01-31T12:00 (UTC without offset): what served then, and why."
        ),
    ] = None,
) -> None:
    """List registrations and every change of what a model serves, newest first; with --at, what served at an instant.

    Example: ml-platform history my_model --at 2026-01-31T12:00
    """
    from ml_platform.registry.history import reign_at, reigns
    from ml_platform.registry.releases import ReleaseStore

    settings = Settings()
    store = ReleaseStore(settings.releases_dir)
    try:
        past = reigns(store, name)
    except ValueError as error:
        stop(str(error))
    others = _other_entries(settings, name)
    if not (past or others):
        stop(f"'{name}' was never registered or released. Known: {', '.join(store.documents()) or 'none'}")
    if at is None:
        for _, lines in sorted([*others, *map(_change, past)], reverse=True):
            for line in lines:
                say(line)
        return
    try:
        instant = read_instant(at, recorded=True).astimezone(UTC)
    except OverflowError:
        stop("--at: in UTC years go from 1 to 9999")
    except ValueError as error:
        stop(f"--at: {error}")
    if instant > datetime.now(UTC):
        stop(f"--at: {instant:%Y-%m-%d %H:%M:%S} UTC has not come yet")
    reign = reign_at(store, name, instant)
    if reign is None:
        first = f"the first release was {past[0].since:%Y-%m-%d %H:%M:%S} UTC" if past else "it was never released"
        stop(f"{name} served nothing at {instant:%Y-%m-%d %H:%M:%S} UTC: {first}")
    _show(settings, store, reign, instant)


def _change(reign: "Reign") -> tuple[datetime, list[str]]:
    from ml_platform.registry.manifest import describe_targets

    document = reign.document
    serving = describe_targets(document.targets)
    line = f"{document.revision:>4}  {document.updated_at}  {document.action}: {serving}  by {document.updated_by}"
    return reign.since, [line, f"      {document.reason}"]


def _other_entries(settings: Settings, model: str) -> list[tuple[datetime, list[str]]]:
    """What the ledger has beside releases: registrations, approvals, changes of what an approval wants."""
    import polars as pl

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.ledger import REGISTRATION, read_ledger

    entries = read_ledger(Lake(settings.lake_uri), model).filter(pl.col("revision").is_null())
    lines = []
    for entry in entries.iter_rows(named=True):
        what = "" if entry["to_version"] is None else f": version {entry['to_version']}"
        said = [] if entry["action"] == REGISTRATION else [f"      {entry['reason']}"]
        lines.append((entry["at"], [f"      {_iso(entry['at'])}  {entry['action']}{what}  by {entry['by']}", *said]))
    return lines


def _show(settings: Settings, store: "ReleaseStore", reign: "Reign", instant: datetime) -> None:
    from ml_platform.registry.history import describe_origin, origins_of
    from ml_platform.registry.manifest import describe_targets

    document = reign.document
    end = f"until {_iso(reign.until)}" if reign.until else "and still in force"
    say(f"{document.name} at {_iso(instant)}: {describe_targets(document.targets)}; revision {document.revision}")
    say(f"  since {_iso(reign.since)}, {end}; {document.action} by {document.updated_by}")
    say(f"  why: {document.reason}")
    origins = origins_of(store, document)
    for target in document.targets:
        origin = origins.get(target.version) or _recorded_origin(settings, document.model, target.digest)
        description = (
            describe_origin(origin) if origin else "its bundle is gone, and the ledger does not say what made it"
        )
        say(f"  version {target.version}: {description}")


def _recorded_origin(settings: Settings, model: str, digest: str) -> dict[str, object] | None:
    """What the ledger says of a version whose bundle is gone."""
    import polars as pl

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.ledger import read_ledger

    entries = read_ledger(Lake(settings.lake_uri), model).filter(
        pl.col("to_digest") == digest, pl.col("provenance").is_not_null()
    )
    return json.loads(entries["provenance"][-1]) if entries.height else None


def _iso(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03d}Z"
