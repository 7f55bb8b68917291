"""Checks a table's rows against the contract by which serving checks requests: some are left out, some flagged.

Serving uses the same functions (`ml_platform.registry.input_contract`), so batch scoring scores a row exactly when a
request with its values would be answered.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.registry.input_contract import Contract, Violation, violations_by_field
from ml_platform.registry.manifest import Input

FLAGS = pl.List(pl.Struct({"field": pl.String, "kind": pl.String, "message": pl.String}))
EXAMPLES = 5


@dataclass(frozen=True)
class CheckedRows:
    """Rows that may be scored, and the values that break the contract."""

    rows: pl.DataFrame
    flags: pl.Series  # of type `FLAGS`, null for rows without flags
    refused: dict[str, int]  # "field: kind" → number of values; their rows are not among `rows`
    flagged: dict[str, int]
    examples: tuple[str, ...]  # the first refused values, with the ids of their rows


def check_rows(rows: pl.DataFrame, inputs: tuple[Input, ...], *, id_column: str) -> CheckedRows:
    """Split rows by the contract of a model's inputs.

    Parameters
    ----------
    rows
        Rows with a column for each input to check, in which nulls were replaced by defaults.
    inputs
        The inputs of the model's manifest.
    id_column
        Column that identifies a row in the examples.

    Examples
    --------
    >>> distance = Input(name="distance", type="number", maximum=6000)
    >>> found = check_rows(pl.DataFrame({"id": ["a", "b"], "distance": [10.0, 7e3]}), (distance,), id_column="id")
    >>> found.rows["id"].to_list(), found.refused, found.examples
    (['a'], {'distance: range': 1}, ('b: distance: wanted a finite number of at most 6000, found 7000.0',))
    """
    known = tuple(field for field in inputs if field.name in rows.columns)
    refused = refused_values(rows, known)
    accepted = rows
    if refused:
        lost = pl.Series([violation.row for violation in refused], dtype=pl.UInt32).unique()
        accepted = rows.with_row_index("__row").filter(~pl.col("__row").is_in(lost.implode())).drop("__row")
    flagged = flagged_values(accepted, known)
    ids = rows.get_column(id_column)
    return CheckedRows(
        rows=accepted,
        flags=flags_column(flagged, accepted.height),
        refused=_counts(refused),
        flagged=_counts(flagged),
        examples=tuple(
            f"{ids[violation.row]}: {violation.field}: {violation.message}" for violation in refused[:EXAMPLES]
        ),
    )


def refused_values(rows: pl.DataFrame, inputs: Iterable[Input]) -> list[Violation]:
    """The values for which serving would refuse rows; of inputs that the rows have."""
    return _violations(rows, Contract.refusing(inputs))


def flagged_values(rows: pl.DataFrame, inputs: Iterable[Input]) -> list[Violation]:
    """The values for which serving would flag rows; of inputs that the rows have."""
    flagging = Contract.flagging(inputs)
    return _violations(rows, flagging) if flagging is not None else []


def flags_column(flagged: Sequence[Violation], rows: int) -> pl.Series:
    """The column `flags` of so many rows."""
    if not flagged:
        return pl.Series("flags", [None], dtype=FLAGS).new_from_index(0, rows)
    by_row: dict[int, list[Violation]] = {}
    for violation in flagged:
        by_row.setdefault(violation.row, []).append(violation)
    return pl.Series("flags", [flags_value(by_row.get(number, [])) for number in range(rows)], dtype=FLAGS)


def flags_value(violations: Sequence[Violation]) -> list[dict[str, str]] | None:
    """A row's value in a column of type `FLAGS`."""
    return [{"field": flag.field, "kind": flag.kind, "message": flag.message} for flag in violations] or None


def _violations(rows: pl.DataFrame, contract: Contract) -> list[Violation]:
    """Check the distinct values first: nearly always none of them breaks anything."""
    columns = {name: rows.get_column(name) for name in contract.fields}
    columns = {name: values.fill_nan(None) if values.dtype.is_float() else values for name, values in columns.items()}
    few: dict[str, list[Any]] = {name: _telling(values, contract.rules_of(name)) for name, values in columns.items()}
    suspects = {violation.field for violation in contract.check_columns(few)}
    if not suspects:
        return []
    return contract.check_columns({name: columns[name].to_list() if name in suspects else [] for name in columns})


def _telling(values: pl.Series, rules: Set[str]) -> list[Any]:
    """Values that break a contract if any of the column does: all distinct ones, or the ends of a range."""
    if not rules <= {"range", "null"} or not (values.dtype.is_numeric() or rules <= {"null"}):
        return values.unique().to_list()
    nulls = [None] if values.null_count() else []
    has_ends = "range" in rules and values.null_count() < values.len()
    return [*nulls, *([values.min(), values.max()] if has_ends else [])]


def _counts(violations: list[Violation]) -> dict[str, int]:
    return {f"{field}: {kind}": number for (field, kind), number in violations_by_field(violations).items()}
