"""Scores joined with labels that came later, per day and version."""

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ml_platform.monitoring.performance.answers import answers_of, figures
from ml_platform.monitoring.performance.measure import PerformanceReport, measure_performance
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Feature, HoldoutError, Provenance, Target
from ml_platform.spec.model import ModelSpec
from ml_platform_tests.monitoring.conftest import MODEL, SPEC, START, World, draw

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
    assert below.reasons[-1] == "worse than monitoring.min_metric = 0.95, by more than chance"
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


def test_few_days_are_not_judged_unless_the_holdout_says_how_days_differ(world: World, labels: Labels) -> None:
    rows = draw(60, 4)
    labels(rows)
    world.score(rows)
    report = measured(world)
    assert (report.verdict, report.interval, report.label_days) == ("not judged", None, 4)
    assert "400 labelled rows of 4 days: fewer than 7 days" in report.reasons[0]

    release(world, 1, holdout_error=HoldoutError(metric="roc_auc", by_day=0.01, by_row=0.005, days=28))
    known = measured(world)
    assert known.verdict == "fine"
    assert known.interval is not None
    release(world, 1, holdout_error=HoldoutError(metric="roc_auc", by_day=0.03, by_row=0.005, days=28))
    stormy = measured(world)
    assert stormy.interval is not None
    assert stormy.interval[1] - stormy.interval[0] > 1.5 * (known.interval[1] - known.interval[0])
    release(world, 1, holdout_error=HoldoutError(metric="log_loss", by_day=0.03, by_row=0.005, days=28))
    assert measured(world).verdict == "not judged"  # of another metric


def test_an_answer_that_is_no_number_is_told(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    scores = [float("nan") if number % 10 == 0 else 0.5 for number in range(rows.height)]
    world.score(rows, scores=scores)
    report = measured(world)
    assert (report.scored_rows, report.rows, report.unscored_rows) == (700, 630, 70)
    assert "70 labelled rows have no finite score and are in no metric" in report.reasons
    assert recorded(world)["unscored_rows"].to_list() == [10] * 7


def test_a_class_that_the_model_does_not_know_is_an_error() -> None:
    """Ten right and ninety of another class are an accuracy of 0.1."""
    spec = SPEC.model_copy(update={"task": "multiclass"})
    features = (Feature(name="x", kind="numeric", source="input"),)
    scorer: Any = SimpleNamespace(manifest=SimpleNamespace(classes=("a", "b"), features=features, threshold=None))
    scorer.score = lambda matrix: np.tile([0.9, 0.1], (len(matrix), 1))
    at = [START + timedelta(hours=number) for number in range(100)]
    rows = pl.DataFrame(
        {"x": [0.0] * 100, "target": ["a"] * 10 + ["new"] * 90, "sample_weight": [1.0] * 100, "as_of": at}
    )
    answers = answers_of(rows, spec, scorer)
    assert (answers.rows, answers.unknown_class, answers.unknown_classes) == (100, 90, ("new",))
    assert figures(answers, spec, scorer)["accuracy"] == pytest.approx(0.1)
    assert "90 labels are of classes that the model does not know (new): errors" in answers.notes()


def test_a_new_champion_is_measured_on_rows_that_the_old_one_scored(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows.head(600), version=1, scores=[0.5] * 600)
    trained_until = START + timedelta(days=62)
    release(world, 2, provenance=trained(world, trained_until))
    late = rows.tail(100)
    world.score(late, version=1, scores=[0.5] * 100)
    world.score(late, version=2, delay=timedelta(minutes=1))
    report = measured(world)
    after = rows.filter(pl.col("at") > trained_until).height
    assert (report.version, report.scored_rows, report.rescored_rows, report.rows) == (2, after, after - 100, after)
    assert report.metrics["roc_auc"] > 0.8  # and not the 0.5 of what version 1 answered
    assert f"{after - 100} rows after its training that other versions scored are scored by version 2" in str(report)


def test_rows_whose_features_the_new_champion_makes_otherwise_are_not_rescored(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows, version=1)
    fields = [*world.store.load_manifest(world.digest).inputs]
    other = tuple(msgspec.structs.replace(one, default=5.0) if one.name == "wind" else one for one in fields)
    release(world, 2, inputs=other, provenance=trained(world, START + timedelta(days=60)))
    report = measured(world)
    assert (report.verdict, report.rows, report.rescored_rows) == ("not judged", 0, 0)
    assert "rows that version 1 scored are not scored again: it makes wind otherwise, or not at all" in str(report)


def trained(world: World, until: datetime) -> Provenance:
    provenance = world.store.load_manifest(world.digest).provenance
    return msgspec.structs.replace(provenance, trained_until=until.isoformat())


def release(world: World, version: int, **changes) -> None:
    """Release a further version: the bundle of the first with another manifest."""
    files = world.store.read_bundle(world.digest)
    manifest = msgspec.structs.replace(world.store.load_manifest(world.digest), **changes)
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(files["model.onnx"], manifest))
    digest = world.store.put_bundle({**files, "manifest.json": msgspec.json.encode(manifest)})
    world.store.publish(MODEL, [Target(version=version, digest=digest)], reason="next", by="test")


def test_plot_of_the_days(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows)
    report = measured(world, with_minimum(0.7))
    (picture,) = report.plots(world.lake).values()
    assert picture.startswith(b"\x89PNG")
    assert 5_000 < len(picture) < 150_000
