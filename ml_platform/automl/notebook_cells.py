"""Cells that notebooks share, as `py:percent` text: settings, reading the table, dividing its rows."""

import inspect
from collections.abc import Callable, Sequence
from pprint import pformat

from ml_platform.automl.documents import Plan
from ml_platform.automl.plain import rows, splits

PlainFunction = Callable[..., object]


def source_of(*functions: Callable[..., object]) -> str:
    """Give the source of functions, as they stand here."""
    return "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)


def table_cell(text: str) -> str:
    """Escape a text for a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def markdown_cell(text: str) -> str:
    """Write a cell of text."""
    lines = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"# %% [markdown]\n{lines}"


def code_cell(*parts: str, tags: Sequence[str] = ()) -> str:
    """Write a cell of code, of parts with blank lines between them."""
    head = f"# %% tags=[{', '.join(f'{chr(34)}{tag}{chr(34)}' for tag in tags)}]" if tags else "# %%"
    return head + "\n" + "\n\n\n".join(parts)


def join_cells(cells: Sequence[str]) -> str:
    """Join cells to a notebook as `py:percent` text."""
    return "\n\n".join(cells) + "\n"


def import_lines() -> str:
    """Imports of every notebook."""
    return (
        "from datetime import UTC, datetime\nfrom typing import Any\n\n"
        "import matplotlib.pyplot as plt\nimport numpy as np\nimport polars as pl"
    )


def setting_lines(plan: Plan) -> str:
    """What a reader may change: table, version, inputs, seed."""
    kinds = {column.name: str(column.kind) for column in plan.columns}
    lines = [
        f"URI = {plan.uri!r}",
        f"VERSION = {plan.version}",
        f"TARGET = {plan.target!r}",
        f"SORT_BY = {pformat(list(plan.sort_by), width=100, compact=True)}",
        f"SEED = {plan.seed}",
        f"INPUTS = {pformat(kinds, width=100, sort_dicts=False)}",
    ]
    if plan.classes:
        lines.append(f"CLASSES = {pformat(list(plan.classes), width=100, compact=True)}")
    return "\n".join(lines)


def label_function(plan: Plan) -> PlainFunction:
    """The function that reads labels of the task."""
    if plan.task == "binary":
        return rows.binary_labels
    return rows.class_labels if plan.task == "multiclass" else rows.number_labels


def reading_lines(plan: Plan) -> str:
    """Read rows, labels and inputs."""
    call = {
        "binary": f"binary_labels(rows[TARGET], {plan.positive!r})",
        "multiclass": "class_labels(rows[TARGET], CLASSES)",
        "regression": "number_labels(rows[TARGET])",
    }[plan.task]
    only = (
        "rows = rows.filter(pl.col(TARGET).cast(pl.String).is_in([str(one) for one in CLASSES]))\n"
        if plan.classes
        else ""
    )
    return (
        f"rows = read_rows(URI, VERSION, TARGET, SORT_BY)\n{only}y = {call}\ninputs = input_columns(rows, INPUTS)\n"
        "inputs.head()"
    )


def split_function(plan: Plan) -> PlainFunction:
    """The function that divides rows as the plan does."""
    if plan.split.kind == "time":
        return splits.split_by_time
    return splits.split_by_group if plan.split.kind == "group" else splits.split_at_random


def split_lines(plan: Plan) -> str:
    """Divide the rows."""
    split, parts = plan.split, "train, validation, holdout"
    sizes = '\nprint(f"{len(train):,} rows to train, {len(validation):,} to validate, {len(holdout):,} held out")'
    if split.kind == "time":
        known = f"{instant_column('rows', plan.known)}" if plan.known else "times"
        cuts = [split.train_until, split.validation_from, split.validation_until, split.holdout_from]
        lines = ",\n".join(f"    {_instant(cut)}" for cut in cuts)
        return (
            f"times = {instant_column('rows', plan.time)}\nknown = {known}\n"
            f"{parts} = split_by_time(\n    times,\n    known,\n{lines},\n){sizes}"
        )
    if split.kind == "group":
        return f"{parts} = split_by_group(rows[{plan.group!r}], {split.validation}, {split.holdout}, SEED){sizes}"
    labels = "y" if split.kind == "stratified" else "None"
    return f"{parts} = split_at_random({labels}, len(rows), {split.validation}, {split.holdout}, SEED){sizes}"


def instant_column(frame: str, column: str | None) -> str:
    """Expression of a column of instants in UTC."""
    return f"{frame}[{column!r}].cast(pl.Datetime('us')).dt.replace_time_zone('UTC')"


def _instant(value: object) -> str:
    return f"datetime.fromisoformat({value.isoformat()!r})" if hasattr(value, "isoformat") else repr(value)


def split_words(plan: Plan) -> str:
    """Why rows are divided as they are."""
    return next((f"{one.value}: {one.why}." for one in plan.decisions if one.what == "split"), plan.split.kind)
