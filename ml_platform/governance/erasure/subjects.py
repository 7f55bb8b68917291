"""Whom to erase: the values of an entity, in each form in which the platform writes them."""

import hmac
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ml_platform.governance.erasure.entities import Declaration
from ml_platform.inference.log_policy import SECRET
from ml_platform.lake.storage.suppression import JSON_COLUMNS, columns_of, entity_texts
from ml_platform.secret_file import load_secret

DISTINCTIVE = 6  # characters from which on a text stands for nobody else, so that bytes can be searched for it
_LONG = 32  # bytes from which on MessagePack writes a length before a text that may look like a letter
_FIXSTR = 0xA0  # a shorter one has one byte before it: this and its length
_WORD = re.compile(rb"[\w.@:+-]+")
_EDGES = b".-:"  # of a word, that belong to the sentence around it


@dataclass(frozen=True)
class Subjects:
    """Values of one entity.

    Attributes
    ----------
    declaration
        How the entity is known.
    values
        As they were given, as texts.
    texts
        Forms of them as texts: as they are, as JSON writes them, and as the inference log hashes them.
    """

    declaration: Declaration
    values: tuple[str, ...]
    texts: frozenset[str]

    @classmethod
    def of(cls, declaration: Declaration, values: Collection[str], keys_dir: Path) -> "Subjects":
        """Make all forms of some values (raises ValueError for none, or an empty one)."""
        given = tuple(dict.fromkeys(value.strip() for value in values))
        if not given or not all(given):
            raise ValueError(f"Nobody to erase: a value of '{declaration.entity}' is wanted, found {list(values)}.")
        forms = {form for value in given for form in (value, json.dumps(value)[1:-1])}
        if (keys_dir / SECRET).exists():
            secret = load_secret(keys_dir / SECRET, create=False)
            forms |= {hmac.digest(secret, value.encode(), "sha256")[:16].hex() for value in given}
        return cls(declaration, given, frozenset(forms))

    def columns(self, table: str, columns: Collection[str]) -> list[str]:
        """Columns of a table to look into."""
        return columns_of(table, list(columns), self.declaration.tables, self.declaration.names)

    def mask(self, table: str, rows: pl.DataFrame) -> pl.Series:
        """Which rows are of these entities."""
        mask = pl.Series("mask", [False]).new_from_index(0, rows.height)
        for name in self.columns(table, rows.columns):
            mask = mask | self.matches(table, rows[name])
        return mask

    def matches(self, table: str, values: pl.Series) -> pl.Series:
        """Which values of one column name these entities."""
        is_json = values.name in JSON_COLUMNS and values.name not in self.declaration.tables.get(table, ())
        texts = entity_texts(values, self.declaration.names if is_json else None)
        return texts.list.eval(pl.element().is_in(list(self.texts))).list.any().fill_null(False)

    def stands_in(self, content: bytes) -> bool:
        """Whether one of the texts that are long enough stands in bytes of any kind, as a word of its own."""
        needles = {text.encode() for text in self.texts if len(text) >= DISTINCTIVE}
        words = {needle for needle in needles if len(needle) < _LONG and _WORD.fullmatch(needle)}
        if any(needle in content for needle in needles - words):
            return True
        if not words or not any(word.strip(_EDGES) in words for word in _WORD.findall(content)):
            return False
        return any(
            match.group().strip(_EDGES) in words and not _goes_on(content, match.start(), match.end())
            for match in _WORD.finditer(content)
        )

    def is_said_in(self, content: bytes) -> bool:
        """Whether text has a field of JSON that names one of the entities."""
        text = pl.Series("value", [content.decode("utf-8", "replace")])
        return bool(self.declaration.names) and bool(self.matches("", text).any())

    def lookalikes(self, content: bytes) -> list[str]:
        """Longer words in which one of the texts stands, such as `v-cust-000123`: perhaps another id of the same one.

        A text that ends or begins with a digit and goes on with one is another number, and none.
        """
        needles = [text for text in self.texts if len(text) >= DISTINCTIVE]
        if not needles:
            return []
        least = min(map(len, needles))
        words = {word.strip(_EDGES).decode("utf-8", "replace") for word in _WORD.findall(content) if len(word) > least}
        near = pl.Series(sorted(words - self.texts), dtype=pl.String)
        near = near.filter(near.str.contains_any(needles))
        inside = near.str.extract_many(needles, overlapping=True)  # of many texts only those that a word has
        return [
            word
            for word, parts in zip(near, inside.to_list(), strict=True)
            if any(_stands_within(word, part) for part in parts)
        ]

    def python_values(self) -> set[object]:
        """The values as an online store packs them: texts, and numbers where they are such."""
        numbers = {int(text) for text in self.texts if text.lstrip("-").isdigit()}
        booleans = {text == "true" for text in self.texts if text in ("true", "false")}
        return {*self.texts, *numbers, *booleans}


def _goes_on(content: bytes, start: int, end: int) -> bool:
    """Whether a value goes on with blanks after a word, by MessagePack's length before it or by quotes: another id."""
    after = end
    while content[after : after + 1] == b" ":
        after += 1
    if after == end or not start:
        return False
    if content[start - 1 : start] == content[after : after + 1] == b'"':
        return True
    return end - start < content[start - 1] - _FIXSTR <= min(after - start, _LONG - 1)


def _stands_within(word: str, needle: str) -> bool:
    before = r"(?<!\d)" if needle[0].isdigit() else ""
    after = r"(?!\d)" if needle[-1].isdigit() else ""
    return re.search(before + re.escape(needle) + after, word) is not None
