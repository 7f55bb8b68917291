"""What the commands of `ml-platform` have in common: what they print, and how they end with an error."""

import re
from typing import NoReturn

import typer

# Control characters, among them those of escape codes; marks that turn the direction of text; other line ends.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str, *, keep: str = "") -> str:
    """Escape what a terminal would obey instead of show, so that data can neither colour, hide nor forge lines.

    Parameters
    ----------
    keep
        Characters that stay, such as the line ends of a table.

    Examples
    --------
    >>> print(plain("\\x1b[2Jall is well\\nrow 2"))
    \\x1b[2Jall is well\\nrow 2
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def say(line: str, *, err: bool = False) -> None:
    """Print one line, whatever data is in it."""
    typer.echo(plain(line), err=err)


def show(block: str, *, err: bool = False) -> None:
    """Print lines; values in them must not have line ends of their own (see `plain`)."""
    typer.echo(plain(block, keep="\n"), err=err)


def stop(message: str) -> NoReturn:
    """End the command with an error message and exit code 1."""
    show(message, err=True)
    raise typer.Exit(1) from None
