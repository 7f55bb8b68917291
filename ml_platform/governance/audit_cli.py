"""`ml-platform audit …`: who did what, and whether the log of it is what was written."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ml_platform.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The audit log: requests, keys, releases.")


@app.command()
def verify() -> None:
    """Prove every line; where one was altered, taken out or moved, say which and end with code 1."""
    from ml_platform.governance.audit_table import verify_audit
    from ml_platform.lake.tables import Lake

    settings = Settings()
    try:
        lines, findings = verify_audit(Lake(settings.lake_uri), settings)
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for finding in findings:
        typer.echo(str(finding), err=True)
    if findings:
        typer.echo(f"{len(findings)} findings in {lines:,} lines: the log is not what was written.", err=True)
        raise typer.Exit(1)
    typer.echo(f"{lines:,} lines are as they were written.")


@app.command()
def show(
    caller: Annotated[str | None, typer.Option(help="Name or id of a key or token, or a person.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Earliest time (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest lines to show.")] = 100,
) -> None:
    """List who did what, oldest first."""
    from ml_platform.governance.audit_table import read_audit
    from ml_platform.lake.tables import Lake

    settings = Settings()
    start = since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since
    found = read_audit(Lake(settings.lake_uri), settings, caller=caller, since=start)
    for row in found.tail(limit).iter_rows(named=True):
        who = row["name"] or row["client"] or "-"
        what = f"{row['method']} {row['path']} {row['status']}" if row["method"] else row["action"]
        told = "" if row["detail"] is None else f": {row['detail']}"
        typer.echo(f"{row['time']:%Y-%m-%d %H:%M:%S}  {who}  {what}{told}")
    if found.height > limit:
        typer.echo(f"({found.height - limit:,} older lines: --limit shows more)", err=True)
