"""What the columns of a table hold: types as a request has them, how many values, which."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import polars as pl

from ml_platform.lake.exact_casts import is_text
from ml_platform.lake.names import quoted
from ml_platform.lake.sources.contract_inference import read_texts
from ml_platform.yaml_documents import nearest

ColumnKind = Literal["string", "integer", "number", "boolean", "timestamp", "date", "other"]

MOST_VALUES = 32  # distinct values of a column that are listed
_EXACT = 2**53  # up to here a float names a whole number
_WORTHLESS_NAMES = frozenset({"", "x", "index", "row", "instant", "rownames", "unnamed: 0"})


@dataclass(frozen=True)
class TableColumn:
    """One column of a table.

    Attributes
    ----------
    name
        As the table has it.
    kind
        Type of its values; `date` and `other` are none that a request has.
    expression
        SQL of the values in that type: the column itself, or a cast of texts that are all numbers.
    rows, nulls, distinct
        Rows of the table, those without a value, and distinct values apart from null.
    minimum, maximum
        Of numbers, dates and instants; None of others and where there is none.
    values
        All distinct values, sorted, of texts and whole numbers that have few; None for many.
    is_cast
        Whether the table stores texts.
    is_whole
        Whether all are whole numbers that are stored with a fraction, as ids are after a column with gaps was a float.
    """

    name: str
    kind: ColumnKind
    expression: str
    rows: int
    nulls: int
    distinct: int
    minimum: float | date | datetime | None = None
    maximum: float | date | datetime | None = None
    values: tuple[str | int, ...] | None = None
    is_cast: bool = False
    is_whole: bool = False

    @property
    def is_unique(self) -> bool:
        """Whether each row has a value of its own."""
        return not self.nulls and self.distinct == self.rows

    @property
    def counts_rows(self) -> bool:
        """Whether it is a number of the row: 1, 2, 3 … in whatever order."""
        return (
            self.kind == "integer"
            and self.is_unique
            and isinstance(self.minimum, int)
            and isinstance(self.maximum, int)
            and self.maximum - self.minimum == self.rows - 1
        )

    @property
    def words(self) -> frozenset[str]:
        """The words of its name, in lower case.

        Examples
        --------
        >>> sorted(TableColumn("customerID", "string", "", 1, 0, 1).words)
        ['customer', 'id']
        """
        split, before = "", ""
        for letter in self.name:
            split += f" {letter}" if letter.isupper() and before.islower() else letter
            before = letter
        return frozenset("".join(letter.lower() if letter.isalnum() else " " for letter in split).split())

    @property
    def is_index(self) -> bool:
        """Whether it is a number of the row under a name that says no more."""
        return self.counts_rows and self.name.strip().lower() in _WORTHLESS_NAMES


def table_columns(frame: pl.DataFrame) -> dict[str, TableColumn]:
    """Describe the columns of a table by name.

    Examples
    --------
    >>> columns = table_columns(pl.DataFrame({"plan": ["a", "b", "a"], "price": ["1.5", "2", None]}))
    >>> columns["plan"].values, columns["price"].kind, columns["price"].expression
    (('a', 'b'), 'number', 'TRY_CAST("price" AS DOUBLE)')
    """
    return {values.name: _column(values) for values in frame.iter_columns()}


def check_known(name: str, columns: Collection[str], table: str) -> None:
    """Refuse a name that is no column (raises LookupError, naming the columns that there are)."""
    if name not in columns:
        same = [column for column in columns if column.lower() == name.lower()]
        hint = f"; did you mean '{same[0]}'?" if same else nearest(name, columns)
        raise LookupError(f"{table} has no column '{name}'{hint} It has: {', '.join(columns)}")


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Give the name, or the first of `<name>_2`, `<name>_3` … that is not taken in any case, as SQL compares names.

    Examples
    --------
    >>> free_name("event_time", ["Event_Time", "id"])
    'event_time_2'
    """
    lower = {name.lower() for name in taken}
    number, name = 1, wanted
    while name.lower() in lower:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _column(values: pl.Series) -> TableColumn:
    kind, typed, expression = _typed(values)
    numeric = kind in {"integer", "number", "date", "timestamp"}
    known = typed.drop_nulls()
    if kind == "number":
        known = known.filter(known.is_finite())
    distinct = known.n_unique() if kind != "other" else 0
    is_whole = kind == "number" and distinct > 0 and bool(((known == known.round()) & (known.abs() < _EXACT)).all())
    listed = kind in {"string", "integer"} and 0 < distinct <= MOST_VALUES
    return TableColumn(
        name=values.name,
        kind=kind,
        expression=expression,
        rows=len(values),
        nulls=len(values) - len(typed.drop_nulls()),
        distinct=distinct,
        minimum=known.min() if numeric else None,  # type: ignore[arg-type]  # of the kinds above
        maximum=known.max() if numeric else None,  # type: ignore[arg-type]
        values=tuple(known.unique().sort()) if listed else None,
        is_cast=is_text(values.dtype) and kind != "string",
        is_whole=is_whole,
    )


def _typed(values: pl.Series) -> tuple[ColumnKind, pl.Series, str]:
    """Kind, values of that kind, and their SQL."""
    name, dtype = quoted(values.name), values.dtype
    if is_text(dtype):
        return _typed_texts(values.cast(pl.String), name)
    if isinstance(dtype, pl.Datetime):
        return "timestamp", values, name if dtype.time_zone else f"({name} AT TIME ZONE 'UTC')"
    if dtype.is_integer():
        return "integer", values.cast(pl.Int64, strict=False), name
    if dtype.is_numeric():
        return "number", values.cast(pl.Float64), name if dtype.is_float() else f"CAST({name} AS DOUBLE)"
    if dtype == pl.Date:
        return "date", values, f"({name}::TIMESTAMP AT TIME ZONE 'UTC')"
    return ("boolean" if dtype == pl.Boolean else "other"), values, name


def _typed_texts(texts: pl.Series, name: str) -> tuple[ColumnKind, pl.Series, str]:
    """Texts, or the numbers that all of them are."""
    guessed = read_texts(texts) if texts.null_count() < len(texts) else {"type": "string"}
    if "format" in guessed or guessed["type"] not in {"integer", "number"}:
        return "string", texts, name
    if guessed["type"] == "integer":
        return "integer", texts.str.strip_chars().cast(pl.Int64, strict=False), f"TRY_CAST({name} AS BIGINT)"
    return "number", texts.str.strip_chars().cast(pl.Float64, strict=False), f"TRY_CAST({name} AS DOUBLE)"
