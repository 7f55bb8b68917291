"""From a table to a plan: types, task, metric, split and inputs, each decision with its reason and its option."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from ml_platform.automl.documents import ColumnKind, Decision, Plan, PlanColumn, SplitKind, SplitPlan
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plain.rows import number_labels
from ml_platform.automl.split_plan import fit_split
from ml_platform.features.training_sets.labels import plain_labels
from ml_platform.inference.matrix import label_classes
from ml_platform.new_model.entities import repeating_entity
from ml_platform.new_model.inputs import DraftInput, choose_inputs
from ml_platform.new_model.row_identity import choose_id, choose_instant, times_not_chosen
from ml_platform.new_model.table_columns import TableColumn, check_known, table_columns
from ml_platform.new_model.target import Target, guess_target
from ml_platform.spec.model import CLASSIFICATION_METRICS, LOWER_IS_BETTER, REGRESSION_METRICS
from ml_platform.spec.types import Task

_RARE_CLASS = 10
_DEFAULT_METRIC: dict[Task, str] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}


@dataclass(frozen=True)
class PlannedTable:
    """A plan, and what the search for leaks takes."""

    plan: Plan
    inputs: tuple[DraftInput, ...]


@dataclass(frozen=True)
class TableSource:
    """A version of a table, and its rows.

    Attributes
    ----------
    name
        What the run is called.
    source
        Table or file as people know it.
    table, uri, version
        What is read.
    rows
        All of them.
    key
        Primary key of the table's contract.
    """

    name: str
    source: str
    table: str
    uri: str
    version: int
    rows: pl.DataFrame
    key: Sequence[str] = ()


def plan_table(source: TableSource, options: AutomlOptions) -> PlannedTable:
    """Decide what can be decided from a table's rows.

    Parameters
    ----------
    source
        The table.
    options
        What is decided already.

    Raises
    ------
    LookupError
        When the table has no column of a name that was given.
    ValueError
        When nothing can be learned from it, or options contradict the data, with what to do.
    """
    rows, where = source.rows, source.source
    named = (options.id, options.time, options.group)
    for name in (options.target, *options.drop, *options.allow, *filter(None, named)):
        check_known(name, rows.columns, where)
    columns = table_columns(rows)
    target = guess_target(options.target, columns, rows.get_column(options.target), table=where, task=options.task)
    others = {name: column for name, column in columns.items() if name != options.target}
    row_id = choose_id(columns, table=where, target=options.target, wanted=options.id, key=source.key)
    instant = choose_instant(others, row_id, table=where, wanted=options.time)
    time = instant.columns[0] if instant.columns else None
    group, group_why = _group(others, options, ids=row_id.columns)
    chosen = choose_inputs(columns, target=options.target, row_id=row_id, instant=instant)
    dropped = dict(chosen.left_out)
    dropped |= {name: "identifies a row" for name in row_id.columns if name not in dropped}
    if time is not None:
        dropped[time] = "the instant of each row"
    if group is not None:
        dropped[group] = "names the entity"
    dropped |= dict.fromkeys(options.drop, "left out by --drop")
    inputs = tuple(one for one in chosen.features if one.column not in dropped)
    if not inputs:
        raise ValueError(f"no column of {where} is left to predict '{options.target}' from; drop fewer columns")
    labelled = rows.filter(pl.col(options.target).is_not_null())
    label = labelled.get_column(options.target)
    positive = _positive(target, label, options) if target.task == "binary" else None
    metric, metric_why = _metric(target.task, options)
    if metric == "rmsle" and float(number_labels(label).min()) < 0:
        raise ValueError(f"metric rmsle wants labels from 0 on, '{options.target}' has negative ones; take rmse")
    kind, kind_why = _split_kind(target.task, time, group, options)
    classes, rare = _classes(target.task, label)
    sort_by = _sort_columns(rows, columns, time, row_id.columns)
    decisions = [
        Decision(what="task", value=target.task, why=_task_why(target, columns[options.target]), option="--task"),
        *_of_label(positive, target),
        Decision(what="metric", value=metric, why=metric_why, option="--metric"),
        Decision(what="split", value=kind, why=kind_why, option="--split"),
        Decision(
            what="id", value=", ".join(row_id.columns) or "none", why=row_id.comment.split(":")[0], option="--id"
        ),
        _of_time(time, others),
        Decision(what="group", value=group or "none", why=group_why, option="--group"),
    ]  # fmt: skip
    decisions += [Decision(what="note", value=note, why="seen in the label") for note in target.notes]
    if rare:
        value = f"left out: {', '.join(rare)}"
        decisions.append(Decision(what="classes", value=value, why=f"fewer than {_RARE_CLASS} rows each"))
    if metric == "rmsle":
        why = "the metric compares logarithms"
        decisions.append(Decision(what="target", value="trials learn log(1 + target)", why=why, option="--metric"))
    for column in options.allow:
        decisions.append(Decision(what="allowed", value=column, why="as the option says", option="--allow"))
    for reason in dict.fromkeys(dropped.values()):
        names = ", ".join(name for name, why in dropped.items() if why == reason)
        decisions.append(Decision(what="no input", value=names, why=reason, option="--drop"))
    plan = Plan(
        name=source.name,
        source=source.source,
        table=source.table,
        uri=source.uri,
        version=source.version,
        rows=labelled.height,
        task=target.task,
        metric=metric,
        target=options.target,
        positive=positive,
        classes=classes,
        log_target=metric == "rmsle",
        columns=tuple(PlanColumn(name=str(one.column), kind=_kind(one, columns)) for one in inputs),
        sort_by=sort_by,
        time=time,
        known=None,
        group=group,
        split=SplitPlan(kind=kind),
        seed=options.seed,
        dropped=dropped,
        decisions=tuple(decisions),
    )
    return PlannedTable(fit_split(plan, labelled, options), inputs)


def check_metric(task: Task, metric: str) -> None:
    """Refuse a metric that is none of the task's (raises ValueError)."""
    allowed = REGRESSION_METRICS if task == "regression" else CLASSIFICATION_METRICS
    if metric not in allowed:
        raise ValueError(f"--metric: '{metric}' is not one of {', '.join(allowed)} for {task}")


def selection_metric(metric: str) -> str:
    """What trials are searched, averaged and ranked by: the metric, or log-loss for those that only count rows.

    Of a few thousand validation rows accuracy and F1 tell good trials from lucky ones badly: they see a row's most
    probable class alone, log-loss how probable it was.

    Examples
    --------
    >>> selection_metric("accuracy"), selection_metric("roc_auc")
    ('log_loss', 'roc_auc')
    """
    return "log_loss" if metric in ("accuracy", "f1") else metric


def higher_is_better(metric: str) -> bool:
    """Direction of a metric."""
    return metric not in LOWER_IS_BETTER


def _of_label(positive: Any, target: Target) -> list[Decision]:
    if positive is None:
        return []
    return [Decision(what="true", value=str(positive), why=target.comment, option="--positive")]


def _of_time(time: str | None, columns: Mapping[str, TableColumn]) -> Decision:
    """Say which column is the time; of a table with other dates or instants, why none of them is."""
    if time is not None:
        return Decision(what="time", value=time, why="rows are ordered by it", option="--time")
    passed_over = times_not_chosen(columns)
    if not passed_over:
        return Decision(what="time", value="none", why="no column has dates or instants", option="--time")
    reasons = "; ".join(f"{name} is not taken: {one.reason}" for name, one in passed_over.items())
    able = [name for name, one in passed_over.items() if one.is_possible]
    why = f"{reasons}. Split without their time, rows of a table that goes on can look easier to predict than they are"
    option = f"--time {shlex.quote(able[0])}" if able else "--time"
    return Decision(what="time", value="none", why=why, option=option)


def _group(columns: Mapping[str, TableColumn], options: AutomlOptions, *, ids: Sequence[str]) -> tuple[str | None, str]:
    if options.group is not None:
        return options.group, "as the option says"
    column = repeating_entity(columns, ids=ids)
    if column is None:
        return None, "no column names an entity with several rows"
    return column.name, f"{column.rows - column.nulls:,} rows of {column.distinct:,} entities"


def _split_kind(task: Task, time: str | None, group: str | None, options: AutomlOptions) -> tuple[SplitKind, str]:
    if options.split is not None:
        wanted = {"time": (time, "--time"), "group": (group, "--group")}.get(options.split)
        if wanted is not None and wanted[0] is None:
            raise ValueError(f"--split {options.split} wants a column for it: name it with {wanted[1]}")
        if options.split == "stratified" and task == "regression":
            raise ValueError("--split stratified wants classes; a regression's rows are split at random")
        return options.split, "as the option says"
    if options.group is not None and options.time is None:
        return "group", f"rows of one {group} stay together, so that no trial is judged on entities that it knows"
    if time is not None:
        return "time", f"rows have a time ({time}): trials learn from the past and are judged on the newest rows"
    if group is not None:
        return "group", f"rows of one {group} stay together, so that no trial is judged on entities that it knows"
    if task == "regression":
        return "random", "no time, no entities with several rows, no classes"
    return "stratified", "no time and no entities with several rows: at random, with the same shares of the classes"


def _metric(task: Task, options: AutomlOptions) -> tuple[str, str]:
    if options.metric is not None:
        check_metric(task, options.metric)
        return options.metric, "as the option says"
    return _DEFAULT_METRIC[task], f"the usual one of a {task} task"


def _task_why(target: Target, column: TableColumn) -> str:
    return f"{target.column} has {column.distinct:,} distinct values; {target.comment}"


def _positive(target: Target, labels: pl.Series, options: AutomlOptions) -> Any:
    """The value of the label that stands for true."""
    values = labels.unique().drop_nulls().sort()
    if options.positive is not None:
        chosen = [value for value in values if str(value) == options.positive]
        if not chosen:
            raise ValueError(f"--positive: '{target.column}' has no value '{options.positive}'; it has {list(values)}")
        return chosen[0]
    frame = values.to_frame(target.column)
    with duckdb.connect(":memory:") as connection:
        connection.register("_labels", frame)
        read = connection.sql(f"SELECT {target.expression} AS label FROM _labels").pl().get_column("label")
    truth = plain_labels(read, "binary", target.column).cast(pl.Boolean)
    return values.filter(truth)[0]


def _classes(task: Task, labels: pl.Series) -> tuple[tuple[Any, ...], list[str]]:
    """Classes with rows enough, and the names of the others."""
    if task != "multiclass":
        return (), []
    classes = label_classes(labels)
    counts = dict(labels.cast(pl.String).value_counts().rows())
    rare = [str(one) for one in classes if counts[str(one)] < _RARE_CLASS]
    return tuple(one for one in classes if str(one) not in rare), rare


def _sort_columns(
    rows: pl.DataFrame, columns: Mapping[str, TableColumn], time: str | None, ids: Sequence[str]
) -> tuple[str, ...]:
    if ids:
        return tuple(dict.fromkeys([*([time] if time else []), *ids]))
    plain = [name for name in rows.columns if columns[name].kind != "other"]
    return tuple(dict.fromkeys([*([time] if time else []), *plain]))


def _kind(one: DraftInput, columns: Mapping[str, TableColumn]) -> ColumnKind:
    column = columns[str(one.column)]
    if column.kind == "string":
        return "category"
    return "parsed_number" if column.is_cast else "number"
