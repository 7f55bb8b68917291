"""The search for leaks before the first trial: a run stops at an input that gives the label."""

import shlex
from collections.abc import Sequence

import polars as pl

from ml_platform.automl.documents import Plan
from ml_platform.automl.frame import KNOWN, LABEL, TIMESTAMP, AutomlRows
from ml_platform.new_model.inputs import DraftInput
from ml_platform.new_model.strong_inputs import find_strong_inputs


class LeakFound(ValueError):
    """Inputs give the label away; the message says which, and what to do."""


def check_leaks(plan: Plan, rows: AutomlRows, inputs: Sequence[DraftInput], allow: Sequence[str]) -> tuple[str, ...]:
    """Look for inputs that know the label.

    Parameters
    ----------
    plan, rows
        As planned; the holdout rows are not looked at.
    inputs
        The inputs with their types.
    allow
        Inputs known to be sound.

    Returns
    -------
    tuple of str
        Inputs that are strong enough to ask about, in sentences.

    Raises
    ------
    LeakFound
        When an input that is not allowed gives the label.
    """
    before = rows.before_holdout
    kinds = {column.name: column.kind for column in plan.columns}
    booleans = [name for name in kinds if rows.raw.schema[name] == pl.Boolean]
    names = {str(one.column): one for one in inputs if one.column in kinds}
    frame = rows.frame[before].with_columns(rows.raw[before].get_column(name) for name in booleans)
    if plan.task == "binary":
        frame = frame.with_columns(pl.col(LABEL).cast(pl.Boolean))
    inputs = [DraftInput(name, one.expression, {**one.keys, "name": name}, one.comment) for name, one in names.items()]
    strong = find_strong_inputs(
        frame.drop(KNOWN), inputs, target=LABEL, task=plan.task, timestamp=TIMESTAMP if plan.time else None
    )
    leaks = {name: reason for name, reason in strong.leaks.items() if name not in allow}
    if leaks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in leaks.items())
        drop = " ".join(f"--drop {shlex.quote(name)}" for name in leaks)
        allowed = " ".join(f"--allow {shlex.quote(name)}" for name in leaks)
        raise LeakFound(
            f"{plan.name}: inputs give the label '{plan.target}' away ({reasons}), so every trial would look perfect "
            f"and fail in use. Not known at the instant of prediction: {drop}. Known, and meant: {allowed}"
        )
    return tuple(
        f"{name} is strong ({reason}): is it known at the instant of prediction?"
        for name, reason in strong.questions.items()
    )
