"""`ml-platform grant`, `revoke` and `deny`: privileges on catalogue objects, and the same as SQL."""

from collections.abc import Callable
from typing import Annotated

import typer

from ml_platform.governance.access.commands import AccessEditor, parse_until
from ml_platform.governance.access.objects import parse_object
from ml_platform.governance.access.principals import parse_principal
from ml_platform.governance.access.sql_form import Statement, StatementError, is_statement, parse_statement
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

Words = Annotated[
    list[str], typer.Argument(help="<privilege,…> on <object> to <principal …>, or from with revoke.", metavar="WORDS")
]
Reason = Annotated[str, typer.Option(help="Why; it goes into the audit log.")]
Days = Annotated[float | None, typer.Option(help="Days until it ends; never by default.")]
Until = Annotated[str | None, typer.Option(help="Until when: 2026-12-31 or 2026-12-31T12:00Z (UTC).")]
ERRORS = (LookupError, ValueError, PermissionError)


def grant(words: Words, days: Days = None, until: Until = None, reason: Reason = "") -> None:
    """Grant privileges on a catalogue object to groups, people and services.

    Example: ml-platform grant select on features.carrier_reliability to group:analysts --days 90
    """
    _run("grant", words, days, until, reason)


def deny(words: Words, days: Days = None, until: Until = None, reason: Reason = "") -> None:
    """Deny privileges on a catalogue object: a denial wins over every grant.

    Example: ml-platform deny select on raw.flights.tail_number to group:analysts
    """
    _run("deny", words, days, until, reason)


def revoke(words: Words, reason: Reason = "") -> None:
    """Take a grant or a denial away.

    Example: ml-platform revoke select on features.carrier_reliability from group:analysts
    """
    _run("revoke", words, None, None, reason)


def run_statement(sql: str) -> list[str] | None:
    """Carry out a GRANT, REVOKE or DENY, and tell what happened in lines; None for any other SQL.

    Raises
    ------
    ValueError, LookupError, PermissionError
        When it cannot be read, or is not allowed.
    """
    if not is_statement(sql):
        return None
    return _carry_out(parse_statement(sql), "by SQL")


def stopping(action: Callable[[], None]) -> None:
    """End a command whose action is refused with the reason."""
    try:
        action()
    except ERRORS as error:
        stop(str(error))


def _run(verb: str, words: list[str], days: float | None, until: str | None, reason: str) -> None:
    def action() -> None:
        statement = _statement(verb, words)
        for line in _carry_out(statement, reason, days=days, until=until):
            say(line)

    stopping(action)


def _statement(verb: str, words: list[str]) -> Statement:
    """Read `select on raw.flights to group:analysts`, in words of a shell."""
    end = "from" if verb == "revoke" else "to"
    lower = [word.lower() for word in words]
    if "on" not in lower or end not in lower[lower.index("on") :]:
        raise StatementError(
            f"wanted: ml-platform {verb} select on raw.flights {end} group:analysts; found: {' '.join(words)}"
        )
    on = lower.index("on")
    to = lower.index(end, on)
    privileges = [one for word in lower[:on] for one in word.split(",") if one]
    if not privileges or to != on + 2 or to + 1 == len(words):
        raise StatementError(
            f"wanted privileges, one object after `on`, principals after `{end}`; found: {' '.join(words)}"
        )
    principals = [parse_principal(one.rstrip(",")) for one in words[to + 1 :]]
    return Statement(verb, tuple(privileges), parse_object(words[on + 1]), tuple(principals))


def _carry_out(statement: Statement, reason: str, *, days: float | None = None, until: str | None = None) -> list[str]:
    editor = AccessEditor(Settings())
    if statement.verb == "revoke":
        editor.revoke(statement.privileges, statement.on, statement.principals, reason)
        privileges, names = ", ".join(statement.privileges), ", ".join(statement.principals)
        return [f"revoked {privileges} on {statement.on.text} from {names}"]
    return editor.grant(
        statement.privileges,
        statement.on,
        statement.principals,
        denies=statement.verb == "deny",
        until=parse_until(until or statement.until, days),
        reason=reason,
    )
