"""Scores joined with labels that came later, per day and version."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ml_platform.monitoring.performance import PerformanceReport, measure_performance
from ml_platform.spec import ModelSpec
from ml_platform_tests.monitoring.conftest import SPEC, START, World, draw

Labels = Callable[[pl.DataFrame], None]
WINDOW_END = START + timedelta(days=67)


def measured(world: World, spec: ModelSpec = SPEC, **arguments) -> PerformanceReport:
    return measure_performance(world.lake, spec, world.folder, world.store, **arguments)


def recorded(world: World) -> pl.DataFrame:
    return world.lake.read("monitoring/performance").sort("date", "version").collect()


def with_minimum(minimum: float) -> ModelSpec:
    return SPEC.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"min_metric": minimum})})


def test_a_day_is_measured_as_scikit_learn_does(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    measured(world)
    day = recorded(world).row(2, named=True)
    part = rows.filter(pl.col("at").dt.date() == day["date"])
    scores = (
        world.lake.read(f"predictions/{SPEC.name}")
        .filter(pl.col("date") == day["date"])
        .sort("as_of")
        .collect()["score"]
    )
    assert (day["rows"], day["scored_rows"]) == (100, 100)
    assert day["roc_auc"] == pytest.approx(roc_auc_score(part["fault"], scores))
    assert day["average_precision"] == pytest.approx(average_precision_score(part["fault"], scores))
    assert day["log_loss"] == pytest.approx(log_loss(part["fault"], scores))
    assert day["brier"] == pytest.approx(brier_score_loss(part["fault"], scores))
    assert day["mean_target"] == pytest.approx(part["fault"].cast(pl.Float64).mean())
    assert day["mean_score"] == pytest.approx(scores.mean())
    assert day["rmse"] is None


def test_labels_fill_in_as_they_become_available(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    measured(world, until=START + timedelta(days=60, hours=12))  # labels take six hours
    assert recorded(world).select("scored_rows", "rows").rows() == [(51, 26)]
    measured(world)
    assert recorded(world).select("scored_rows", "rows").rows() == [(100, 100)] * 7


def test_measuring_again_replaces_days(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    measured(world)
    before = recorded(world).drop("measured_at")
    measured(world)
    assert recorded(world).drop("measured_at").equals(before)
    measured(world, since=START + timedelta(days=64, hours=5))
    assert recorded(world).drop("measured_at").equals(before)


def test_versions_have_their_own_days_and_the_champion_is_judged(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    world.score(rows, version=2, scores=np.random.default_rng(0).random(rows.height).tolist())
    report = measured(world)
    assert report.version == 1
    days = recorded(world).group_by("version").agg(pl.len(), pl.col("roc_auc").mean()).sort("version").rows()
    assert [(version, count) for version, count, _ in days] == [(1, 7), (2, 7)]
    assert days[0][2] > 0.8
    assert days[1][2] < 0.6


def test_above_the_minimum_is_fine_and_below_is_not(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    fine = measured(world, with_minimum(0.7))
    assert fine.verdict == "fine"
    assert fine.rows == 700
    below = measured(world, with_minimum(0.95))
    assert below.verdict == "below"
    assert "worse than monitoring.min_metric = 0.95" in below.reasons[-1]
    assert below.interval is not None
    assert below.interval[0] < below.metrics["roc_auc"] < below.interval[1]


def test_without_minimum_the_holdout_metric_judges(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows.with_columns(fault=pl.Series(np.random.default_rng(0).random(700) < 0.5)))
    world.score(rows)
    report = measured(world)
    assert report.verdict == "below"
    assert "on the holdout rows it was 0.8500" in report.reasons[1]
    assert "worse, by more than chance" in report.reasons[1]


def test_few_labels_are_not_judged(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows.with_columns(pl.when(pl.int_range(700) < 200).then("fault")))
    world.score(rows)
    report = measured(world, with_minimum(0.99))
    assert (report.verdict, report.rows, report.scored_rows) == ("not judged", 200, 700)
    assert "200 labelled rows" in report.reasons[0]


def test_labels_all_alike_leave_the_metric_undefined(world: World, labels: Labels) -> None:
    rows = draw(60, 7).with_columns(fault=pl.lit(False))
    labels(rows)
    world.score(rows)
    report = measured(world)
    assert report.verdict == "not judged"
    assert "undefined" in report.reasons[0]
    assert recorded(world)["roc_auc"].null_count() == 7


def test_nothing_scored_is_not_judged(world: World, labels: Labels) -> None:
    labels(draw(60, 1))
    assert measured(world).verdict == "not judged"


def test_plot_of_the_days(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    report = measured(world, with_minimum(0.7))
    (picture,) = report.plots(world.lake).values()
    assert picture.startswith(b"\x89PNG")
    assert 5_000 < len(picture) < 150_000
