"""Days of which neither scores nor labels have changed are not measured again; all others are."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from ml_platform.monitoring.performance.measure import measure_performance
from ml_platform.spec.model import ModelSpec
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


def test_only_days_with_new_scores_are_measured_again(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    first = rows.filter(pl.col("at") < START + timedelta(days=68))
    world.score(first)
    spec = short()
    assert measured(world, spec) == days(*range(8))
    written = world.lake.version("monitoring/performance")
    assert measured(world, spec) == set()
    assert world.lake.version("monitoring/performance") == written
    world.score(rows.filter(pl.col("at") >= START + timedelta(days=68)))
    assert measured(world, spec) == days(8, 9)
    world.score(rows.filter(pl.col("at").dt.date() == FIRST + timedelta(days=3)), version=2)
    assert measured(world, spec) == days(3)
    from_scratch(world, spec)


def test_only_days_with_changed_labels_are_measured_again(world: World, labels: Labels) -> None:
    """Though a table of the spine that changes may change the labels of all."""
    rows = draw(60, 10)
    labels(rows.filter(pl.col("at") < START + timedelta(days=66)))
    world.score(rows)
    spec = short()
    measured(world, spec)
    labels(rows.filter(pl.col("at") < START + timedelta(days=67)))
    assert measured(world, spec) == days(6), "its labels have come"
    labels(rows)
    assert measured(world, spec) == days(7, 8, 9)
    second = pl.col("row_id") == rows["row_id"][150]
    labels(rows.with_columns(fault=pl.col("fault") ^ second))
    assert measured(world, spec) == days(1), "one label was corrected"
    labels(rows.filter(~second))
    assert measured(world, spec) == days(1), "it was withdrawn"
    labels(rows.filter(~second).sample(fraction=1.0, shuffle=True, seed=0))
    assert measured(world, spec) == set(), "in another order"
    from_scratch(world, spec)


def test_random_changes_give_what_measuring_everything_gives(world: World, labels: Labels) -> None:
    """Scores of days, again or by another version, labels that come, change and go, in any order."""
    rng = np.random.default_rng(11)
    rows = draw(60, 8)
    day = pl.col("at").dt.date()
    fault = rows["fault"].to_numpy().copy()
    known = np.zeros(rows.height, dtype=bool)
    world.score(rows.filter(day < FIRST + timedelta(days=3)))
    labels(rows.filter(pl.Series(rng.random(rows.height) < 0.5)))
    for _ in range(12):
        some = rng.integers(0, rows.height, rng.integers(1, 300))
        match rng.integers(0, 4):
            case 0:
                first = int(rng.integers(0, 8))
                part = rows.filter(day.is_between(FIRST + timedelta(days=first), FIRST + timedelta(days=first + 1)))
                world.score(part, version=int(rng.integers(1, 3)), online=bool(rng.integers(0, 2)))
            case 1:
                known[some] = True
            case 2:
                known[some] = False
            case _:
                fault[some] = ~fault[some]
        if known.any():
            labels(rows.with_columns(fault=pl.Series(fault)).filter(pl.Series(known)))
        measured(world, short())
        from_scratch(world, short())


def test_another_declaration_measures_all(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    world.score(rows)
    spec = short()
    assert measured(world, spec) == days(*range(10))
    assert measured(world, short(min_metric=0.6)) == days(*range(10))


def test_what_was_measured_from_fewer_labels_is_measured_again(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    world.score(rows)
    spec = short()
    measured(world, spec)
    assert measured(world, spec, until=START + timedelta(days=65)) == days(*range(6)), "all that there were by then"
    assert measured(world, spec) == days(4, 5), "the last six hours had no labels, and one row is of the day after"
    from_scratch(world, spec)


def test_labels_that_are_final_are_not_looked_at_again(world: World, labels: Labels) -> None:
    rows = draw(60, 10)
    labels(rows)
    world.score(rows)
    spec = short(labels_final_after=timedelta(days=4))
    measured(world, spec)
    labels(rows.with_columns(fault=~pl.col("fault")))
    assert measured(world, spec) == days(5, 6, 7, 8, 9)
    never = short(labels_final_after=timedelta.max)
    assert measured(world, never) == days(*range(10)), "another declaration"
    labels(rows)
    assert measured(world, never) == days(*range(10)), "a span that no calendar has is all of it"
