"""Which columns a request brings, and what is declared of each: types, required, ranges, the values there are."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_platform.lake.sources.source_spec import ColumnSpec
from ml_platform.new_model.row_identity import Instant, RowId
from ml_platform.new_model.table_columns import MOST_VALUES, TableColumn, free_name
from ml_platform.spec.model import SCORE_COLUMNS

_MOST_ALLOWED = 20
_ROWS_FOR_EACH = 10  # of the values that are listed as the only ones
_FREE_TEXT = 0.5  # share of distinct texts from which they are no categories
_FREE_TEXT_VALUES = 50


@dataclass(frozen=True)
class DraftInput:
    """One field of a request, as it is written down.

    Attributes
    ----------
    column
        Column of the table; None for what the query makes.
    expression
        SQL of its values.
    keys
        What `inputs` in `defs.yaml` has for it, in order.
    comment
        What stands beside it; empty for nothing.
    """

    column: str | None
    expression: str
    keys: dict[str, Any]
    comment: str = ""

    @property
    def name(self) -> str:
        """Name of the field, and of the spine's column."""
        return str(self.keys["name"])


@dataclass(frozen=True)
class DraftInputs:
    """The features, and the columns that are none."""

    features: tuple[DraftInput, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # column → why


def choose_inputs(
    columns: Mapping[str, TableColumn],
    *,
    target: str,
    row_id: RowId,
    instant: Instant,
    contract: Mapping[str, ColumnSpec] | None = None,
) -> DraftInputs:
    """Choose the columns that a model can learn from, and write down what their values keep.

    What is guessed from values is only flagged when a request breaks it, since tomorrow's values may be others. What
    the table's contract says is kept as it is.

    Parameters
    ----------
    columns
        Those of the table.
    target
        The label column.
    row_id, instant
        What identifies a row, and when it is.
    contract
        The table's contract, column by column, where it is declared in YAML.

    Raises
    ------
    ValueError
        When no column is left.
    """
    left_out: dict[str, str] = {}
    features: list[DraftInput] = []
    used_names = {*columns, row_id.name, instant.name, instant.known_name}
    for name, column in columns.items():
        if name in {target, *instant.columns} or (name == row_id.name and name in row_id.columns):
            continue
        if (reason := _why_not(column, instant)) is not None:
            left_out[name] = reason
            continue
        own = name if name not in SCORE_COLUMNS else free_name(f"{name}_input", used_names)
        used_names.add(own)
        features.append(_input(column, own, (contract or {}).get(name)))
    if not features:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or (
            "no other column is there but those that say which row it is, and when"
        )
        raise ValueError(f"no column is left to predict '{target}' from ({reasons})")
    return DraftInputs(tuple(features), left_out)


def leave_out(chosen: DraftInputs, names: Collection[str], why: str) -> DraftInputs:
    """Take columns out of the features (raises ValueError when none is left)."""
    features = tuple(one for one in chosen.features if one.column not in names)
    if not features:
        raise ValueError(f"no column is left to predict from, since {', '.join(sorted(names))} are left out ({why})")
    return DraftInputs(features, {**chosen.left_out, **dict.fromkeys(names, why)})


def identity_inputs(row_id: RowId, instant: Instant) -> list[DraftInput]:
    """The fields that say which row it is and when; no features."""
    fields = [
        DraftInput(
            row_id.columns[0] if row_id.columns else None,
            row_id.expression,
            {"name": row_id.name, "type": row_id.type, "feature": False, "required": False},
            "your own id of the row, echoed and logged",
        )
    ]
    if not instant.is_drawn:
        keys = {"name": instant.name, "type": "timestamp", "feature": False, "required": False}
        fields.append(DraftInput(instant.columns[0], instant.expression, keys, "the present when it is left out"))
    return fields


def _why_not(column: TableColumn, instant: Instant) -> str | None:
    """Why a column is no feature; None if it can be one."""
    is_text = column.kind == "string"
    span = "years since then" if instant.is_drawn else f"time until {instant.name}"
    reasons = {
        "of a type that no request has": column.kind == "other",
        "always missing": not column.distinct,
        "the same in every row": column.distinct == 1 and not column.nulls,
        f"a date is no feature as it is: make a number of it in the query, such as the {span}": (
            column.kind in {"date", "timestamp"}
        ),
        "counts the rows": column.counts_rows,
        "another text in every row, as ids have": is_text and column.is_unique,
        "texts that are nearly all different": (
            is_text and column.distinct > max(_FREE_TEXT_VALUES, _FREE_TEXT * column.rows)
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _input(column: TableColumn, name: str, contract: ColumnSpec | None) -> DraftInput:
    keys: dict[str, Any] = {"name": name, "type": column.kind}
    if column.nulls:
        keys["required"] = False
    declared = _declared(contract, column) if contract is not None else {}
    guessed, comment = ({}, "") if set(declared) & {"minimum", "maximum", "allowed"} else _guessed_rule(column)
    keys |= declared | guessed
    if guessed:
        keys["on_violation"] = "flag"
    if name != column.name:
        comment = _joined(comment, f"'{column.name}' in the table, a name that scores have")
    if column.is_cast:
        comment = _joined(comment, "texts in the table")
    return DraftInput(column.name, column.expression, keys, comment)


def _declared(contract: ColumnSpec, column: TableColumn) -> dict[str, Any]:
    """What the contract says and an input can say, too."""
    said = contract.model_dump(include={"minimum", "maximum", "allowed", "description", "unit"}, exclude_none=True)
    if column.kind not in {"integer", "number"}:
        said = {key: value for key, value in said.items() if key not in {"minimum", "maximum"}}
    for key in {"minimum", "maximum"} & set(said):
        said[key] = _plain(said[key])
    if "allowed" in said:
        said["allowed"] = list(said["allowed"])
    return {key: value for key, value in said.items() if value not in ("", None)}


def _guessed_rule(column: TableColumn) -> tuple[dict[str, Any], str]:
    """A rule that all values keep, and what they are."""
    if column.kind == "string" and column.values is not None:
        if len(column.values) <= _MOST_ALLOWED and column.rows >= _ROWS_FOR_EACH * len(column.values):
            return {"allowed": list(column.values)}, ""
        return {}, f"{len(column.values)} values"
    if column.kind == "string":
        return {}, f"{column.distinct:,} values"
    low, high = column.minimum, column.maximum
    if (
        column.kind not in {"integer", "number"}
        or not isinstance(low, int | float)
        or not isinstance(high, int | float)
    ):
        return {}, ""
    if column.values is not None and column.distinct > 1 and high - low == column.distinct - 1 <= MOST_VALUES:
        return {"minimum": low, "maximum": high}, ""
    return ({"minimum": 0} if low >= 0 else {}), f"{_shown(low)} to {_shown(high)}"


def _plain(bound: float) -> float | int:
    return int(bound) if float(bound).is_integer() else bound


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def names_of(inputs: Iterable[DraftInput]) -> list[str]:
    """Names of some inputs, in order."""
    return [one.name for one in inputs]
