"""`ml-platform forget …`: erase somebody, and prove it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import group_with_default, say, stop

if TYPE_CHECKING:
    from ml_platform.governance.erasure.certificate import Certificate
    from ml_platform.governance.erasure.forget import Erasure

app = typer.Typer(
    cls=group_with_default("entity"),
    no_args_is_help=True,
    help="Erase somebody from tables, versions, online store, logs and files, and prove it. "
    "`forget --entity customer=123` is `forget entity --entity customer=123`.",
)
Entity = Annotated[list[str] | None, typer.Option("--entity", help="Who: name=value; may be repeated for one name.")]
Bulk = Annotated[Path | None, typer.Option("--from", help="CSV file: a column named as the entity, a row for each.")]
Also = Annotated[list[str] | None, typer.Option(help="A further column that holds it: schema/table.column.")]


@app.command("entity")
def forget(
    entity: Entity = None,
    file: Bulk = None,
    also: Also = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; change nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it goes into the certificate.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Number of the request; it goes into the certificate.")] = None,
    suppress: Annotated[
        bool, typer.Option(help="Leave rows of theirs out of later writes, from sources that still have them.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove somebody from everything that the platform keeps; a killed one is finished by running it again.

    Example: ml-platform forget --entity customer=123 --reason "request by e-mail" --ticket GDPR-17
    """
    from ml_platform.governance.erasure.certificate import erasures_dir
    from ml_platform.lake.errors import CommitConflict

    erasure = _erasure(entity, file, also)
    count = len(erasure.subjects.values)
    if dry_run:
        _tell(erasure.plan())
        return
    if not yes:
        typer.confirm(f"Erase {count} of '{erasure.subjects.declaration.entity}' for good?", abort=True)
    try:
        certificate, path = erasure.run(
            reason=reason, ticket=ticket, suppressed=suppress, progress=lambda line: say(line, err=True)
        )
    except ValueError as error:
        stop(f"The erasure is not finished: {error}")
    except (CommitConflict, OSError) as error:
        stop(f"The erasure has begun and is not finished; run it again: {error}")
    _tell(certificate)
    say(f"Certificate {certificate.number}: {path}")
    say(f"Search again: ml-platform forget verify --entity {certificate.entity}=…  ({erasures_dir(Settings())})")


@app.command("list")
def list_certificates() -> None:
    """List the certificates of all erasures."""
    for one in _certificates():
        about = ", ".join(filter(None, (one.ticket, one.reason)))
        say(f"{one.number}  {one.ended_at[:19]}  {len(one.subjects)} of {one.entity} by {one.by}  {about}".rstrip())


@app.command()
def show(number: Annotated[int, typer.Argument(help="Number of a certificate, as `forget list` shows it.")]) -> None:
    """Print what a certificate says."""
    for one in _certificates():
        if one.number == number:
            _tell(one)
            return
    stop(f"There is no certificate {number}; `ml-platform forget list` lists them.")


@app.command()
def verify(entity: Entity = None, file: Bulk = None, also: Also = None) -> None:
    """Verify the certificates; with an entity, search rows and bytes for it again. Exits with code 1 if it is there.

    Example: ml-platform forget verify --entity customer=123
    """
    from ml_platform.governance.erasure.certificate import verify_certificates
    from ml_platform.lake.storage.tables import Lake

    settings = Settings()
    findings = verify_certificates(Lake(settings.lake_uri), settings)
    if entity or file:
        findings += _erasure(entity, file, also).search()
    for finding in findings:
        say(finding, err=True)
    if findings:
        stop(f"{len(findings)} findings.")
    say(f"{len(_certificates())} certificates are as they were signed{', and nothing was found' if entity else ''}.")


def _erasure(entity: list[str] | None, file: Path | None, also: list[str] | None) -> "Erasure":
    from ml_platform.governance.access.speaker import speaker
    from ml_platform.governance.erasure.forget import Erasure
    from ml_platform.lake.access import AccessDenied

    try:
        who = speaker(Settings())
        if not who.is_admin:
            raise AccessDenied(who.text, "manage", "the platform", "Erasures are for keys with the role admin.")
        name, values = _whom(entity or [], file)
        return Erasure(Settings(), name, values, also=tuple(also or ()), by=who.text)
    except (LookupError, ValueError, OSError) as error:
        stop(f"Nobody was erased: {error}")


def _whom(entities: list[str], file: Path | None) -> tuple[str, list[str]]:
    import polars as pl

    pairs = [one.partition("=") for one in entities]
    if wrong := [one for one, (_, mark, value) in zip(entities, pairs, strict=True) if not mark or not value]:
        raise ValueError(f"--entity wants name=value, like customer=123; found {wrong[0]!r}")
    names = {name.strip() for name, _, _ in pairs}
    values = [value for _, _, value in pairs]
    if file is not None:
        rows = pl.read_csv(file, infer_schema=False)
        column = next(iter(names)) if len(names) == 1 else rows.columns[0]
        if column not in rows.columns:
            raise ValueError(f"{file} has no column '{column}'; it has: {', '.join(rows.columns)}")
        names.add(column)
        values += [value for value in rows[column].to_list() if value]
    if len(names) != 1:
        raise ValueError(f"one entity at a time: --entity name=value or --from file; found {sorted(names) or 'none'}")
    return names.pop(), values


def _certificates() -> "list[Certificate]":
    from ml_platform.governance.erasure.certificate import certificates

    try:
        return certificates(Settings())
    except ValueError as error:
        stop(str(error))


def _tell(certificate: "Certificate") -> None:
    for one in certificate.tables:
        say(f"{one['table']}: {_facts(one, 'table')}")
    for one in certificate.elsewhere:
        say(f"{one['place']}: {_facts(one, 'place')}")
    for title, lines in (
        ("Models that learned from their rows, to be trained again", certificate.trained_on),
        ("Versions that cannot be reproduced any more", certificate.irreproducible),
        ("Not declared, and looks like it", certificate.not_declared),
        ("Would bring them back", certificate.comes_back_from),
        ("Remains", certificate.remains),
        ("Out of reach", certificate.out_of_reach),
    ):
        if lines:
            say(f"{title}:")
            for line in lines:
                say(f"  {line}")


def _facts(one: dict[str, Any], *without: str) -> str:
    words = []
    for name, value in one.items():
        if name in without or not value:
            continue
        shown = ", ".join(str(part) for part in value) if isinstance(value, list) else value
        words.append(
            f"{name.replace('_', ' ')} {shown:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {shown}"
        )
    return "; ".join(words) or "nothing"
