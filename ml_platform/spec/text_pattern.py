r"""Regular expressions for texts that mean the same to the server, to OpenAPI clients and to browsers, at bounded cost.

They are the part of the syntax that Rust, JSON Schema and HTML read alike, and always cover the whole text:
characters, `.`, `[classes]`, `\d` and `\w` (ASCII), `\` before punctuation, groups, `|`, and the quantifiers `*`,
`+`, `?`, `{m,n}`. Rust's engine, which pydantic brings, checks them in time linear in the text, without backtracking;
patterns of so many states that even this engine becomes slow are refused when they are declared.
"""

import string
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_

from pydantic_core import SchemaError, SchemaValidator, core_schema

LONGEST_PATTERN = 200  # characters
LONGEST_TEXT = 1_000  # characters; a longer text matches no pattern
MOST_POSITIONS = 300  # characters and classes, counted as often as quantifiers repeat them
MOST_STATES = 500  # of the deterministic automaton

_DIGITS = ((ord("0"), ord("9")),)
_WORD = (*_DIGITS, (ord("A"), ord("Z")), (ord("_"), ord("_")), (ord("a"), ord("z")))
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_OUTSIDE = frozenset("^$\\.*+?()[]{}|/")  # characters that JavaScript has escaped outside of a class
_INSIDE = frozenset("^\\()[]{}|/-")  # and in a class
_PLAINEST = tuple(map(ord, f"{string.ascii_uppercase}{string.digits}{string.ascii_lowercase}-_.,:;/ "))
_SURROGATES = (0xD800, 0xDFFF)  # in no text of UTF-8
_AFTER_SURROGATES = _SURROGATES[1] + 1
_QUANTIFIERS = frozenset("*+?{")

_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Set:
    """One character among some."""

    ranges: _Ranges
    negated: bool = False
    text: str | None = None  # how JavaScript writes it, where that is not a class

    @property
    def plainest(self) -> str:
        """A character of the set, a capital letter or a digit if it has one; none if the set is empty."""
        ends = sorted(point for low, high in self.ranges for point in (low, high + 1))  # a set begins at one of these
        return next((chr(point) for point in (*_PLAINEST, *ends, _AFTER_SURROGATES) if self._has_text(point)), "")

    def _has_text(self, point: int) -> bool:
        return self.has(point) and point <= sys.maxunicode and not _SURROGATES[0] <= point <= _SURROGATES[1]

    def has(self, point: int) -> bool:
        return any(low <= point <= high for low, high in self.ranges) != self.negated

    @property
    def portable(self) -> str:
        return self.text or _class_of(self, lambda point: _escaped(chr(point), _INSIDE))

    @property
    def rust(self) -> str:
        return _class_of(self, lambda point: f"\\x{{{point:X}}}")


@dataclass(frozen=True)
class _Repeat:
    item: "_Node"
    least: int
    most: int | None
    text: str


@dataclass(frozen=True)
class _Group:
    """Alternatives, each a sequence."""

    ways: tuple[tuple["_Node", ...], ...]


_Node = _Set | _Repeat | _Group


class TextPattern:
    r"""A regular expression that whole texts match or do not.

    Raises
    ------
    ValueError
        When the pattern is too long, takes too many states, or has what not all engines read alike.

    Examples
    --------
    >>> tail = TextPattern(r"N\d{1,5}[A-Z]{0,2}")
    >>> [tail.matches(text) for text in ("N14228", "N14228\n", "xN14228", "N1AB")]
    [True, False, False, True]
    >>> tail.portable
    '^(?:N[0-9]{1,5}[A-Z]{0,2})$'
    >>> TextPattern(r"(?=N).*")
    Traceback (most recent call last):
        ...
    ValueError: '(?=N).*': character 1, '(?', is not supported; write groups as (…) or (?:…)
    """

    def __init__(self, text: str) -> None:
        if not 0 < len(text) <= LONGEST_PATTERN:
            raise ValueError(f"wanted 1 to {LONGEST_PATTERN} characters, found {len(text):,}")
        root = _Parser(text).parse()
        if _Automaton(root).states > MOST_STATES:
            raise ValueError(
                f"{text!r} takes more than {MOST_STATES} states; let the next character say more often where in the "
                "pattern it belongs"
            )
        schema = core_schema.str_schema(pattern=rf"\A{_written(root, rust=True)}\z", strict=True)
        try:
            self._is_match = SchemaValidator(schema).isinstance_python
        except SchemaError as error:
            raise ValueError(f"{text!r} cannot be compiled: {error}") from error
        self.portable = f"^{_written(root, rust=False)}$"  # for JSON Schema and HTML, which search otherwise
        self.example = _shortest(root)  # a text that matches, of letters and digits where the pattern lets it

    def matches(self, text: str) -> bool:
        """Whether the whole text matches; one of more than `LONGEST_TEXT` characters does not."""
        return len(text) <= LONGEST_TEXT and self._is_match(text)


@lru_cache(maxsize=1_000)
def text_pattern(text: str) -> TextPattern:
    """Give the compiled pattern (raises ValueError)."""
    return TextPattern(text)


class _Parser:
    """Reads a pattern; every refusal names the character, counted from 1."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> _Group:
        tree = self._group()
        if self._at < len(self._text):
            raise self._wrong("has no opening parenthesis")
        return tree

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1 : self._at]

    def _wrong(self, problem: str, at: int | None = None, length: int = 1) -> ValueError:
        at = self._at if at is None else at
        shown = self._text[at : at + length]
        where = f"character {at + 1}, {shown!r}," if shown else "its end"
        return ValueError(f"{self._text!r}: {where} {problem}")

    def _group(self) -> _Group:
        ways: list[tuple[_Node, ...]] = []
        while True:
            items: list[_Node] = []
            while self._next() not in ("", "|", ")"):
                items.append(self._repeated(self._item()))
            if not items:
                raise self._wrong("follows an empty alternative; write (…)? for what may be left out")
            ways.append(tuple(items))
            if self._next() != "|":
                return _Group(tuple(ways))
            self._at += 1

    def _item(self) -> _Node:
        at, character = self._at, self._take()
        if character == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            elif self._next() == "?":
                raise self._wrong("is not supported; write groups as (…) or (?:…)", at, 2)
            group = self._group()
            if self._take() != ")":
                raise self._wrong("is never closed", at)
            return group
        if character == "[":
            return self._class(at)
        if character == ".":
            return _Set(_LINE_ENDS, negated=True, text=".")
        if character == "\\":
            ranges = self._escape(at)
            return _Set(ranges, text=None if len(ranges) > 1 or ranges == _DIGITS else _literal(ranges[0][0]))
        if character in "^$":
            raise self._wrong("is not needed: the whole text is matched; write \\ before it if it is meant itself", at)
        if character in "*+?{}]":
            raise self._wrong("has nothing to repeat or close; write \\ before it if it is meant itself", at)
        return _Set(((ord(character), ord(character)),), text=_literal(ord(character)))

    def _escape(self, at: int) -> _Ranges:
        character = self._take()
        if character in ("d", "w"):
            return _DIGITS if character == "d" else _WORD
        if not character or character.isalnum() or character.isspace() or not character.isascii():
            raise self._wrong("is not supported; there are \\d, \\w and \\ before punctuation", at, 2)
        return ((ord(character), ord(character)),)

    def _class(self, at: int) -> _Set:
        negated = self._next() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while (character := self._take()) != "]":
            if character in ("", "["):
                problem = "is never closed" if not character else "stands in a class: write \\["
                raise self._wrong(problem, at if not character else self._at - 1)
            here = self._at - 1
            characters = self._escape(here) if character == "\\" else ((ord(character), ord(character)),)
            if self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                end = self._take()
                ends = self._escape(self._at - 1) if end == "\\" else ((ord(end), ord(end)),)
                low, high = characters[0][0], ends[0][1]
                if len(characters) > 1 or len(ends) > 1 or _DIGITS in (characters, ends) or end == "[" or low > high:
                    raise self._wrong("is no range of characters", here, self._at - here)
                characters = ((low, high),)
            ranges += characters
        if not ranges:
            raise self._wrong("is an empty class", at, 2)
        return _Set(_merged(ranges), negated=negated)

    def _repeated(self, item: _Node) -> _Node:
        at = self._at
        if self._next() not in _QUANTIFIERS or not self._next():
            return item
        character = self._take()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(character, (0, 0))
        if character == "{":
            inner, closed, _ = self._text[self._at :].partition("}")
            low, comma, high = inner.partition(",")
            if not closed or not _is_count(low) or (high and not _is_count(high)):
                raise self._wrong("wants {m}, {m,} or {m,n}; write \\{ if it is meant itself", at)
            self._at += len(inner) + 1
            least, most = int(low), (int(high) if high else None) if comma else int(low)
            if most is not None and (most < least or most == 0):
                raise self._wrong("repeats nothing", at, self._at - at)
        if self._next() and self._next() in _QUANTIFIERS:
            raise self._wrong("repeats a repetition; put the first into a group")
        return _Repeat(item, least, most, self._text[at : self._at])


def _literal(point: int) -> str:
    return _escaped(chr(point), _OUTSIDE)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


class _Automaton:
    """Glushkov's automaton of a pattern, made deterministic to count its states.

    Sets of positions are the bits of integers.
    """

    def __init__(self, root: _Node) -> None:
        self._sets: list[_Set] = []
        self._follow: list[int] = []
        _, self._first, _ = self._add(root)

    def _add(self, node: _Node) -> tuple[bool, int, int]:
        """Add a part; give whether it matches an empty text, and the positions that begin and end it."""
        if isinstance(node, _Set):
            if len(self._sets) == MOST_POSITIONS:
                raise ValueError(f"its quantifiers repeat more than {MOST_POSITIONS} characters and classes")
            self._sets.append(node)
            self._follow.append(0)
            bit = 1 << (len(self._sets) - 1)
            return False, bit, bit
        if isinstance(node, _Group):
            ways = [self._sequence(list(way)) for way in node.ways]
            return any(way[0] for way in ways), _union(way[1] for way in ways), _union(way[2] for way in ways)
        if node.most is not None:
            return self._sequence([node.item] * node.least, [node.item] * (node.most - node.least))
        before = self._sequence([node.item] * max(node.least - 1, 0))
        empty, first, last = self._add(node.item)
        self._link(last, first)
        return self._joined(before, (empty or node.least == 0, first, last))

    def _sequence(self, items: "list[_Node]", optional: "list[_Node] | None" = None) -> tuple[bool, int, int]:
        state = (True, 0, 0)
        for item in items:
            state = self._joined(state, self._add(item))
        for item in optional or ():
            _, first, last = self._add(item)
            state = self._joined(state, (True, first, last))
        return state

    def _joined(self, left: tuple[bool, int, int], right: tuple[bool, int, int]) -> tuple[bool, int, int]:
        self._link(left[2], right[1])
        first = left[1] | (right[1] if left[0] else 0)
        last = right[2] | (left[2] if right[0] else 0)
        return left[0] and right[0], first, last

    def _link(self, before: int, after: int) -> None:
        for position in _bits(before):
            self._follow[position] |= after

    @property
    def states(self) -> int:
        """Number of deterministic states; counting ends above `MOST_STATES`."""
        points = {0}
        for chosen in self._sets:
            points |= {point for low, high in chosen.ranges for point in (low, high + 1)}
        symbols = {_union(1 << n for n, chosen in enumerate(self._sets) if chosen.has(point)) for point in points}
        seen = {self._first}
        waiting = [self._first]
        while waiting and len(seen) <= MOST_STATES:
            allowed = waiting.pop()
            for symbol in symbols:
                after = _union(self._follow[position] for position in _bits(allowed & symbol))
                if allowed & symbol and after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return len(seen)


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


def _bits(positions: int) -> list[int]:
    numbers = []
    while positions:
        lowest = positions & -positions
        numbers.append(lowest.bit_length() - 1)
        positions ^= lowest
    return numbers


def _shortest(node: _Node) -> str:
    """A text that matches, with as few repetitions as may be."""
    if isinstance(node, _Set):
        return node.plainest
    if isinstance(node, _Repeat):
        return _shortest(node.item) * node.least
    return "".join(map(_shortest, node.ways[0]))


def _written(node: _Node, *, rust: bool) -> str:
    if isinstance(node, _Set):
        return node.rust if rust else node.portable
    if isinstance(node, _Repeat):
        return _written(node.item, rust=rust) + node.text
    return f"(?:{'|'.join(''.join(_written(item, rust=rust) for item in way) for way in node.ways)})"


def _escaped(character: str, special: frozenset[str]) -> str:
    return f"\\{character}" if character in special else character


def _class_of(chosen: _Set, write: Callable[[int], str]) -> str:
    parts = [write(low) if low == high else f"{write(low)}-{write(high)}" for low, high in chosen.ranges]
    return f"[{'^' if chosen.negated else ''}{''.join(parts)}]"


def _merged(ranges: list[tuple[int, int]]) -> _Ranges:
    """Ranges in order, without overlaps."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return tuple(merged)
