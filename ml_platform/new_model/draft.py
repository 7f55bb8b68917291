"""Drafts a model from a table's rows: every guess together, tried on the rows before anything is written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl

from ml_platform.features.training_sets.labels import plain_labels
from ml_platform.features.training_sets.spine_ids import check_ids, typed_ids
from ml_platform.features.training_sets.spine_values import typed_inputs
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.names import quoted, sql_name
from ml_platform.lake.sources.inference_notes import few
from ml_platform.lake.sources.source_spec import ColumnSpec
from ml_platform.new_model.entities import repeating_entity
from ml_platform.new_model.files import defs_yaml, spine_sql
from ml_platform.new_model.inputs import DraftInput, choose_inputs, identity_inputs, leave_out, names_of
from ml_platform.new_model.offered_lookups import offered_lookups
from ml_platform.new_model.row_identity import Instant, RowId, choose_id, choose_instant, times_not_chosen
from ml_platform.new_model.split_size import size_split
from ml_platform.new_model.strong_inputs import StrongInputs, find_strong_inputs
from ml_platform.new_model.table_columns import check_known, table_columns
from ml_platform.new_model.target import Target, guess_target
from ml_platform.spec.inputs import InputField
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Task
from ml_platform.spec_yaml import load_spec
from ml_platform.training.data.split import split_by_time

_NAME = re.compile(r"[a-z][a-z0-9_]{1,62}")
# Rows that differ in their inputs, and their share: from either on, equal rows get one instant, and so one part of the
# split, in which no copy can tell the label of another part.
_MANY_DISTINCT, _MOSTLY_DISTINCT = 1_000, 0.9
_TAKEN = frozenset({"raw", "features", "online", "pushed", "catalogue", "maintenance", "governance"})  # asset groups


@dataclass(frozen=True)
class Wanted:
    """What its owner says of the model.

    Attributes
    ----------
    name
        Of the model.
    table
        Table of the lake, `raw/<name>`.
    target
        Its label column.
    id, time
        Columns that identify a row, and that say when it is; guessed when None.
    task
        Guessed from the target when None.
    owner
        Who answers for it.
    group
        Column whose rows stay together in one part of a split at random; it is no input. Guessed when None.
    exclude
        Columns that are no inputs either.
    metric
        Of the gate; the task's usual one when None.
    trials
        Of each family; as many as usual when None.
    """

    name: str
    table: str
    target: str
    id: str | None = None
    time: str | None = None
    task: Task | None = None
    owner: str = "team@example.com"
    group: str | None = None
    exclude: Sequence[str] = ()
    metric: str | None = None
    trials: int | None = None


@dataclass(frozen=True)
class Draft:
    """A model's files, and what its owner should know of them."""

    spec: ModelSpec
    files: Mapping[str, str]  # name → content
    notes: tuple[str, ...]


def draft_model(
    wanted: Wanted,
    rows: pl.DataFrame,
    *,
    today: date,
    views: Mapping[str, FeatureView] | None = None,
    contract: Mapping[str, ColumnSpec] | None = None,
    key: Sequence[str] = (),
) -> Draft:
    """Draft a model's `defs.yaml` and `spine.sql`.

    Parameters
    ----------
    wanted
        What the owner says.
    rows
        Of the table; a part of them, drawn evenly, of a very large one.
    today
        To tell a table that grows from one that has ended.
    views
        The project's feature views, of which look-ups are offered.
    contract
        Of the table, column by column, where it is declared in YAML.
    key
        Primary key of the table.

    Raises
    ------
    LookupError
        When the table has no column of a name that was given.
    ValueError
        When no model can be made of the table, with what was found and what to do.
    """
    check_name(wanted.name)
    check_known(wanted.target, rows.columns, wanted.table)
    columns = table_columns(rows)
    target = guess_target(wanted.target, columns, rows.get_column(wanted.target), table=wanted.table, task=wanted.task)
    row_id = choose_id(columns, table=wanted.table, target=wanted.target, wanted=wanted.id, key=key)
    distinct = rows.height if row_id.row_hash is None else rows.drop(wanted.target).n_unique()
    if distinct < min(_MANY_DISTINCT, _MOSTLY_DISTINCT * rows.height):
        row_id = replace(row_id, hashed=row_id.name)  # of few hashes, few instants could be drawn
    others = {name: column for name, column in columns.items() if name != wanted.target}
    if wanted.group is not None:
        check_known(wanted.group, rows.columns, wanted.table)
    group, instant = wanted.group, choose_instant(others, row_id, table=wanted.table, wanted=wanted.time)
    if group is None and instant.is_drawn:
        entity = repeating_entity(others, ids=row_id.columns)
        group = entity.name if entity is not None else None
    if group is not None:
        own = f"{quoted(group)}::VARCHAR"  # one instant, and so one part, for each
        row_id = replace(row_id, hashed=f"coalesce({own}, {row_id.hashed})" if columns[group].nulls else own)
        instant = choose_instant(others, row_id, table=wanted.table, wanted=wanted.time)
    chosen = choose_inputs(columns, target=wanted.target, row_id=row_id, instant=instant, contract=contract)
    chosen = leave_out(chosen, wanted.exclude, "not wanted")
    chosen = leave_out(chosen, [group] if group else [], "names the entity")
    identity = identity_inputs(row_id, instant)
    query = spine_sql(wanted.table, row_id, instant, chosen.features, target)
    spine = _labelled(_run(query, wanted.table, rows), row_id, instant, chosen.features, target)
    strong = find_strong_inputs(
        spine,
        chosen.features,
        target=target.column,
        task=target.task,
        timestamp=None if instant.is_drawn else instant.name,
    )
    if set(names_of(chosen.features)) <= set(strong.leaks):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in strong.leaks.items())
        raise ValueError(f"target '{target.column}' of {wanted.table}: every input knows it already ({reasons})")
    instants, labels = spine.get_column(instant.name), spine.get_column(target.column)
    rare = None if target.task == "regression" else instants.filter(labels != labels.mode().sort()[0])
    split = size_split(instants, is_drawn=instant.is_drawn, today=today, rare=rare)
    safe = [one for one in chosen.features if one.name not in strong.leaks]
    offered = list(offered_lookups(views or {}, [*names_of(identity), *names_of(safe)]))
    declaration = defs_yaml(
        wanted.name,
        wanted.table,
        wanted.owner,
        row_id=row_id,
        instant=instant,
        identity=identity,
        inputs=chosen.features,
        left_out=chosen.left_out,
        target=target,
        strong=strong,
        split=split,
        lookups=offered,
        metric=wanted.metric,
        trials=wanted.trials,
    )
    query = spine_sql(wanted.table, row_id, instant, chosen.features, target, leaks=strong.leaks)
    spec = _checked(declaration, query)
    split_by_time(spine, spec)
    notes = [f"Task: {target.task}; {target.comment}.", *target.notes, *split.notes]
    notes += _copies(rows.height - distinct, row_id, instant)
    notes += _told(instant, row_id, strong, chosen.left_out)
    if instant.is_drawn:
        if group is not None:
            notes.append(f"Rows of one {group} stay together in one part of the split.")
        notes += [f"{name} is not the time: {one.reason}." for name, one in times_not_chosen(others).items()]
    return Draft(spec, {"defs.yaml": declaration, "spine.sql": query}, tuple(notes))


def check_name(name: str) -> None:
    """Refuse what no model can be called (raises ValueError)."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a model's name is a lower-case letter, then letters, digits and _ (2 to 63 in all), found {name[:80]!r}"
        )
    if name in _TAKEN:
        raise ValueError(f"'{name}' is a group of assets of every project; call the model otherwise")


def _run(query: str, table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Run the drafted query on the rows at hand."""
    schema, name = sql_name(table)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("_rows", rows)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(f"CREATE VIEW {schema}.{name} AS FROM _rows")
        return connection.sql(query).pl()


def _labelled(
    spine: pl.DataFrame, row_id: RowId, instant: Instant, inputs: Sequence[DraftInput], target: Target
) -> pl.DataFrame:
    """The labelled rows of a spine, read as training reads them (raises ValueError)."""
    ids = typed_ids(spine.get_column(row_id.name), row_id.type, "the drafted query")
    check_ids(ids, "the drafted query")
    labels = plain_labels(spine.get_column(target.column), target.task, target.column)
    spine = spine.with_columns(ids, labels).filter(pl.col(target.column).is_not_null())
    fields = [InputField.model_validate({"name": one.name, "type": one.keys["type"]}) for one in inputs]
    typed = typed_inputs(spine, fields, {}, id_column=row_id.name, where="the drafted query")
    times = [pl.col(name).cast(pl.Datetime("us", "UTC")) for name in (instant.name, instant.known_name)]
    return typed.with_columns(times)


def _checked(declaration: str, query: str) -> ModelSpec:
    """Read the declaration as the project will (raises SpecError)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "defs.yaml"
        path.write_text(declaration, encoding="utf-8")
        (path.parent / "spine.sql").write_text(query, encoding="utf-8")
        return load_spec(path)


def _copies(number: int, row_id: RowId, instant: Instant) -> list[str]:
    """Say where rows are that have the inputs of another row."""
    if not number or not instant.is_drawn:
        return []
    together = row_id.hashed == row_id.row_hash
    where = "one part of the split" if together else "any part of the split, so that results are too good if they copy"
    return [f"{number:,} rows have the inputs of another row; they are in {where}."]


def _told(instant: Instant, row_id: RowId, strong: StrongInputs, left_out: Mapping[str, str]) -> list[str]:
    """What was decided, and should be looked at."""
    notes = []
    if row_id.row_hash is not None:
        notes.append("No column tells rows apart; ids are made of a hash of the inputs. --id names a column.")
    if instant.is_drawn:
        notes.append("No column is the time, so the split is a random one that stays the same. --time names a column.")
    else:
        notes.append(f"Rows are split by time, of {' and '.join(instant.columns)}; the newest judge the model.")
    for reason in dict.fromkeys(strong.leaks.values()):
        names = ", ".join(name for name, other in strong.leaks.items() if other == reason)
        notes.append(f"Left out: {names}, because {reason}. Known at the instant of prediction?")
    if strong.questions:
        questions_text = ", ".join(f"{name} ({reason})" for name, reason in strong.questions.items())
        notes.append(f"Strong: {questions_text}. Is each known at the instant of prediction?")
    if left_out:
        reasons = {why: [name for name, other in left_out.items() if other == why] for why in left_out.values()}
        notes.append(f"No inputs: {'; '.join(f'{few(names)} ({why})' for why, names in reasons.items())}.")
    return notes
