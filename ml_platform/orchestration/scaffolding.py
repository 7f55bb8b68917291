"""What the scaffold commands have in common: they write all of their files, or none and one line that says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import dagster as dg
from pydantic import ValidationError


class ScaffoldError(click.ClickException, ValueError):
    """Why nothing was scaffolded; `dg` prints its message without a traceback."""


@contextmanager
def whole_or_nothing(request: dg.ScaffoldRequest[Any]) -> Iterator[None]:
    """Turn errors into one line, and remove the folder that `dg` made for the files.

    Raises
    ------
    ScaffoldError
        When Python was asked for, or the files cannot be written as wanted.
    """
    kind = request.type_name.rpartition(".")[2]
    try:
        if request.scaffold_format != "yaml":
            raise ValueError(f"a {kind} is declared in YAML; leave out --format or say --format yaml")
        yield
    except BaseException as error:
        for folder in (Path(request.target_path), *Path(request.target_path).parents):
            if folder.is_dir() and any(folder.iterdir()):
                break
            if folder.is_dir():
                folder.rmdir()
        if not isinstance(error, Exception):
            raise
        raise ScaffoldError(_in_one_line(error)) from error


def _located(place: tuple[int | str, ...], problem: str) -> str:
    return f"{'.'.join(map(str, place))}: {problem}" if place else problem


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problems = (_located(one["loc"], one["msg"].removeprefix("Value error, ")) for one in error.errors())
        return "; ".join(problems)
    said = " ".join(str(error).split())
    return said if isinstance(error, ValueError | OSError | LookupError) else f"{type(error).__name__}: {said}"
