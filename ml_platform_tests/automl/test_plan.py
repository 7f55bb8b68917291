"""Decisions about a table: types, task, metric, split and inputs, and what an option changes."""

import random
import shlex
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.automl.documents import Plan
from ml_platform.automl.frame import LABEL, AutomlRows, read_plan_rows
from ml_platform.automl.leaks import LeakFound, check_leaks
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import PlannedTable, TableSource, plan_table
from ml_platform.automl.trials import automl_families
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.new_model.rows import calls, readings


def visits(rows: int = 600) -> pl.DataFrame:
    """Visits of patients, several of each, without a time."""
    chance = random.Random(3)
    return pl.DataFrame(
        {
            "patient_id": [f"p{chance.randrange(120)}" for _ in range(rows)],
            "pulse": [chance.gauss(70, 9) for _ in range(rows)],
            "ward": [chance.choice("abc") for _ in range(rows)],
            "constant": ["x"] * rows,
            "outcome": [chance.choice(["home", "ward", "icu"]) for _ in range(rows)],
        }
    )


def plan(lake: Lake, frame: pl.DataFrame, **given: object) -> PlannedTable:
    version = lake.replace("raw/rows", frame)
    stored = lake.read("raw/rows", version=version).collect()
    source = TableSource("rows", "raw/rows", "raw/rows", lake.location("raw/rows"), version, stored)
    return plan_table(source, AutomlOptions(**given))  # type: ignore[arg-type]


def decided(planned: Plan, what: str) -> str:
    return next(one.value for one in planned.decisions if one.what == what)


def parts_are_apart(rows: AutomlRows) -> bool:
    together = np.concatenate(rows.parts)
    return len(np.unique(together)) == len(together)


def test_a_table_without_time_is_split_by_class_and_its_id_is_no_input(lake: Lake) -> None:
    made = plan(lake, calls(), target="y").plan
    assert (made.task, made.metric, made.split.kind, made.positive) == ("binary", "roc_auc", "stratified", "subscribed")
    assert made.dropped == {"client_id": "identifies a row"}
    assert [(one.name, one.kind) for one in made.columns] == [
        ("age", "number"), ("job", "category"), ("balance", "number"), ("duration", "number"),
    ]  # fmt: skip
    rows = read_plan_rows(made)
    shares = [rows.y[part].mean() for part in rows.parts]
    assert max(shares) - min(shares) < 0.02
    assert parts_are_apart(rows)
    assert {one.option for one in made.decisions} >= {"--task", "--metric", "--split", "--id", "--time", "--group"}


def test_rows_with_a_time_are_split_by_it(lake: Lake) -> None:
    frame = readings().with_columns(pl.col("power").abs())
    made = plan(lake, frame, target="power", metric="rmsle", drop=["shift"])
    assert (made.plan.split.kind, made.plan.time, made.plan.log_target) == ("time", "read_at", True)
    assert made.plan.dropped["plant"] == "the same in every row"
    assert made.plan.dropped["shift"] == "left out by --drop"


def test_negative_labels_have_no_rmsle(lake: Lake) -> None:
    frame = readings().with_columns(pl.col("power") - 100)
    with pytest.raises(ValueError, match="rmsle wants labels from 0 on"):
        plan(lake, frame, target="power", metric="rmsle")


def test_the_holdout_may_begin_on_a_day(lake: Lake) -> None:
    made = plan(lake, readings(), target="power", holdout="2024-05-01").plan
    rows = read_plan_rows(made)
    at = rows.raw.get_column("read_at")
    assert at[rows.parts[2]].min() == datetime(2024, 5, 1, tzinfo=UTC)
    assert at[rows.parts[1]].max() == datetime(2024, 5, 1, tzinfo=UTC) - timedelta(hours=1)
    assert len(rows.y) == sum(map(len, rows.parts))


def test_rows_of_one_entity_stay_together(lake: Lake) -> None:
    made = plan(lake, visits(), target="outcome").plan
    assert (made.split.kind, made.group, made.task, made.metric) == ("group", "patient_id", "multiclass", "log_loss")
    assert made.dropped == {"constant": "the same in every row", "patient_id": "names the entity"}
    rows = read_plan_rows(made)
    patients = [set(rows.raw.get_column("patient_id")[part]) for part in rows.parts]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert "icu" in made.classes


def test_a_class_that_is_too_rare_is_left_out(lake: Lake) -> None:
    frame = visits().with_columns(
        pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("rare")).otherwise("outcome").alias("outcome")
    )
    made = plan(lake, frame, target="outcome").plan
    assert "rare" not in made.classes
    assert decided(made, "classes") == "left out: rare"
    assert "rare" not in set(read_plan_rows(made).frame.get_column(LABEL))


def test_options_decide_otherwise(lake: Lake) -> None:
    made = plan(lake, calls(), target="y", split="random", positive="no", metric="log_loss", holdout="0.4", seed=7).plan
    assert (made.split.kind, made.positive, made.metric, made.seed) == ("random", "no", "log_loss", 7)
    assert len(read_plan_rows(made).parts[2]) == 160


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "z"}, "has no column 'z'"),
        (
            {"target": "y", "allow": ["balanse"]},
            r"no column 'balanse'; did you mean 'balance'\? It has: client_id, age",
        ),
        ({"target": "y", "metric": "rmse"}, "'rmse' is not one of roc_auc"),
        ({"target": "y", "positive": "maybe"}, "no value 'maybe'"),
        ({"target": "y", "holdout": "soon"}, "first day of the holdout"),
        ({"target": "y", "holdout": "2024-01-01"}, "only a split by time has"),
        ({"target": "y", "split": "time"}, "name it with --time"),
        ({"target": "y", "holdout": "0.9"}, "from 0.01 to 0.6"),
    ],
)
def test_what_contradicts_the_rows_is_refused(lake: Lake, given: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        plan(lake, calls(), **given)


def test_an_input_that_gives_the_label_stops_the_run(lake: Lake) -> None:
    frame = calls().with_columns(
        pl.when(pl.col("y") == "subscribed").then(2).otherwise(1).cast(pl.Int64).alias("contract")
    )
    made = plan(lake, frame, target="y")
    rows = read_plan_rows(made.plan)
    with pytest.raises(LeakFound, match=r"--drop contract.*--allow contract"):
        check_leaks(made.plan, rows, made.inputs, ())
    check_leaks(made.plan, rows, made.inputs, ["contract"])


def test_options_are_printed_as_a_shell_takes_them(lake: Lake) -> None:
    frame = calls().with_columns(pl.when(pl.col("y") == "subscribed").then(2).otherwise(1).alias("son's x 1"))
    made = plan(lake, frame, target="y")
    with pytest.raises(LeakFound) as refused:
        check_leaks(made.plan, read_plan_rows(made.plan), made.inputs, ())
    words = shlex.split(str(refused.value).partition("prediction: ")[2].partition(". Known")[0])
    assert words == ["--drop", "son's x 1"]


def test_instants_of_some_hours_are_the_time(lake: Lake) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    when = [start + timedelta(hours=number // 10) for number in range(400)]
    made = plan(lake, calls().with_columns(pl.Series("when", when)), target="y").plan
    assert (made.split.kind, made.time) == ("time", "when")
    assert parts_are_apart(read_plan_rows(made))


@pytest.mark.parametrize(
    ("column", "gaps", "reason", "option"),
    [
        ("due", 0, "due is not taken: by its name (due) it is another instant", "--time due"),
        ("read when", 40, "read when is not taken: 40 of 400 rows have none", "--time"),
        ("load time", 0, "load time is not taken: all rows are within an hour", "--time 'load time'"),
    ],
)
def test_a_time_that_is_not_taken_is_named_with_the_reason(
    lake: Lake, column: str, gaps: int, reason: str, option: str
) -> None:
    step = timedelta(seconds=1) if column == "load time" else timedelta(hours=1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    when = [None if number < gaps else start + number * step for number in range(400)]
    made = plan(lake, calls().with_columns(pl.Series(column, when)), target="y").plan
    said = next(one for one in made.decisions if one.what == "time")
    assert (made.time, said.value, said.option) == (None, "none", option)
    assert said.why.startswith(reason)
    if option != "--time":
        assert plan(lake, calls().with_columns(pl.Series(column, when)), target="y", time=column).plan.time == column


def test_a_family_that_cannot_do_the_task_is_refused_with_those_that_can() -> None:
    with pytest.raises(ValueError, match=r"ridge cannot do task 'binary'; .* that can: .*logistic_regression.*xgboost"):
        automl_families("binary", ["ridge"])
