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
    except (ValueError, OSError, LookupError) as error:
        for folder in (Path(request.target_path), *Path(request.target_path).parents):
            if folder.is_dir() and any(folder.iterdir()):
                break
            if folder.is_dir():
                folder.rmdir()
        raise ScaffoldError(_in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return "; ".join(problems)
    return " ".join(str(error).split())
