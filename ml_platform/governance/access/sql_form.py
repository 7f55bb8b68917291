"""GRANT, REVOKE and DENY as SQL: read strictly, nothing guessed and nothing left over.

GRANT <privilege> [, …] ON [SCHEMA | TABLE | VIEW | COLUMN | MODEL | ENDPOINT | TRAINING SET | TAG | NAMESPACE] <object>
    TO <principal> [, …] [UNTIL '<date or instant>']
REVOKE <privilege> [, …] ON … FROM <principal> [, …]
DENY <privilege> [, …] ON … TO <principal> [, …] [UNTIL '…']
"""

import re
from dataclasses import dataclass

from ml_platform.governance.access.objects import CatalogueObject, parse_object
from ml_platform.governance.access.principals import parse_principal

VERBS = ("grant", "revoke", "deny")
_KINDS = ("schema", "table", "view", "column", "model", "endpoint", "training_set", "tag", "namespace")
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<name>(?:"(?:[^"]|"")+"|`[^`]+`|[\w/@:*-]+)(?:\.(?:"(?:[^"]|"")+"|`[^`]+`|[\w/@:*-]+))*)"""
    r"""|(?P<comma>,)|(?P<end>;)\s*$)"""
)


class StatementError(ValueError):
    """A GRANT, REVOKE or DENY that cannot be read, with what was wanted where."""


@dataclass(frozen=True)
class Statement:
    """What a statement says."""

    verb: str
    privileges: tuple[str, ...]
    on: CatalogueObject
    principals: tuple[str, ...]
    until: str | None = None


def is_statement(sql: str) -> bool:
    """Whether a text begins as GRANT, REVOKE or DENY."""
    return re.match(rf"\s*({'|'.join(VERBS)})\b", sql, re.IGNORECASE) is not None


def parse_statement(sql: str) -> Statement:
    """Read one statement.

    Raises
    ------
    StatementError, NoObject, NoPrincipal
        Saying what was wanted, and what was found.

    Examples
    --------
    >>> statement = parse_statement("GRANT SELECT, modify ON TABLE raw.flights TO `group:ops`, 'service:nightly job'")
    >>> statement.privileges, statement.on.text, statement.principals
    (('select', 'modify'), 'raw.flights', ('group:ops', 'service:nightly job'))
    """
    reader = _Reader(sql)
    verb = reader.word(*VERBS)
    privileges = [reader.name("a privilege").lower()]
    while reader.take(","):
        privileges.append(reader.name("a privilege").lower())
    if privileges == ["all"] and reader.is_word("privileges"):
        reader.word("privileges")
    reader.word("on")
    on = _object(reader)
    reader.word("from" if verb == "revoke" else "to")
    principals = [parse_principal(reader.value("a principal, like `group:analysts`"))]
    while reader.take(","):
        principals.append(parse_principal(reader.value("a principal, like `group:analysts`")))
    until = None
    if verb != "revoke" and reader.is_word("until"):
        reader.word("until")
        until = reader.value("a date, like '2026-12-31'")
    reader.end()
    return Statement(verb, tuple(privileges), on, tuple(principals), until)


def _object(reader: "_Reader") -> CatalogueObject:
    first = reader.name("an object, like raw.flights or MODEL flight_delay")
    kind = first.lower()
    if kind == "training" and reader.is_word("set"):
        reader.word("set")
        kind = "training_set"
    if kind not in _KINDS or not reader.has_name() or reader.is_word("to", "from"):
        return parse_object(_unquoted(first) if ":" in first else first)
    return parse_object(f"{kind}:{reader.name(f'the name of a {kind}')}")


class _Reader:
    """Takes a statement apart, word by word."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while sql[place:].strip():
            match = _TOKEN.match(sql, place)
            if match is None:
                raise StatementError(f"cannot read {sql[place:].strip()[:40]!r}; quote names with other signs in `…`")
            self._tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
            place = match.end()
        self._at = 0

    def is_word(self, *words: str) -> bool:
        return self._peek() in [("name", word) for word in words] or self._peek()[1].lower() in words

    def has_name(self) -> bool:
        return self._peek()[0] == "name"

    def word(self, *words: str) -> str:
        kind, text = self._peek()
        if kind != "name" or text.lower() not in words:
            raise self._wanted(" or ".join(word.upper() for word in words))
        self._at += 1
        return text.lower()

    def name(self, what: str) -> str:
        kind, text = self._peek()
        if kind != "name":
            raise self._wanted(what)
        self._at += 1
        return text

    def value(self, what: str) -> str:
        kind, text = self._peek()
        if kind not in ("name", "text"):
            raise self._wanted(what)
        self._at += 1
        return text[1:-1].replace("''", "'") if kind == "text" else _unquoted(text)

    def take(self, sign: str) -> bool:
        is_there = self._peek() == ("comma", sign)
        self._at += is_there
        return is_there

    def end(self) -> None:
        if self._peek()[0] == "end":
            self._at += 1
        if self._at < len(self._tokens):
            raise self._wanted("the end of the statement")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _wanted(self, what: str) -> StatementError:
        rest = " ".join(text for _, text in self._tokens[self._at :])[:60]
        return StatementError(f"wanted {what}, found {rest or 'the end'}")


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0]) if text[0] in '`"' and text[-1] == text[0] else text
