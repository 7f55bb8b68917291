"""Labels as a spine gives them → labels that mean one thing: yes/no words as booleans, classes as integers or texts."""

import polars as pl

from ml_platform.lake.exact_casts import cast_exactly, first_lost, is_text, shown
from ml_platform.spec import Task

YES_NO = (("yes", "no"), ("true", "false"), ("y", "n"), ("t", "f"), ("1", "0"))


def plain_labels(labels: pl.Series, task: Task, target: str) -> pl.Series:
    """Read the labels of a task; nulls stay null.

    Binary labels may be words of one of the pairs `YES_NO`, in any case. Whole numbers stand for the classes of a
    multiclass target as integers, whatever type they are stored as.

    Raises
    ------
    ValueError
        If a label cannot be told for certain: other words, two pairs of them, fractions as classes, text as numbers.

    Examples
    --------
    >>> plain_labels(pl.Series(["Yes", "no", None]), "binary", "late").to_list()
    [True, False, None]
    >>> plain_labels(pl.Series([3.0, 1.0, None]), "multiclass", "gate").to_list()
    [3, 1, None]
    """
    dtype = labels.dtype
    if is_text(dtype) and task == "binary":
        return _yes_no(labels.cast(pl.String), target)
    if task == "multiclass" and (dtype.is_float() or dtype.is_decimal()):
        whole = cast_exactly(labels, pl.Int64)
        if (lost := first_lost(labels, whole)) is not None:
            raise ValueError(
                f"target '{target}': the classes of a multiclass task are texts, whole numbers or booleans, found "
                f"{shown(labels, lost)}; name the classes in the spine's query, or make it a regression"
            )
        return whole
    if task != "multiclass" and not (dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}):
        wanted = "true/false or 0/1" if task == "binary" else "numbers"
        example = labels.drop_nulls().head(1)
        found = f", e.g. {shown(example, 0)}" if len(example) else ""
        raise ValueError(
            f"target '{target}': a {task} task wants {wanted}, found {dtype}{found}; cast it in the spine's query, or "
            "change the task"
        )
    return labels


def _yes_no(words: pl.Series, target: str) -> pl.Series:
    plain = words.str.strip_chars().str.to_lowercase()
    found = set(plain.drop_nulls().unique())
    for yes, no in YES_NO:
        if found <= {yes, no}:
            return (plain == yes).alias(words.name)
    examples = ", ".join(repr(word) for word in words.drop_nulls().unique().sort().head(5))
    pairs = ", ".join("/".join(pair) for pair in YES_NO)
    raise ValueError(
        f"target '{target}': a binary task wants true/false, 0/1, or words of one pair ({pairs}), found {examples}; "
        f"say in the spine's query what is true ({target} = '…'), with NULL where it is not known"
    )
