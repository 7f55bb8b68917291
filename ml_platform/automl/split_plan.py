"""How long the parts of a split are, and which classes are in all of them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from ml_platform.automl.documents import Decision, Plan, SplitPlan
from ml_platform.automl.frame import instants, split_rows
from ml_platform.automl.options import VALIDATION_SHARE, AutomlOptions
from ml_platform.automl.plain.rows import binary_labels, class_labels, number_labels

_FEWEST_PART_ROWS = 20
_FEWEST_ROWS = 100  # before the holdout


def fit_split(plan: Plan, labelled: pl.DataFrame, options: AutomlOptions) -> Plan:
    """Size the split, and leave classes out that are not in all of its parts (raises ValueError)."""
    if labelled.schema[plan.target].is_float():
        labelled = labelled.filter(pl.col(plan.target).is_finite())
    labelled = labelled.sort(list(plan.sort_by), maintain_order=True)
    classes, lost = list(plan.classes), list[str]()
    while True:
        if classes:
            labelled = labelled.filter(pl.col(plan.target).cast(pl.String).is_in([str(one) for one in classes]))
        plan = plan.model_copy(update={"classes": tuple(classes), "rows": labelled.height})
        plan = plan.model_copy(update={"split": _sized(plan, labelled, options)})
        y = encoded_labels(plan, labelled)
        parts = split_rows(plan, labelled, y)
        names = ("training", "validation", "holdout")
        for name, part in zip(names, parts, strict=True):
            if len(part) < _FEWEST_PART_ROWS:
                raise ValueError(
                    f"{plan.name}: {len(part)} rows are left for the {name} part, at least {_FEWEST_PART_ROWS} are "
                    "needed; give more rows, or another --holdout or --split"
                )
        if (before := len(parts[0]) + len(parts[1])) < _FEWEST_ROWS:
            raise ValueError(f"{plan.name}: {before} rows are before the holdout, at least {_FEWEST_ROWS} are needed")
        if plan.task == "regression":
            return _told(plan, labelled, parts, lost)
        present = set.intersection(*(set(np.unique(y[part]).astype(int).tolist()) for part in parts))
        if plan.task == "binary" and len(present) < 2:
            raise ValueError(
                f"{plan.name}: a part of the split by {plan.split.kind} has a single class of '{plan.target}'; give "
                "more rows, or another --holdout or --split"
            )
        if plan.task == "binary" or len(present) == len(classes):
            return _told(plan, labelled, parts, lost)
        lost += [str(one) for number, one in enumerate(classes) if number not in present]
        classes = [one for number, one in enumerate(classes) if number in present]
        if len(classes) < 2:
            raise ValueError(f"{plan.name}: no two classes are in all parts of the split; choose another --split")


def encoded_labels(plan: Plan, labelled: pl.DataFrame) -> np.ndarray:
    """Labels of rows as numbers (rows,), before any transformation."""
    labels = labelled.get_column(plan.target)
    if plan.task == "binary":
        return binary_labels(labels, plan.positive)
    return class_labels(labels, list(plan.classes)) if plan.task == "multiclass" else number_labels(labels)


def _told(plan: Plan, labelled: pl.DataFrame, parts: tuple[np.ndarray, ...], lost: Sequence[str]) -> Plan:
    sizes = " / ".join(f"{len(part):,}" for part in parts)
    value = f"{sizes} rows train, are validated on, are held out"
    if plan.split.kind == "time" and plan.split.holdout_from is not None:
        value += f"; holdout after {plan.split.holdout_from:%Y-%m-%d %H:%M}"
    made = [Decision(what="parts", value=value, why=f"of {labelled.height:,} labelled rows", option="--holdout")]
    if lost:
        made.append(Decision(what="classes", value=f"left out: {', '.join(lost)}", why="not in all parts of the split"))
    return plan.model_copy(update={"decisions": (*plan.decisions, *made)})


def _sized(plan: Plan, labelled: pl.DataFrame, options: AutomlOptions) -> SplitPlan:
    holdout, kind = options.holdout_share, plan.split.kind
    if kind != "time":
        if options.holdout_start is not None:
            raise ValueError("--holdout names a day, which only a split by time has; give a share (0.2), or --time")
        return SplitPlan(kind=kind, validation=VALIDATION_SHARE, holdout=holdout)
    at = instants(labelled, str(plan.time)).sort()
    start = options.holdout_start
    last = start - timedelta(microseconds=1) if start is not None else _instant_at(at, 1 - holdout)
    before = at.filter(at <= last)
    if before.is_empty():
        raise ValueError(f"{plan.name}: no row is before the holdout, which begins after {last}; the first is {at[0]}")
    middle = _instant_at(before, 1 - VALIDATION_SHARE / (1 - holdout))
    return SplitPlan(
        kind="time", train_until=middle, validation_from=middle, validation_until=last, holdout_from=last
    )  # fmt: skip


def _instant_at(sorted_instants: pl.Series, share: float) -> Any:
    return sorted_instants[min(int(share * len(sorted_instants)), len(sorted_instants) - 1)]
