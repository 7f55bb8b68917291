"""What the commands of `ml-platform` have in common: what they print, and how they end with an error."""

from typing import NoReturn

import typer
from typer.core import TyperGroup

from ml_platform.printable import plain

INTERRUPTED = 130  # exit code: 128 and the number of SIGINT, as shells have it


def say(line: str, *, err: bool = False) -> None:
    """Print one line, whatever data is in it."""
    typer.echo(plain(line), err=err)


def show(block: str, *, err: bool = False) -> None:
    """Print lines; values in them must not have line ends of their own (see `plain`)."""
    typer.echo(plain(block, keep="\n"), err=err)


def fault_of(name: str, error: Exception) -> str:
    """An error's text behind the name that it is about, which it may begin with itself.

    Examples
    --------
    >>> fault_of("rent", LookupError("no version 9")), fault_of("rent", LookupError("rent: nothing serves"))
    ('rent: no version 9', 'rent: nothing serves')
    """
    return f"{name}: {str(error).removeprefix(f'{name}: ')}"


def stop(message: str, code: int = 1) -> NoReturn:
    """End the command with an error message and an exit code, `INTERRUPTED` for what the user ended."""
    show(message, err=True)
    raise typer.Exit(code) from None


def group_with_default(command: str) -> type[TyperGroup]:
    """Make a class of groups that take what is none of their commands as arguments of one of them."""

    class GroupWithDefault(TyperGroup):
        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
                args = [command, *args]
            return super().parse_args(ctx, args)

    return GroupWithDefault
