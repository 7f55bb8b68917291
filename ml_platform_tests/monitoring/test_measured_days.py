"""Days of which neither scores nor labels can have changed are not measured again; all others are."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import polars as pl

from ml_platform.monitoring.performance import measure_performance
from ml_platform.spec import ModelSpec
from ml_platform_tests.monitoring.conftest import SPEC, START, World, draw

Labels = Callable[[pl.DataFrame], None]
FIRST = (START + timedelta(days=60)).date()


def short(**changes: Any) -> ModelSpec:
    """A window of two days, so that older days are not needed for it."""
    monitoring = SPEC.monitoring.model_copy(update={"window": timedelta(days=2), **changes})
    return SPEC.model_copy(update={"monitoring": monitoring})


def measured(world: World, spec: ModelSpec, **arguments: Any) -> set[date]:
    """Measure, and tell which days were."""
    table = "monitoring/performance"
    before = world.lake.read(table).collect() if world.lake.exists(table) else None
    measure_performance(world.lake, spec, world.folder, world.store, **arguments)
    now = world.lake.read(table).collect()
    if before is not None:
        now = now.join(before, on=["date", "version", "measured_at"], how="anti")
    return set(now["date"])


def days(*numbers: int) -> set[date]:
    return {FIRST + timedelta(days=number) for number in numbers}


def from_scratch(world: World, spec: ModelSpec) -> None:
    """What was recorded is what measuring all days gives."""
    kept = world.lake.read("monitoring/performance").sort("date", "version").drop("measured_at").collect()
    measure_performance(world.lake, spec, world.folder, world.store, since=START)
    again = world.lake.read("monitoring/performance").sort("date", "version").drop("measured_at").collect()
    assert kept.equals(again)


def test_only_days_with_new_scores_and_the_window_are_measured_again(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    first = rows.filter(pl.col("at") < START + timedelta(days=68))
    world.score(first)
    spec = short()
    assert measured(world, spec) == days(*range(8))
    assert measured(world, spec) == days(5, 6, 7), "the window's days, of which two are whole"
    world.score(rows.filter(pl.col("at") >= START + timedelta(days=68)))
    assert measured(world, spec) == days(7, 8, 9)
    world.score(rows.filter(pl.col("at").dt.date() == FIRST + timedelta(days=3)), version=2)
    assert measured(world, spec) == days(*range(3, 10)), "from the first day that changed on"
    from_scratch(world, spec)


def test_changed_labels_and_another_declaration_measure_all(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    world.score(rows)
    spec = short()
    measured(world, spec)
    labels(rows.with_columns(fault=~pl.col("fault")))
    assert measured(world, spec) == days(*range(10))
    assert measured(world, short(min_metric=0.6)) == days(*range(10))
    measured(world, short(min_metric=0.6), until=START + timedelta(days=65))
    assert measured(world, short(min_metric=0.6)) == days(*range(10)), "it was measured from fewer labels"
    from_scratch(world, short(min_metric=0.6))


def test_labels_that_are_final_are_not_looked_at_again(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    world.score(rows)
    spec = short(labels_final_after=timedelta(days=4))
    measured(world, spec)
    labels(rows)
    assert measured(world, spec) == days(5, 6, 7, 8, 9)
    never = short(labels_final_after=timedelta.max)
    assert measured(world, never) == days(*range(10)), "another declaration"
    labels(rows)
    assert measured(world, never) == days(*range(10)), "a span that no calendar has is all of it"
