"""Which row is which, and from when: the id and the instant of prediction, from the table's columns or made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from ml_platform.lake.names import quoted
from ml_platform.new_model.table_columns import TableColumn, check_known, free_name
from ml_platform.spec.input_rules import FieldType

FIRST_DAY = date(2024, 1, 1)  # of the days over which rows without a time are spread
SPREAD_DAYS = 90
_FEWEST_INSTANTS = 10
_FEWEST_NAMED = 3  # of a column that is named: to train, to choose and to judge on
_SHORTEST = timedelta(hours=1)  # rows of a single load are written within less
_ID_WORDS = frozenset({"id", "key", "uuid", "guid", "number", "no", "nr", "code", "instant", "index", "rownames"})
_FLOAT_ID_WORDS = frozenset({"id", "key"})
_TIME_WORDS = (
    "event",
    "prediction",
    "timestamp",
    "time",
    "created",
    "ordered",
    "started",
    "start",
    "at",
    "date",
    "day",
)
_NOT_NOW = frozenset(  # an instant that is no moment at which one would predict
    {
        "birth",
        "birthday",
        "dob",
        "born",
        "expiry",
        "expires",
        "expiration",
        "due",
        "promised",
        "end",
        "ended",
        "finish",
        "finished",
        "delivered",
        "closed",
        "updated",
        "modified",
        "resolved",
        "completed",
        "returned",
        "paid",
    }
)
_HOUR_NAMES = frozenset({"hr", "hour", "hours", "hour_of_day"})


@dataclass(frozen=True)
class RowId:
    """The column that identifies a row.

    Attributes
    ----------
    name
        Column of the spine.
    type
        As a request sends it.
    expression
        Its SQL.
    hashed
        SQL of a text that is the same for equal rows, from which an instant can be drawn.
    columns
        The table's columns that it is made of, if they are ids themselves.
    row_hash
        Name of the column with a hash of the inputs that the query has to give first; None when none is needed.
    comment
        What stands beside it.
    """

    name: str
    type: FieldType
    expression: str
    hashed: str
    columns: tuple[str, ...]
    row_hash: str | None
    comment: str


@dataclass(frozen=True)
class Instant:
    """The instant of prediction.

    Attributes
    ----------
    name
        Column of the spine.
    expression
        Its SQL.
    columns
        The table's columns that it is read from; none where it is drawn from the id.
    known_name
        Column of the spine with the instant from which the label is known.
    comment
        What stands beside it.
    """

    name: str
    expression: str
    columns: tuple[str, ...]
    known_name: str
    comment: str

    @property
    def is_drawn(self) -> bool:
        """Whether it is drawn from the id, because the table has no time."""
        return not self.columns


def choose_id(
    columns: Mapping[str, TableColumn], *, table: str, target: str, wanted: str | None, key: Sequence[str] = ()
) -> RowId:
    """Choose the column that identifies a row, or make one of all others.

    Parameters
    ----------
    columns
        Those of the table.
    table
        For messages.
    target
        The label column.
    wanted
        The column to take; guessed when None.
    key
        Primary key of the table's contract.

    Raises
    ------
    LookupError
        When there is no such column.
    ValueError
        When it does not tell rows apart.
    """
    if wanted is not None:
        return _plain_id(_checked_id(columns, wanted, table, target))
    others = [column for name, column in columns.items() if name != target]
    if len(key) == 1 and key[0] in columns and columns[key[0]].is_unique:
        return _plain_id(columns[key[0]])
    if len(key) > 1 and set(key) <= set(columns):
        expression = f"concat_ws('-', {', '.join(map(quoted, key))})"
        name = free_name("row_id", columns)
        return RowId(name, "string", expression, expression, tuple(key), None, "the table's key")
    unique = [column for column in others if column.is_unique and column.kind in {"string", "integer"}]
    unique += [column for column in others if column.is_unique and column.is_whole and column.words & _FLOAT_ID_WORDS]
    named = [column for column in unique if column.words & _ID_WORDS or column.kind == "string" or column.counts_rows]
    if named:
        return _plain_id(min(named, key=lambda column: (not column.words & {"id", "key"}, column.counts_rows)))
    row_hash = free_name("row_hash", columns)
    name = free_name("row_id", columns)
    return RowId(
        name=name,
        type="string",
        expression=f"{row_hash} || '-' || row_number() OVER (PARTITION BY {row_hash} ORDER BY {quoted(target)})",
        hashed=row_hash,
        columns=(),
        row_hash=row_hash,
        comment="no column tells rows apart: a hash of the inputs does, and a number for equal rows",
    )


def choose_instant(columns: Mapping[str, TableColumn], row_id: RowId, *, table: str, wanted: str | None) -> Instant:
    """Choose the column with the instant of prediction, or draw one from the id, so that the split is a random one.

    Raises
    ------
    LookupError
        When there is no column `wanted`.
    ValueError
        When it has no instants, some are missing, or all are the same.
    """
    name, known = free_name("event_time", columns), free_name("label_available_at", columns)
    column = _checked_time(columns, wanted, table) if wanted is not None else _time_column(columns)
    if column is None:
        hours = SPREAD_DAYS * 24
        drawn = f"to_hours((md5_number_upper({row_id.hashed}) % {hours})::INT)"
        return Instant(
            name=name,
            expression=f"TIMESTAMPTZ '{FIRST_DAY} 00:00:00+00' + {drawn}",
            columns=(),
            known_name=known,
            comment="the table has no time: one drawn from the id makes the split a random one that stays the same",
        )
    comment = "the instant of prediction: features are taken as of it"
    hour = next((one for one in columns.values() if _is_hour(one)), None) if column.kind == "date" else None
    if hour is not None:
        whole = f"({quoted(column.name)}::TIMESTAMP + to_hours({quoted(hour.name)}::INT)) AT TIME ZONE 'UTC'"
        return Instant(name, whole, (column.name,), known, f"{comment}; the day and its hour, in UTC")
    return Instant(name, column.expression, (column.name,), known, comment)


@dataclass(frozen=True)
class TimeNotChosen:
    """A column of dates or instants that is not guessed to be the instant of prediction.

    Attributes
    ----------
    reason
        Why not.
    is_possible
        Whether it can be named as the instant all the same.
    """

    reason: str
    is_possible: bool


def times_not_chosen(columns: Mapping[str, TableColumn]) -> dict[str, TimeNotChosen]:
    """Say of each column of dates or instants that cannot be guessed to be the instant of prediction why."""
    return {
        name: TimeNotChosen(reason, not column.nulls and column.distinct >= _FEWEST_NAMED)
        for name, column in columns.items()
        if _is_time(column) and (reason := _why_no_instant(column))
    }


def _plain_id(column: TableColumn) -> RowId:
    if column.is_whole:
        column = replace(column, kind="integer", expression=f"CAST({column.expression} AS BIGINT)")
    type_: FieldType = "integer" if column.kind == "integer" else "string"
    plain = column.kind in {"integer", "string"}
    expression = column.expression if plain else f"CAST({quoted(column.name)} AS VARCHAR)"
    return RowId(
        column.name, type_, expression, f"{quoted(column.name)}::VARCHAR", (column.name,), None, "identifies a row"
    )


def _checked_id(columns: Mapping[str, TableColumn], name: str, table: str, target: str) -> TableColumn:
    check_known(name, columns, table)
    column = columns[name]
    if name == target:
        raise ValueError(f"'{name}' is the target: it cannot be the id as well; leave --id out, and one is made")
    if column.nulls:
        raise ValueError(f"id '{name}' of {table}: {column.nulls:,} rows have none; leave --id out, and one is made")
    if not column.is_unique:
        raise ValueError(
            f"id '{name}' of {table}: {column.rows - column.distinct:,} rows have the id of another row; leave --id "
            "out, and one is made"
        )
    if column.kind in {"number", "boolean", "other"} and not column.is_whole:
        raise ValueError(f"id '{name}' of {table} is a {column.kind}; an id is a text, a whole number or a date")
    return column


def _checked_time(columns: Mapping[str, TableColumn], name: str, table: str) -> TableColumn:
    check_known(name, columns, table)
    column = columns[name]
    if column.kind not in {"date", "timestamp"}:
        raise ValueError(
            f"time '{name}' of {table} is a {column.kind}, a date or an instant is wanted; declare it as one in the "
            "table's contract (type: timestamp, with a format), and load the table again"
        )
    if column.nulls:
        raise ValueError(
            f"time '{name}' of {table}: {column.nulls:,} of {column.rows:,} rows have none, so nobody knows what was "
            "known at their prediction; leave those rows out of the table, or name another column"
        )
    if column.distinct < _FEWEST_NAMED:
        raise ValueError(
            f"time '{name}' of {table} has {column.distinct:,} distinct values: rows cannot be split by it into those "
            "to train and those to judge on; leave --time out, and the split is a random one"
        )
    return column


def _time_column(columns: Mapping[str, TableColumn]) -> TableColumn | None:
    """The column that most probably is the instant of prediction, None for none."""

    def rank(column: TableColumn) -> tuple[int, int]:
        known = [place for place, word in enumerate(_TIME_WORDS) if word in column.words]
        return (min(known, default=len(_TIME_WORDS)), -column.distinct)

    candidates = [column for column in columns.values() if _is_time(column) and not _why_no_instant(column)]
    return min(candidates, key=rank, default=None)


def _is_time(column: TableColumn) -> bool:
    return column.kind in {"date", "timestamp"} and column.distinct > 0


def _why_no_instant(column: TableColumn) -> str:
    """Why a column of dates or instants is not guessed to be the instant of prediction; empty if it can be."""
    if column.nulls:
        return f"{column.nulls:,} of {column.rows:,} rows have none"
    if others := sorted(column.words & _NOT_NOW):
        return f"by its name ({others[0]}) it is another instant than that of a prediction"
    if column.distinct < _FEWEST_INSTANTS:
        return f"it has {column.distinct} distinct values, fewer than {_FEWEST_INSTANTS}"
    low, high = column.minimum, column.maximum
    assert isinstance(low, date)  # a datetime is one
    assert isinstance(high, date)
    return "all rows are within an hour" if high - low < _SHORTEST else ""


def _is_hour(column: TableColumn) -> bool:
    low, high = column.minimum, column.maximum
    is_named = column.name.strip().lower() in _HOUR_NAMES
    return is_named and column.kind == "integer" and not column.nulls and low in range(24) and high in range(24)
