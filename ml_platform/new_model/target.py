"""From the label column to the task: true or false, one of several classes, or a number."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ml_platform.features.training_sets.label_outliers import outlier_sentences
from ml_platform.features.training_sets.labels import YES_NO
from ml_platform.lake.names import literal
from ml_platform.new_model.table_columns import TableColumn
from ml_platform.spec.promotion import Promotion
from ml_platform.spec.types import Task

FEWEST_LABELS = 100  # with fewer rows neither the search for leaks nor the gate can say anything
MOST_CLASSES = 200
_FEW_NUMBERS = 10  # whole numbers from 0 or 1 on are classes up to this many, else quantities
_RARE = 10  # rows of a class below which it is pointed out
# How texts read that stand for no and for yes.
_NEGATIVE = frozenset(
    {
        "off",
        "nein",
        "nej",
        "nee",
        "não",
        "nao",
        "non",
        "faux",
        "falsch",
        "falso",
        "нет",
        "否",
        "no",
        "n",
        "false",
        "f",
        "negative",
        "neg",
        "benign",
        "good",
        "normal",
        "ok",
        "none",
        "ham",
        "healthy",
        "survived",
        "stayed",
        "retained",
        "existing",
        "active",
        "paid",
        "legit",
        "genuine",
        "pass",
        "passed",
        "alive",
        "<=50k",
    }
)
_POSITIVE = frozenset(
    {
        "on",
        "ja",
        "oui",
        "si",
        "sí",
        "sim",
        "da",
        "tak",
        "wahr",
        "vrai",
        "vero",
        "да",
        "是",
        "yes",
        "y",
        "true",
        "t",
        "positive",
        "pos",
        "malignant",
        "bad",
        "default",
        "late",
        "fail",
        "failed",
        "failure",
        "spam",
        "sick",
        "disease",
        "died",
        "dead",
        "defect",
        "churn",
        "churned",
        "left",
        "lost",
        "attrited",
        "fraud",
        "fraudulent",
        "abnormal",
        "anomaly",
        "cancelled",
        "canceled",
        "returned",
        "won",
        "bought",
        ">50k",
    }
)


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes
    ----------
    column
        Label column of the table.
    task
        The task.
    expression
        SQL of the label.
    comment
        What stands beside it in the query.
    notes
        What the model's owner should know, in sentences.
    """

    column: str
    task: Task
    expression: str
    comment: str
    notes: tuple[str, ...] = ()


def guess_target(
    name: str, columns: Mapping[str, TableColumn], labels: pl.Series, *, table: str, task: Task | None = None
) -> Target:
    """Guess the task from the label column.

    Parameters
    ----------
    name
        Of the label column.
    columns
        Those of the table.
    labels
        Values of the column, as the table has them.
    table
        For messages.
    task
        Known already; guessed when None.

    Raises
    ------
    ValueError
        When there are too few labels, only one, one for each row, or too many classes; or the column has none.
    """
    column, where = columns[name], f"target '{name}' of {table}"
    labelled = column.rows - column.nulls
    if labelled < FEWEST_LABELS:
        raise ValueError(
            f"{where}: {labelled:,} of {column.rows:,} rows have a label, at least {FEWEST_LABELS} are needed to train "
            "and to judge a model; give more rows"
        )
    if column.kind in {"date", "timestamp", "other"}:
        raise ValueError(
            f"{where} is a {labels.dtype}, which is no label; make a number or a class of it in a view or a copy of "
            "the table (date_diff('day', start, finish))"
        )
    if column.distinct < 2:
        raise ValueError(
            f"{where} has the same value in all rows that have one ({labels.drop_nulls()[0]!r}): there is nothing to "
            "learn; name another column, or add the rows with other values"
        )
    if column.kind == "string" and (twins := _differ_in_blanks(labels)):
        raise ValueError(
            f"{where} has classes that differ only in blanks around them: {twins}; trim them in the file, or in a view "
            "or a copy of the table, so that they are one class"
        )
    guessed = task or _task(column, where)
    notes = []
    if column.nulls:
        notes.append(
            f"{column.nulls:,} of {column.rows:,} rows have no label in '{name}': they are not trained on, and can be "
            "scored."
        )
    if guessed == "multiclass" and column.distinct > MOST_CLASSES:
        raise ValueError(
            f"{where} has {column.distinct:,} distinct values, a multiclass task takes up to {MOST_CLASSES} here; put "
            "rare ones together, or predict a number (--task regression)"
        )
    if guessed == "regression":
        if column.kind not in {"integer", "number"}:
            raise ValueError(f"{where} is a {column.kind}; a regression predicts numbers")
        expression = column.expression
        if column.kind == "number":
            expression = f"CASE WHEN isfinite({expression}) THEN {expression} END"
        comment = "the label, a number" + _unlike_classes(column)
        numbers = labels.cast(pl.Float64, strict=False)
        said = outlier_sentences(numbers, lambda place: f"row {place + 1:,} of those that were read")
        notes += [f"Outlier: {one}. Is that right?" for one in said]
        return Target(name, guessed, expression, comment, tuple(notes))
    notes += _rare_classes(labels, name)
    if guessed == "multiclass":
        return Target(name, guessed, column.expression, "the label, one of several classes", tuple(notes))
    if column.distinct != 2:
        raise ValueError(f"{where} has {column.distinct:,} distinct values, a binary task wants two")
    return Target(name, guessed, *_binary(column, labels), tuple(notes))


def _task(column: TableColumn, where: str) -> Task:
    if column.kind == "boolean" or column.distinct == 2:
        return "binary"
    if column.kind == "string":
        if column.is_unique:
            raise ValueError(f"{where} has another text in each row, as a name or an id has; name another column")
        return "multiclass"
    if column.counts_rows:
        raise ValueError(f"{where} counts the rows: it is an id, not a label; name another column")
    return "multiclass" if _looks_like_classes(column) else "regression"


def _differ_in_blanks(labels: pl.Series) -> str:
    """The first values that are the same once trimmed, in words; empty where there are none."""
    values = labels.drop_nulls().cast(pl.String).unique().sort().alias("value").to_frame()
    same = values.group_by(pl.col("value").str.strip_chars().alias("trimmed"), maintain_order=True).agg("value")
    return next((" and ".join(map(repr, twins[:3])) for twins in same["value"].to_list() if len(twins) > 1), "")


def _looks_like_classes(column: TableColumn) -> bool:
    few = column.kind == "integer" and column.values is not None and column.distinct <= _FEW_NUMBERS
    return few and column.values in {tuple(range(first, first + column.distinct)) for first in (0, 1)}


def _unlike_classes(column: TableColumn) -> str:
    few = column.kind == "integer" and column.distinct <= 2 * _FEW_NUMBERS
    return f"; if its {column.distinct} values are classes, say task: multiclass" if few else ""


def _rare_classes(labels: pl.Series, name: str) -> list[str]:
    counts = labels.drop_nulls().alias("value").value_counts(name="rows").filter(pl.col("rows") < _RARE)
    if counts.is_empty():
        return []
    listed = ", ".join(f"{value!r} ({rows})" for value, rows in counts.sort("rows").head(5).rows())
    wanted = Promotion().min_class_rows
    others = labels.drop_nulls().value_counts(sort=True)["count"][1:].sum()
    if others < wanted:
        return [
            f"Only {others} rows are of another class than the most frequent ({listed}): the gate wants "
            f"{wanted} in the holdout alone (promotion.min_class_rows), so it will release nothing. Gather more rows."
        ]
    return [f"Classes of '{name}' with fewer than {_RARE} rows can hardly be learned: {listed}."]


def _binary(column: TableColumn, labels: pl.Series) -> tuple[str, str]:
    """SQL and comment of a label with two values."""
    if column.kind == "boolean":
        return column.expression, "the label: true or false"
    known = sorted(labels.drop_nulls().unique().to_list())
    if column.kind == "string":
        plain = {str(value).strip().lower() for value in known}
        pair = next((pair for pair in YES_NO if plain == set(pair)), None)
        if pair is not None and len(plain) == 2:
            return column.expression, f"the label: true is {pair[0]!r}, in any case"
        positive, why = _positive(known, labels)
        return f"{column.expression} = {literal(positive)}", f"the label: true is {positive!r}, {why}"
    if column.minimum == 0 and column.maximum == 1:
        return column.expression, "the label: true is 1"
    high = column.maximum
    return f"{column.expression} = {high}", f"the label: true is {high}, the larger of {column.minimum} and {high}"


def _positive(values: list[str], labels: pl.Series) -> tuple[str, str]:
    """The text that stands for true, and why it was taken."""
    negative = [value for value in values if _is_negative(value)]
    if len(negative) == 1:
        return next(value for value in values if value not in negative), f"since {negative[0]!r} reads as a no"
    positive = [value for value in values if value.strip().lower() in _POSITIVE]
    if len(positive) == 1:
        return positive[0], "as it reads as a yes"
    rare = labels.drop_nulls().value_counts(sort=True)[labels.name][-1]
    return str(rare), "the rarer of the two; the other one if you mean that"


def _is_negative(value: str) -> bool:
    words = value.strip().lower().rstrip(".")
    return words in _NEGATIVE or words.startswith(("no ", "not ", "non-", "no_", "not_"))
