"""`ml-platform settings` and `ml-platform doctor`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ml_platform.terminal import say, stop


def settings(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show every setting with its value and where it comes from: a variable, environments.yaml, or its default.

    Example: ML_PLATFORM_ENVIRONMENT=staging ml-platform settings
    """
    from ml_platform.doctor.effective_settings import effective_settings
    from ml_platform.project import ProjectNotFound

    try:
        rows = effective_settings()
    except (ValueError, ProjectNotFound) as error:
        stop(f"settings: {error}")
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    width = max(len(row.variable) for row in rows)
    for row in rows:
        say(f"{row.variable:{width}}  {row.value or '(empty)'}  [{row.origin}]")


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON document: findings, and formats stored.")
    ] = False,
) -> None:
    """Check the project and its state: what is wrong, what to do. Changes nothing; ends with 1 where it finds errors.

    Example: ml-platform doctor
    """
    from ml_platform.doctor.examination import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            mark = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}[finding.status]
            say(f"{mark} {finding.check}: {finding.message}")
            if finding.remedy:
                say(f"        → {finding.remedy}")
    counts = {status: sum(one.status == status for one in findings) for status in ("error", "warning")}
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(one) for one in findings], "formats": _formats()}, indent=2))
    else:
        say(f"{counts['error']} errors, {counts['warning']} warnings")
    if counts["error"]:
        raise typer.Exit(1)


def _formats() -> dict[str, list[int]]:
    from ml_platform.doctor.stored_formats import stored_formats
    from ml_platform.settings import Settings

    try:
        return stored_formats(Settings())
    except Exception:  # noqa: BLE001 - a finding tells why
        return {}
