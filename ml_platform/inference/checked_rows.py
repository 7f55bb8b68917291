"""Checks a table's rows against the contract by which serving checks requests: some are left out, some flagged.

Serving uses the same functions (`ml_platform.registry.input_contract`), so batch scoring scores a row exactly when a
request with its values would be answered.
"""

from collections.abc import Sequence
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
    refused = _violations(rows, Contract.refusing(known))
    accepted = rows
    if refused:
        lost = pl.Series([violation.row for violation in refused], dtype=pl.UInt32).unique()
        accepted = rows.with_row_index("__row").filter(~pl.col("__row").is_in(lost.implode())).drop("__row")
    flagging = Contract.flagging(known)
    flagged = _violations(accepted, flagging) if flagging is not None else []
    by_row: dict[int, list[Violation]] = {}
    for violation in flagged:
        by_row.setdefault(violation.row, []).append(violation)
    flags = [flags_value(by_row.get(number, [])) for number in range(accepted.height)]
    ids = rows.get_column(id_column)
    return CheckedRows(
        rows=accepted,
        flags=pl.Series("flags", flags, dtype=FLAGS),
        refused=_counts(refused),
        flagged=_counts(flagged),
        examples=tuple(
            f"{ids[violation.row]}: {violation.field}: {violation.message}" for violation in refused[:EXAMPLES]
        ),
    )


def flags_value(violations: Sequence[Violation]) -> list[dict[str, str]] | None:
    """A row's value in a column of type `FLAGS`."""
    return [{"field": flag.field, "kind": flag.kind, "message": flag.message} for flag in violations] or None


def _violations(rows: pl.DataFrame, contract: Contract) -> list[Violation]:
    columns: dict[str, list[Any]] = {}
    for name in contract.fields:
        values = rows.get_column(name)
        columns[name] = (values.fill_nan(None) if values.dtype.is_float() else values).to_list()
    return contract.check_columns(columns)


def _counts(violations: list[Violation]) -> dict[str, int]:
    return {f"{field}: {kind}": number for (field, kind), number in violations_by_field(violations).items()}
