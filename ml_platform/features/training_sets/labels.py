"""Labels as a spine gives them → labels that mean one thing: yes/no words as booleans, classes as integers or texts."""

import polars as pl

from ml_platform.lake.exact_casts import cast_exactly, first_lost, is_text, shown
from ml_platform.spec.types import Task

_MOST_SHOWN = 5
_WANTED: dict[Task, str] = {
    "binary": "true/false or 0/1",
    "multiclass": "texts, whole numbers or booleans",
    "regression": "numbers",
}
YES_NO = (("yes", "no"), ("true", "false"), ("y", "n"), ("t", "f"), ("1", "0"))


def plain_labels(labels: pl.Series, task: Task, target: str) -> pl.Series:
    """Read the labels of a task; nulls stay null.

    Binary labels may be words of one of the pairs `YES_NO`, in any case. Whole numbers stand for the classes of a
    multiclass target as integers, whatever type they are stored as.

    Raises
    ------
    ValueError
        If a label cannot be told for certain: numbers but 0 and 1 or other words as true and false, two pairs of
        words, fractions as classes, text as numbers, numbers that are not finite. The message counts what was found.

    Examples
    --------
    >>> plain_labels(pl.Series(["Yes", "no", None]), "binary", "late").to_list()
    [True, False, None]
    >>> plain_labels(pl.Series([3.0, 1.0, None]), "multiclass", "gate").to_list()
    [3, 1, None]
    >>> plain_labels(pl.Series([1, 2, 2]), "binary", "late")
    Traceback (most recent call last):
    ValueError: target 'late': a binary task wants true/false or 0/1, found 2 (2 rows), 1 (1 row); say in the ...
    """
    dtype = labels.dtype
    if is_text(dtype):
        words = labels.cast(pl.String)
        if task == "multiclass":
            return labels
        if task == "binary":
            return _yes_no(words, target)
    numeric = dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}
    if not numeric:
        raise ValueError(
            f"target '{target}': a {task} task wants {_WANTED[task]}, found {_counted(labels)} of type {dtype}; cast "
            "it in the spine's query, or change the task"
        )
    if task == "multiclass" and (dtype.is_float() or dtype.is_decimal()):
        whole = cast_exactly(labels, pl.Int64)
        if first_lost(labels, whole) is not None:
            lost = labels.filter(labels.is_not_null() & whole.is_null())
            raise ValueError(
                f"target '{target}': the classes of a multiclass task are {_WANTED[task]}, found {_counted(lost)}; "
                "name the classes in the spine's query, or make it a regression"
            )
        return whole
    if task == "binary" and dtype != pl.Boolean:
        if not ((labels == 0) | (labels == 1)).all():
            raise _ambiguous(labels, target, "true/false or 0/1")
    elif dtype.is_float() and not labels.is_finite().all():
        lost = labels.filter(~labels.is_finite())
        raise ValueError(
            f"target '{target}': a {task} task wants finite numbers, found {_counted(lost)} among {labels.len():,} "
            f"rows; make them NULL in the spine's query (CASE WHEN isfinite({target}) THEN {target} END), or leave "
            "them out"
        )
    return labels


def _yes_no(words: pl.Series, target: str) -> pl.Series:
    plain = words.str.strip_chars().str.to_lowercase()
    distinct = set(plain.drop_nulls().unique())
    for yes, no in YES_NO:
        if distinct <= {yes, no}:
            return (plain == yes).alias(words.name)
    pairs = ", ".join("/".join(pair) for pair in YES_NO)
    raise _ambiguous(words, target, f"true/false, 0/1, or words of one pair ({pairs})")


def _ambiguous(labels: pl.Series, target: str, wanted: str) -> ValueError:
    values = sorted(labels.drop_nulls().unique().to_list())
    example = "…" if len(values) != 2 else repr(values[1])
    return ValueError(
        f"target '{target}': a binary task wants {wanted}, found {_counted(labels)}; say in the spine's query what is "
        f"true ({target} = {example}), with NULL where it is not known"
    )


def _counted(labels: pl.Series) -> str:
    """The most frequent values, each with its number of rows."""
    if labels.dtype.is_nested():
        return f"{labels.drop_nulls().len():,} values"
    counts = (
        labels.drop_nulls().alias("value").value_counts(name="rows").sort("rows", "value", descending=[True, False])
    )
    shown_ = [
        f"{shown(counts['value'], place)} ({rows:,} {'row' if rows == 1 else 'rows'})"
        for place, rows in enumerate(counts["rows"].head(_MOST_SHOWN))
    ]
    more = counts.height - len(shown_)
    return ", ".join(shown_) + (f" and {more:,} other values" if more else "")
