"""What a check finds: fine, worth a look, or wrong, with what to do."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    Attributes
    ----------
    check
        What was looked at.
    status
        `ok`; `warning`: it works, with something to know; `error`: something does not work or would not.
    message
        What was found.
    remedy
        What to do; empty when nothing is.
    """

    check: str
    status: Status
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """Make a finding that all is well."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Make a finding to know of."""
    return Finding(check, "warning", message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """Make a finding of what is wrong."""
    return Finding(check, "error", message, remedy)


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; one that cannot be made to its end is an error of its own, and no end of the others."""
    try:
        yield from check()
    except Exception as problem:  # noqa: BLE001 - reported, whatever a damaged state makes of a library
        yield error(
            name,
            f"the check could not be made: {type(problem).__name__}: {problem}",
            "mend what it names; if it names nothing of yours, this is a mistake of the engine",
        )
