"""`ml-platform audit …`: who did what, and whether the log of it is what was written."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.lake.cli.sql import Format, render, write
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.lake.storage.tables import Lake

Layout = Annotated[Format, typer.Option(help="How the result is written.")]
app = typer.Typer(no_args_is_help=True, help="Read and verify the audit log of requests, keys and releases.")


@app.command()
def verify() -> None:
    """Verify every line and the ledger; exit with code 1 and say which line or entry was altered, removed or moved."""
    from ml_platform.governance.audit_table import verify_audit
    from ml_platform.governance.ledger_check import unanchored, verify_ledger
    from ml_platform.lake.storage.tables import Lake

    settings = Settings()
    try:
        lake = Lake(settings.lake_uri)
        lines, findings = verify_audit(lake, settings)
        entries, ledger_findings = verify_ledger(lake, settings)
    except FileNotFoundError as error:
        stop(str(error))
    findings += ledger_findings
    for finding in findings:
        say(str(finding), err=True)
    if findings:
        stop(f"{len(findings)} findings in {lines:,} lines and {entries:,} entries of the ledger: not as written.")
    say(f"{lines:,} lines are as they were written, and {entries:,} entries of the ledger.")
    if loose := unanchored(lake, settings):
        say(
            f"Of entry {', '.join(map(str, loose))} of the ledger this log has no anchor: its writer was killed, or "
            "somebody has added it. Compare it with ml-platform history."
        )


@app.command("who-read")
def who_read(
    name: Annotated[str, typer.Argument(help="A table (raw.customers), view (features.x) or model (model:x).")],
    during: Annotated[str | None, typer.Option("--in", help="Year, month or day (UTC): 2024-05.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only reads of one of these columns, comma-separated.")] = None,
    *,
    derived: Annotated[bool, typer.Option("--derived", help="Reads of what is made of it, too.")] = False,
    format: Layout = Format.TABLE,
) -> None:
    """List who read a table, view or model: how, which versions, how many rows.

    Example: ml-platform audit who-read raw.customers --in 2024-05 --columns email
    """
    from ml_platform.governance import read_history

    objects = {name.replace("/", ".", 1), *(_made_of(name) if derived else ())}
    wanted = [column.strip() for column in columns.split(",")] if columns else []
    _tell(read_history.who_read(_reads(during), objects, wanted), format)


@app.command("what-read")
def what_read(
    who: Annotated[str, typer.Argument(help="A person or key, with or without its kind: user:ada, nightly job.")],
    during: Annotated[str | None, typer.Option("--in", help="Year, month or day (UTC): 2024-05.")] = None,
    format: Layout = Format.TABLE,
) -> None:
    """List what somebody read.

    Example: ml-platform audit what-read "nightly job"
    """
    from ml_platform.governance import read_history

    _tell(read_history.what_read(_reads(during), who), format)


@app.command()
def unusual(
    day: Annotated[str | None, typer.Option(help="Day (UTC) to judge: 2024-05-17; today by default.")] = None,
) -> None:
    """Say which access of a day differs from the reader's own 28 days before; exit with code 1 if any does."""
    from ml_platform.governance.read_history import reads, span
    from ml_platform.governance.unusual_access import PAST, tagged_objects, unusual_access

    _only_admins()
    try:
        judged = span(day)[0] if day else datetime.now(UTC)
    except ValueError as error:
        stop(str(error))
    settings = Settings()
    found = unusual_access(
        reads(_lake(settings), settings, since=judged - PAST), judged.date(), sensitive=tagged_objects(settings)
    )
    for one in found:
        say(one.what)
    if found:
        stop(f"{len(found)} findings.")
    say("Nothing unusual.")


def _only_admins() -> None:
    from ml_platform.governance.access.speaker import speaker
    from ml_platform.lake.access import AccessDenied

    try:
        if not speaker(Settings()).is_admin:
            stop("Who read what is for keys with the role admin.")
    except AccessDenied as error:
        stop(str(error))


def _lake(settings: Settings) -> "Lake":
    from ml_platform.lake.storage.tables import Lake

    return Lake(settings.lake_uri)


def _reads(during: str | None) -> "pl.DataFrame":
    import polars as pl

    from ml_platform.governance.access.read_audit import keeps_account
    from ml_platform.governance.read_history import reads, span

    _only_admins()
    settings = Settings()
    if not keeps_account(settings):
        say("Reads are not written down here: no admin has a key, and audit_reads is not set.", err=True)
    if during is None:
        return reads(_lake(settings), settings)
    try:
        start, end = span(during)
    except ValueError as error:
        stop(str(error))
    return reads(_lake(settings), settings, since=start).filter(pl.col("time") < end)


def _tell(found: "pl.DataFrame", format: Format) -> None:
    from ml_platform.governance.read_history import summary

    if found.is_empty():
        stop("No read is on record.")
    write(render(summary(found), format), format)


def _made_of(name: str) -> set[str]:
    """Objects that are made of one, by the lineage of columns."""
    from ml_platform.lineage.store import refresh_lineage

    lineage, problems = refresh_lineage(Settings())
    for problem in problems:
        say(problem, err=True)
    graph = lineage.graph
    starts = [node for node in graph.nodes if node.object == name]
    return {after.object for node in starts for after in graph.downstream(node)}


@app.command()
def show(
    caller: Annotated[str | None, typer.Option(help="Name or id of a key or token, or a person.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Earliest time (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most lines to show, the newest.")] = 100,
) -> None:
    """List who did what, oldest first.

    Example: ml-platform audit show --caller "nightly job" --since 2026-01-31
    """
    from ml_platform.governance.audit_table import read_audit
    from ml_platform.lake.storage.tables import Lake

    settings = Settings()
    start = since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since
    lines = read_audit(Lake(settings.lake_uri), settings, caller=caller, since=start)
    for row in lines.tail(limit).iter_rows(named=True):
        who = row["name"] or row["client"] or "-"
        what = f"{row['method']} {row['path']} {row['status']}" if row["method"] else row["action"]
        if row["rows"] is not None:
            what += f", {row['rows']:,} row{'' if row['rows'] == 1 else 's'}"
        detail = "" if row["detail"] is None else f": {row['detail']}"
        say(f"{row['time']:%Y-%m-%d %H:%M:%S}  {who}  {what}{detail}")
    if lines.height > limit:
        say(f"({lines.height - limit:,} older lines: --limit shows more)", err=True)
