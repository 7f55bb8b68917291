"""Table contracts: `dataframely` schemas applied row by row, with reasons in words for every rejected row.

A contract is a `dataframely.Schema`: columns with type, nullability, range, allowed values, a primary key, and rules
over several columns. Two conventions make it readable wherever it is shown: `metadata={"unit": "minutes"}` gives a
column's unit, and the names of a column's `check` rules read as statements (`check=one_of("EWR", "JFK")`). The metadata
can also say how a column's values are written in the source (see `ml_platform.lake.contracts.conversion`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import dataframely as dy
import polars as pl

from ml_platform.lake.contracts.conversion import is_reachable
from ml_platform.lake.contracts.conversion import typed as typed_column
from ml_platform.lake.errors import SchemaMismatch

ROW = "ingest_row"  # column with a row's position in the given frame, kept through typing and rules
_DUPLICATE = "primary_key"
HOW_TO_TAKE = "To take columns that the contract does not know, declare the table with evolution: add_columns."
_IMPLIED = {"nullability", "inf", "nan"}  # rules that the other facts of a column imply
_NAMES = {
    "Int": "an integer",
    "UInt": "an integer",
    "Float": "a number",
    "Boolean": "true or false",
    "String": "a text",
    "Date": "a date",
    "Datetime": "a timestamp",
}


@dataclass(frozen=True)
class Verdict:
    """The result of applying a contract to a frame; every row is either accepted or rejected.

    Attributes
    ----------
    accepted
        Rows that meet the contract, typed: `ROW` and the contract's columns.
    rejected
        `ROW` and `reasons` (list of texts, at least one) of the others.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame


@dataclass(frozen=True)
class ColumnFacts:
    """A contract's column in words, for people and catalogues."""

    name: str
    type: pl.DataType
    nullable: bool
    primary_key: bool
    description: str
    unit: str | None
    constraints: tuple[str, ...]


@dataclass(frozen=True)
class OneOf:
    """Rule that a text is one of the allowed ones."""

    allowed: tuple[str, ...]

    def __call__(self, column: pl.Expr) -> pl.Expr:
        """Apply the rule to a column."""
        return column.is_in(list(self.allowed))


def one_of(*allowed: str) -> dict[str, Callable[[pl.Expr], pl.Expr]]:
    """Make a text column's `check`: its value is one of these."""
    return {f"one of {', '.join(allowed)}": OneOf(allowed)}


@dataclass(frozen=True)
class Like:
    """Rule that a whole text matches a regular expression."""

    pattern: str

    def __call__(self, column: pl.Expr) -> pl.Expr:
        """Apply the rule to a column."""
        return column.str.contains(rf"\A(?:{self.pattern})\z")


def like(pattern: str) -> dict[str, Callable[[pl.Expr], pl.Expr]]:
    r"""Make a text column's `check`: the whole value matches a regular expression of Rust's syntax, in linear time.

    Raises
    ------
    ValueError
        If the pattern cannot be compiled; with the engine's reason.

    Examples
    --------
    >>> (rule,) = like(r"N\d+").values()
    >>> pl.select(rule(pl.Series(["N1", "xN1", "N1\n", "n1", None]))).to_series().to_list()
    [True, False, False, False, None]
    """
    for text in (pattern, rf"\A(?:{pattern})\z"):  # "a)(b" is one in parentheses only
        try:
            pl.select(pl.lit("").str.contains(text))
        except pl.exceptions.PolarsError as error:
            reason = re.search("error: (?!regex parse error)(.*)", str(error))
            raise ValueError(
                f"{pattern!r} cannot be a pattern: {reason.group(1) if reason else error}. Wanted is a regular "
                "expression in the syntax of Rust's regex, which has no look-around and no backreferences"
            ) from error
    return {f"like {pattern}": Like(pattern)}


def match_columns(frame: pl.DataFrame, contract: type[dy.Schema], where: str) -> None:
    """Refuse a frame whose columns are not the contract's, before any row is checked.

    Raises
    ------
    SchemaMismatch
        For a missing column, an unexpected one, or a type that cannot be converted to the contract's (text can always
        be tried, row by row); the message names column, wanted and found.
    """
    columns = contract.columns()
    wanted = {name: column.dtype for name, column in columns.items()}
    dtypes = {name: dtype for name, dtype in frame.schema.items() if name != ROW}
    problems = []
    for name in wanted.keys() - dtypes.keys():
        near = get_close_matches(name, dtypes.keys() - wanted.keys(), n=1)
        hint = f" (is it '{near[0]}'?)" if near else ""
        problems.append(f"column '{name}': wanted {wanted[name]}, found no such column{hint}")
    problems += [f"column '{name}': not wanted, found {dtypes[name]}" for name in dtypes.keys() - wanted.keys()]
    problems += [
        f"column '{name}': wanted {wanted[name]}, found {dtypes[name]}{_how_to_place(dtypes[name], wanted[name])}"
        for name in wanted.keys() & dtypes.keys()
        if not is_reachable(dtypes[name], wanted[name], columns[name].metadata or {})
    ]
    if problems:
        raise SchemaMismatch(
            where,
            sorted(problems),
            f"Correct the source, or the contract '{contract.__name__}' if the source is right."
            + (f" {HOW_TO_TAKE}" if dtypes.keys() - wanted.keys() else ""),
        )


def apply_contract(frame: pl.DataFrame, contract: type[dy.Schema], *, where: str) -> Verdict:
    """Convert a frame to the contract's types and split it into rows that meet the contract and rows that break it.

    Among rows with the same primary key, the first one (in the frame's order) that meets all other rules is accepted,
    and the later ones are rejected.

    Parameters
    ----------
    frame
        The contract's columns, typed or as text; a `ROW` column is kept, or added if there is none.
    contract
        `dataframely` schema.
    where
        What the frame is, for error messages.

    Raises
    ------
    SchemaMismatch
        If the columns are not the contract's.

    Examples
    --------
    >>> class Readings(dy.Schema):
    ...     sensor = dy.String(primary_key=True)
    ...     value = dy.Float64(nullable=True, max=100)
    >>> raw = pl.DataFrame({"sensor": ["a", "b", "c", "a"], "value": ["1.5", "warm", "400", "2"]})
    >>> verdict = apply_contract(raw, Readings, where="readings.csv")
    >>> verdict.accepted.drop(ROW).rows()
    [('a', 1.5)]
    >>> for row, reasons in verdict.rejected.rows():
    ...     print(row, *reasons)
    1 value: not a number
    2 value: above 100
    3 duplicate of sensor (the first is kept)
    """
    match_columns(frame, contract, where)
    if ROW not in frame.columns:
        frame = frame.with_row_index(ROW)
    columns = contract.columns()
    typed = frame.select(
        ROW,
        *[
            typed_column(name, frame.schema[name], column.dtype, column.metadata or {})
            for name, column in columns.items()
        ],
    )
    unreadable = {
        f"{name}: not {_type_name(column)}": typed[name].is_null() & frame[name].is_not_null()
        for name, column in columns.items()
    }
    untyped = _rejected(typed[ROW], unreadable)
    typed = typed.filter(~pl.col(ROW).is_in(untyped[ROW].implode()))

    # The schema gets the row number as a column, because `filter` keeps only columns that it knows.
    numbered: type[dy.Schema] = type(contract.__name__, (contract,), {ROW: dy.UInt32()})
    valid, failure = numbered.filter(typed)
    details = failure.details()
    broken = {rule: details[rule] == "invalid" for rule in failure.counts()}
    wrong = _rejected(
        details[ROW], {_reason(rule, columns): mask for rule, mask in broken.items() if rule != _DUPLICATE}
    )
    # The remaining failures break only the primary key, perhaps only because of a row that was just rejected.
    keyed = pl.concat([valid, details.filter(~pl.col(ROW).is_in(wrong[ROW].implode())).select(valid.columns)]).sort(ROW)
    if not contract.primary_key():
        return Verdict(keyed, _in_order(untyped, wrong))
    first = keyed.select(pl.struct(contract.primary_key()).is_first_distinct()).to_series()
    again = f"duplicate of {', '.join(contract.primary_key())} (the first is kept)"
    return Verdict(keyed.filter(first), _in_order(untyped, wrong, _rejected(keyed[ROW], {again: ~first})))


def describe(contract: type[dy.Schema]) -> tuple[ColumnFacts, ...]:
    """List a contract's columns with their descriptions, units and constraints in words."""
    facts = []
    for name, column in contract.columns().items():
        constraints = [
            _words(column, rule)[0] for rule in column.validation_rules(pl.col(name)) if rule not in _IMPLIED
        ]
        facts.append(
            ColumnFacts(
                name=name,
                type=column.dtype,
                nullable=column.nullable,
                primary_key=column.primary_key,
                description=column.description or "",
                unit=(column.metadata or {}).get("unit"),
                constraints=tuple(constraints),
            )
        )
    return tuple(facts)


def _how_to_place(found: pl.DataType, wanted: pl.DataType) -> str:
    naive = isinstance(found, pl.Datetime) and found.time_zone is None and isinstance(wanted, pl.Datetime)
    return " (say in the column's time_zone which clock it is by, UTC or e.g. Europe/Berlin)" if naive else ""


def _type_name(column: dy.Column) -> str:
    dtype, metadata = column.dtype, column.metadata or {}
    kind = "Datetime" if isinstance(dtype, pl.Datetime) else str(dtype).rstrip("0123456789")
    like = f" like {metadata['format']}" if "format" in metadata else ""
    zone = f" of {metadata['time_zone']} (or one that the clocks show twice)" if "time_zone" in metadata else ""
    return f"{_NAMES.get(kind, f'a {dtype}')}{like}{zone}"


def _reason(rule: str, columns: dict[str, dy.Column]) -> str:
    """Why a row is rejected, from the name that dataframely gives a rule."""
    name = max((name for name in columns if rule.startswith(f"{name}|")), key=len, default=None)
    if name is None:
        return f"breaks the rule '{rule.replace('_', ' ')}'"
    check = rule[len(name) + 1 :]
    return f"{name}: {_words(columns[name], check)[1]}"


def _words(column: Any, check: str) -> tuple[str, str]:
    """A column's constraint in words, and what a value that breaks it is."""
    bound = getattr(column, check, None)
    metadata = column.metadata or {}
    words = {
        "nullability": ("never missing", metadata.get("when_missing", "missing")),
        "min": (f"at least {bound}", f"below {bound}"),
        "min_exclusive": (f"above {bound}", f"not above {bound}"),
        "max": (f"at most {bound}", f"above {bound}"),
        "max_exclusive": (f"below {bound}", f"not below {bound}"),
        "is_in": (f"one of {bound}", f"not one of {bound}"),
        "inf": ("finite", "infinite"),
        "nan": ("a number", "not a number"),
        "unique": ("unique", "not unique"),
        "regex": (f"like {bound}", f"not like {bound}"),
        "min_length": (f"at least {bound} bytes", f"shorter than {bound} bytes"),
        "max_length": (f"at most {bound} bytes", f"longer than {bound} bytes"),
        "resolution": (f"in steps of {bound}", f"not in steps of {bound}"),
    }
    named = check.removeprefix("check__")
    return words.get(check, (named, f"not {named}"))


def _rejected(rows: pl.Series, broken: dict[str, pl.Series]) -> pl.DataFrame:
    """List the rows for which the mask of at least one reason is true, with their reasons."""
    rejections = [
        pl.DataFrame({ROW: rows.filter(mask)}).with_columns(reason=pl.lit(reason)) for reason, mask in broken.items()
    ]
    empty = pl.DataFrame(schema={ROW: pl.UInt32, "reason": pl.String})
    return pl.concat([empty, *rejections]).group_by(ROW, maintain_order=True).agg(pl.col("reason").alias("reasons"))


def _in_order(*rejected: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(rejected).sort(ROW)
