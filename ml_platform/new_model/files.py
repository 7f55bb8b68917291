"""Writes a draft down: `defs.yaml` and `spine.sql`, with what was guessed and what is to be asked as comments."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import yaml

from ml_platform.lake.names import quoted, sql_name
from ml_platform.new_model.inputs import DraftInput
from ml_platform.new_model.row_identity import Instant, RowId
from ml_platform.new_model.split_size import DraftSplit
from ml_platform.new_model.strong_inputs import StrongInputs
from ml_platform.new_model.target import Target
from ml_platform.printable import plain
from ml_platform.spec.types import Task

COMPONENT = "ml_platform.orchestration.TabularModel"
_LABEL_KNOWN = "from when the label is known: say when, if that is later"
QUESTION = "known at the instant of prediction?"
_OWN = re.compile(r"(row_id|event_time|label_available_at)(_\d+)?")  # names that were made here need no quotes
_FAMILIES: dict[Task, str] = {
    "binary": "logistic_regression, lightgbm",
    "multiclass": "logistic_regression, lightgbm",
    "regression": "ridge, lightgbm",
}


def spine_sql(
    table: str,
    row_id: RowId,
    instant: Instant,
    inputs: Sequence[DraftInput],
    target: Target,
    *,
    leaks: Container[str] = (),
) -> str:
    """Write the query of the spine.

    Parameters
    ----------
    table
        Table of the lake.
    row_id, instant, inputs, target
        What it gives.
    leaks
        Inputs that the query does not give.
    """
    schema, name = table.split("/", 1)
    plainly = schema.isidentifier() and name.isidentifier() and name.islower()
    source = f"{schema}.{name}" if plainly else ".".join(sql_name(table))
    given = [one for one in inputs if one.name not in leaks]
    lines = [
        _selected(row_id.expression, row_id.name, row_id.comment),
        _selected(instant.expression, instant.name, instant.comment),
        _selected(instant.name, instant.known_name, "" if instant.is_drawn else _LABEL_KNOWN),
        *(_selected(one.expression, one.name) for one in given),
        _selected(target.expression, target.column, target.comment),
    ]
    body = ",\n".join(f"    -- {plain(note)}\n    {code}" if note else f"    {code}" for code, note in lines)
    text = f"-- One row for each thing to predict, from {table}.\n"
    if row_id.row_hash is not None:
        columns = ", ".join(quoted(one.column) for one in given if one.column is not None)
        text += f"WITH hashed AS (\n    SELECT *, md5(row({columns})::VARCHAR) AS {row_id.row_hash} FROM {source}\n)\n"
        source = "hashed"
    return f"{text}SELECT\n{body}\nFROM {source}\n"


def defs_yaml(
    name: str,
    table: str,
    owner: str,
    *,
    row_id: RowId,
    instant: Instant,
    identity: Sequence[DraftInput],
    inputs: Sequence[DraftInput],
    left_out: Mapping[str, str],
    target: Target,
    strong: StrongInputs,
    split: DraftSplit,
    lookups: Sequence[str],
    metric: str | None = None,
    trials: int | None = None,
) -> str:
    """Write the model's declaration."""
    promotion = {**({"metric": metric} if metric else {}), **split.promotion}
    return (
        "\n".join(
            [
                f"type: {COMPONENT}",
                "attributes:",
                f"  name: {name}",
                f"  description: {_value(f'Predicts {target.column} from {table}.')}",
                f"  owner: {_value(owner)}",
                f"  task: {target.task}",
                f"  target: {_value(target.column)}",
                "  spine: spine.sql",
                f"  id: {_value(row_id.name)}",
                f"  timestamp: {instant.name}",
                f"  label_available_at: {instant.known_name}",
                "  # Types, ranges and values are those of the table. A value that breaks a guessed rule is answered",
                "  # with a flag; where you know better, correct the rule and drop on_violation: then it is refused.",
                "  inputs:",
                *_inputs(identity, inputs, strong),
                *(f"    # {plain(column)} is left out: {plain(why)}" for column, why in left_out.items()),
                *_lookups(lookups),
                f"  families: [{_FAMILIES[target.task]}]",
                *(["  calibration: platt # probabilities that are what they say"] if target.task == "binary" else []),
                *([f"  tuning: {_value({'trials': trials})}"] if trials else []),
                *([f"  split: {_value(split.split)}"] if split.split else []),
                *([f"  promotion: {_value(promotion)}"] if promotion else []),
                *_scoring(split, instant),
            ]
        )
        + "\n"
    )


def _inputs(identity: Sequence[DraftInput], inputs: Sequence[DraftInput], strong: StrongInputs) -> Iterator[str]:
    for one in (*identity, *inputs):
        if one.name in strong.leaks:
            continue
        question = f"{strong.questions[one.name]}: {QUESTION}" if one.name in strong.questions else ""
        comment = "; ".join(part for part in (one.comment, question) if part)
        yield f"    - {_value(one.keys)}" + (f" # {plain(comment)}" if comment else "")
    for reason in dict.fromkeys(strong.leaks.values()):
        leaking = [one for one in inputs if strong.leaks.get(one.name) == reason]
        names = ", ".join(_value(one.name) for one in leaking)
        yield f"    # Left out: {plain(reason)}."
        yield f"    # {QUESTION.capitalize()} If so, add to spine.sql and here, and say leakage: {{allow: [{names}]}}"
        yield from (f"    # - {_value(one.keys)}" for one in leaking)


def _lookups(lookups: Sequence[str]) -> Iterator[str]:
    yield "  lookups: []"
    if lookups:
        yield "  # Feature views with keys that the table has; to use one, move it up: lookups: [{view: …}]"
        yield from (f"  # - {one}" for one in lookups)


def _scoring(split: DraftSplit, instant: Instant) -> Iterator[str]:
    days = {"start": split.first_day, **({"end": split.last_day} if split.last_day else {})}
    if instant.is_drawn:
        comment = " # the days over which rows are spread"
    else:
        comment = " # the table's days; leave end out when rows come every day" if split.last_day else ""
    yield f"  scoring: {_value(days)}{comment}"


def _value(value: Any) -> str:
    """Write a value in one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"), explicit_end=False
    )
    return str(text).removesuffix("\n").removesuffix("\n...").strip()


def _selected(expression: str, name: str, comment: str = "") -> tuple[str, str]:
    own = name if _OWN.fullmatch(name) else quoted(name)
    return (expression if expression == own else f"{expression} AS {own}"), comment
