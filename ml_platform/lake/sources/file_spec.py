"""How the files of a `SourceTable` are written, as its YAML declares it."""

import codecs
from itertools import combinations
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ml_platform.spec.types import Strict

FileFormat = Literal["csv", "parquet", "jsonl"]

_CHARACTERS = ("separator", "quote", "escape")


class Files(Strict):
    """How files are read. All but `format` is about CSV; what is not declared here is refused, never guessed."""

    format: FileFormat | None = Field(None, description="csv, parquet or jsonl; by a file's suffix when absent.")
    null_values: tuple[str, ...] = Field(
        ("",),
        description="Texts of a CSV file that mean a missing value in whichever column, quoted or not. A column's own "
        "`null_values` are for texts that are values elsewhere, like NA. When empty, only a field without quotes and "
        "text is missing.",
    )
    separator: str = Field(",", min_length=1, max_length=1, description="Character between the columns of a CSV file.")
    encoding: str = Field("utf-8", description="Encoding of a CSV file: utf-8, cp1252, utf-16 and the like.")
    quote: str = Field(
        '"', description="Character around values; doubled within them. `none`: quotes are ordinary characters."
    )
    escape: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description='Character that makes the quote (or itself) after it part of a value: `\\` where 5" is "5\\"".',
    )
    comment: str | None = Field(None, min_length=1, description="Lines that begin with this text are left out: `#`.")
    skip_lines: int = Field(0, ge=0, description="Lines above the header (or the first row) to leave out: titles.")
    skip_last_lines: int = Field(0, ge=0, description="Lines below the last row to leave out: totals, footers.")
    empty_rows: Literal["keep", "drop"] = Field(
        "keep", description="Whether lines of separators alone (`,,`) are rows without values, or no rows (`drop`)."
    )
    header: Literal["first_line", "none"] = Field(
        "first_line", description="Whether the first line has the columns' names; `none` wants `names`."
    )
    names: tuple[str, ...] | None = Field(
        None, min_length=1, description="Names of a CSV file's columns, in order, in place of its header's."
    )
    trim: bool = Field(False, description="Whether blanks around values and around their quotes are left out.")
    trailing_separator: bool = Field(
        False,
        description="Whether lines end in separators (`1,2,`, or as many as the header), after which is no column.",
    )
    missing_fields: Literal["refuse", "null"] = Field(
        "refuse", description="What a line with too few fields is: an error, or `null`: a row whose last are missing."
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            return codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"like utf-8, cp1252, latin-1 or utf-16 was wanted, found '{encoding}'") from None

    @field_validator("missing_fields", mode="before")
    @classmethod
    def _null_is_a_choice(cls, choice: Any) -> Any:
        return "null" if choice is None else choice  # YAML's null

    @model_validator(mode="after")
    def _is_one_dialect(self) -> Self:
        characters = {name: value for name in _CHARACTERS if (value := getattr(self, name)) not in (None, "none")}
        if self.comment is not None:
            characters["comment"] = self.comment[0]
        for name, character in characters.items():
            if len(character) != 1 or not character.isascii() or character in "\r\n\0":
                raise ValueError(f"{name} is one ASCII character and no line end; found {character!r}")
        for one, other in combinations(characters, 2):
            if characters[one] == characters[other]:
                raise ValueError(f"{one} and {other} cannot both be {characters[one]!r}")
        if self.escape is not None and self.quote == "none":
            raise ValueError("escape is for the quotes in quoted values; quote is none")
        if self.comment is not None and ("\n" in self.comment or "\r" in self.comment):
            raise ValueError(f"comment is what a line begins with; found {self.comment!r}")
        if self.header == "none" and self.names is None:
            raise ValueError("header: none wants names: the columns' names, in order")
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError(f"names are each given once; found {', '.join(self.names)}")
        return self
