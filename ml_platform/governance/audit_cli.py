"""`ml-platform audit …`: who did what, and whether the log of it is what was written."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

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
