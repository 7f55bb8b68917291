"""What the commands of `ml-platform` have in common."""

from typing import NoReturn

import typer


def stop(message: str) -> NoReturn:
    """End the command with an error message and exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1) from None
