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
_WORD = re.compile(rb"[\w.@:+-]+")


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
        return bool(words) and any(word.strip(b".-:") in words for word in _WORD.findall(content))

    def python_values(self) -> set[object]:
        """The values as an online store packs them: texts, and numbers where they are such."""
        numbers = {int(text) for text in self.texts if text.lstrip("-").isdigit()}
        booleans = {text == "true" for text in self.texts if text in ("true", "false")}
        return {*self.texts, *numbers, *booleans}
