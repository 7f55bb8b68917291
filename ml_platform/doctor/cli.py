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
