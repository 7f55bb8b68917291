"""The engine as it is installed: its name, its version, and the extra that a missing library belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

DISTRIBUTION: Final = "dagster-ml-platform"


class ExtraMissing(ImportError):
    """A library is not installed that one of the engine's extras would have brought."""


def engine_version() -> str:
    """Version of the installed engine.

    Examples
    --------
    >>> engine_version().count(".") >= 2
    True
    """
    return version(DISTRIBUTION)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra to install where an import inside the block finds no such module.

    Raises
    ------
    ExtraMissing
        In place of the `ModuleNotFoundError` of a library; that of a module of the engine passes.

    Examples
    --------
    >>> with extra("postgres"):
    ...     import no_such_library
    Traceback (most recent call last):
    ml_platform.distribution.ExtraMissing: no_such_library is not installed; it belongs to the extra 'postgres': pip install 'dagster-ml-platform[postgres]'
    """  # noqa: E501
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == __name__.split(".", maxsplit=1)[0]:
            raise
        message = (
            f"{error.name} is not installed; it belongs to the extra {name!r}: pip install '{DISTRIBUTION}[{name}]'"
        )
        raise ExtraMissing(message, name=error.name) from error
