"""The rows of a plan: inputs, labels and the parts of the split, by the plain code that the notebooks have too."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.automl.documents import Plan
from ml_platform.automl.plain.rows import binary_labels, class_labels, input_columns, number_labels, read_rows
from ml_platform.automl.plain.splits import split_at_random, split_by_group, split_by_time
from ml_platform.features.training_sets.documents import FeatureInfo, TrainingSetRef
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import Parts, TrainingRows, window
from ml_platform.training.documents import SplitBounds

ID, TIMESTAMP, KNOWN, LABEL = "__row", "__time", "__known", "__label"
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # of rows without a time: they get seconds in their order


@dataclass(frozen=True)
class AutomlRows:
    """All rows of a run.

    Attributes
    ----------
    raw
        Columns of the table, sorted.
    frame
        Inputs, with the columns `ID`, `TIMESTAMP`, `KNOWN` and `LABEL`.
    y
        Labels as numbers (rows,): 0 and 1, the position of a class, or the value itself.
    parts
        Row numbers of train, validation and holdout.
    """

    raw: pl.DataFrame
    frame: pl.DataFrame
    y: np.ndarray
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def before_holdout(self) -> np.ndarray:
        """Row numbers of train and validation, in this order."""
        return np.concatenate(self.parts[:2])


def read_plan_rows(plan: Plan) -> AutomlRows:
    """Read the rows of a plan, as its notebooks do."""
    raw = read_rows(plan.uri, plan.version, plan.target, list(plan.sort_by))
    if plan.classes:
        raw = raw.filter(pl.col(plan.target).cast(pl.String).is_in([str(one) for one in plan.classes]))
    return make_rows(plan, raw)


def make_rows(plan: Plan, raw: pl.DataFrame) -> AutomlRows:
    """Make inputs, labels and parts of sorted rows."""
    labels = raw.get_column(plan.target)
    if plan.task == "binary":
        y = binary_labels(labels, plan.positive)
    elif plan.task == "multiclass":
        y = class_labels(labels, list(plan.classes))
    else:
        y = number_labels(labels)
    learned = np.log1p(y) if plan.log_target else y
    numbers = pl.int_range(raw.height, eager=True)
    at = instants(raw, plan.time) if plan.time else _in_order(raw.height)
    known = instants(raw, plan.known) if plan.known else at
    label = pl.Series(LABEL, labels if plan.task == "multiclass" else learned)
    frame = input_columns(raw, {column.name: column.kind for column in plan.columns}).with_columns(
        numbers.alias(ID), at.alias(TIMESTAMP), known.alias(KNOWN), label.alias(LABEL)
    )
    return AutomlRows(raw, frame, y, split_rows(plan, raw, y))


def _in_order(rows: int) -> pl.Series:
    end = _FIRST + timedelta(seconds=rows)
    return pl.datetime_range(_FIRST, end, "1s", closed="left", time_unit="us", time_zone="UTC", eager=True)


def instants(rows: pl.DataFrame, column: str) -> pl.Series:
    """Read a column of dates or instants as UTC microseconds."""
    values = rows.get_column(column)
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone not in (None, "UTC"):
        values = values.dt.convert_time_zone("UTC")
    elif isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None:
        values = values.dt.replace_time_zone("UTC")
    return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def split_rows(plan: Plan, raw: pl.DataFrame, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide rows as the plan says."""
    split = plan.split
    if split.kind == "time":
        if plan.time is None or split.train_until is None or split.validation_from is None:
            raise ValueError(f"{plan.name}: a split by time wants a column with the time; name it with --time")
        if split.validation_until is None or split.holdout_from is None:
            raise ValueError(f"{plan.name}: a split by time wants the instants of its parts, found {split}")
        at = instants(raw, plan.time)
        known = instants(raw, plan.known) if plan.known else at
        cuts = (split.train_until, split.validation_from, split.validation_until, split.holdout_from)
        return split_by_time(at, known, *cuts)
    validation, holdout = float(split.validation or 0), float(split.holdout or 0)
    if split.kind == "group":
        if plan.group is None:
            raise ValueError(f"{plan.name}: a split by group wants the column of the group; name it with --group")
        return split_by_group(raw.get_column(plan.group), validation, holdout, plan.seed)
    labels = y if split.kind == "stratified" else None
    return split_at_random(labels, raw.height, validation, holdout, plan.seed)


def training_rows(plan: Plan, rows: AutomlRows, spec: ModelSpec) -> TrainingRows:
    """Give the rows as the search takes them."""
    train, validation, holdout = (rows.frame[part] for part in rows.parts)
    bounds = SplitBounds(train=window(train, spec), validation=window(validation, spec), holdout=window(holdout, spec))
    at = rows.frame.get_column(TIMESTAMP)
    ref = TrainingSetRef.model_validate(
        {
            "model": plan.name,
            "table": plan.table,
            "version": plan.version,
            "rows": rows.frame.height,
            "as_of": at.max(),
            "first": at.min(),
            "last": at.max(),
            "tables": {plan.table: plan.version},
            "features": feature_infos(plan),
            "view_hashes": {},
            "label_summary": {},
        }
    )
    return TrainingRows(ref, Parts(train, validation, holdout, bounds))


def feature_infos(plan: Plan) -> tuple[FeatureInfo, ...]:
    """The inputs as columns of the matrix."""
    return tuple(
        FeatureInfo(name=column.name, kind="categorical" if column.kind == "category" else "numeric", source="input")
        for column in plan.columns
    )
