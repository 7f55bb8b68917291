"""Leaks that must be found, and sound features that must not be taken for leaks."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.leakage import find_leakage
from ml_platform.spec.model import Leakage
from ml_platform.spec.types import Task

ROWS = 3000
BIKES = Path(os.environ.get("ML_PLATFORM_BIKE_HOURLY", "../shared/datasets/bike_hourly.csv"))
BEANS = Path(os.environ.get("ML_PLATFORM_DRY_BEAN", "../shared/datasets/dry_bean.csv"))


def infos(frame: pl.DataFrame, *left_out: str) -> list[FeatureInfo]:
    return [
        FeatureInfo(name=name, kind="categorical" if kind == pl.String else "numeric", source="input")
        for name, kind in frame.schema.items()
        if name not in left_out
    ]


@pytest.fixture
def world() -> pl.DataFrame:
    """Two causes, noise, an identifier; `y` follows the causes with an R² of about 0.8, `late` is its upper fifth."""
    random = np.random.default_rng(3)
    a, b = random.normal(size=ROWS), random.exponential(size=ROWS)
    y = 10 * a + 5 * b + random.normal(size=ROWS) * 5
    return pl.DataFrame({"a": a, "b": b, "id": [f"row {n}" for n in range(ROWS)], "y": y}).with_columns(
        late=pl.col("y") > pl.col("y").quantile(0.8)
    )


def found(frame: pl.DataFrame, target: str, task: Task, **limits) -> list[tuple[tuple[str, ...], str]]:
    left_out = {"y", "late"}
    report = find_leakage(frame, infos(frame, *left_out), target=target, task=task, limits=Leakage(**limits))
    return [(leak.features, leak.kind) for leak in report.leaks]


@pytest.mark.parametrize(("target", "task"), [("y", "regression"), ("late", "binary")])
def test_honest_features_and_identifiers_are_no_leak(world, target, task):
    assert found(world, target, task) == []
    assert found(world.head(150), target, task) == []


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("y"),
        -3 * pl.col("y") + 7,
        (pl.col("y") / 10).exp(),
        pl.col("y").round(0).cast(pl.Int64),
        pl.when(pl.col("a") < 1).then("y"),  # known of most rows only
        (pl.col("y") - pl.col("y").median()).abs() * pl.col("y").rank().gt(ROWS / 2).cast(pl.Int64).replace(0, -1),
    ],
    ids=["itself", "linear", "monotone", "rounded", "partly null", "folded and signed"],
)
def test_the_label_in_disguise_is_found(world, expression):
    leaks = found(world.with_columns(disguise=expression), "y", "regression", max_r2=0.98)
    assert [names for names, _ in leaks] == [("disguise",)]


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("late").cast(pl.Int64),
        pl.col("y"),  # of which the label is a threshold
        pl.when("late").then(pl.lit("delayed")).otherwise(pl.lit("fine")),
        pl.when("late").then(None).otherwise(pl.col("a")),  # it is the null that tells
    ],
    ids=["itself", "before the threshold", "in words", "by its nulls"],
)
def test_a_class_in_disguise_is_found(world, expression):
    assert [names for names, _ in found(world.with_columns(disguise=expression), "late", "binary")] == [("disguise",)]


RANGES = [
    pl.col("y") > 8,
    pl.when(pl.col("y") > 8).then(pl.lit("late")).when(pl.col("y") > 2).then(pl.lit("a bit")).otherwise(pl.lit("fine")),
    pl.when(pl.col("y") < 8).then("a"),  # it is the null that tells
]


@pytest.mark.parametrize("expression", RANGES, ids=["threshold", "in words", "by its nulls"])
def test_a_range_of_a_numeric_label_is_found(world, expression):
    assert found(world.with_columns(disguise=expression), "y", "regression") == [(("disguise",), "range")]
    blurred = pl.col("y") + pl.Series(np.random.default_rng(5).normal(size=ROWS))
    noisy = world.with_columns(y=blurred, disguise=expression)  # a sound cause of what is measured
    assert found(noisy, "y", "regression") == []


@pytest.mark.parametrize(
    "expression",
    [
        (pl.col("y") - 5) ** 2,
        (pl.col("y") - pl.col("y").mean()).abs(),
        pl.when(pl.col("a") < 1).then((pl.col("y") / 10).sin()),  # known of most rows only
    ],
    ids=["squared", "distance", "partly null wave"],
)
def test_a_function_that_gives_many_labels_one_value_is_found(world, expression):
    assert found(world.with_columns(copy=expression), "y", "regression") == [(("copy",), "transformation")]
    counts = world.with_columns(pl.col("y").round().mod(40)).with_columns(copy=(pl.col("y") * 7).mod(11))
    assert found(counts, "y", "regression") == [(("copy",), "transformation")]


def test_equal_labels_put_nothing_in_order(world):
    by_year = world.with_columns(y=1.0, year=pl.int_range(pl.len()) // 500)
    assert found(by_year, "y", "regression") == []


def test_rows_that_are_there_twice_put_nothing_in_order(world):
    few = pl.concat([world, world.head(ROWS // 100)])
    assert found(few.drop("id"), "y", "regression") == []
    assert found(pl.concat([world, world]).drop("id"), "y", "regression", max_r2=1.0) == []


def test_rows_sorted_by_the_label_hide_no_pair(world):
    random = np.random.default_rng(5)
    part = pl.Series("part", random.normal(size=ROWS) * 30)
    frame = pl.concat([world.with_columns(part, rest=pl.col("y") - part)] * 2).sort("y")
    assert found(frame.drop("id"), "late", "binary") == [(("part", "rest"), "combination")]


def test_a_class_known_of_few_rows_is_judged_by_these(world):
    rare = world.with_columns(disguise=pl.when(pl.col("a") > 0.8).then("y"))
    assert [names for names, _ in found(rare, "late", "binary")] == [("disguise",)]
    too_few = world.with_columns(disguise=pl.when(pl.int_range(pl.len()) < 150).then(pl.col("b")))
    assert found(too_few, "late", "binary") == []


def test_one_row_of_a_class_is_told_from_the_others_by_nobody(world):
    noise = np.random.default_rng(8).normal(size=(200, 60))
    wide = pl.DataFrame(noise, schema=[f"noise{n}" for n in range(60)]).with_columns(late=pl.int_range(pl.len()) == 7)
    assert found(wide, "late", "binary") == []


def test_infinite_and_missing_numbers_hide_no_leak(world):
    split = world.with_columns(part=pl.col("y") - 10 * pl.col("b"))
    first = pl.int_range(pl.len()) < 5
    infinite = split.with_columns(part=pl.when(first).then(float("inf")).otherwise("part"))
    assert found(infinite, "y", "regression") == [(("b", "part"), "combination")]
    for value in (float("nan"), float("inf")):
        unlabelled = split.with_columns(y=pl.when(first).then(value).otherwise("y"))
        assert found(unlabelled, "y", "regression") == [(("b", "part"), "combination")]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("target", "task"), [("y", "regression"), ("late", "binary")])
def test_two_features_that_give_the_label_together_are_found(world, target, task, sign):
    part = np.random.default_rng(5).normal(size=ROWS) * 30
    split = world.with_columns(part=part).with_columns(rest=sign * (pl.col("y") - pl.col("part")))
    assert found(split, target, task) == [(("part", "rest"), "combination")]
    assert found(split, target, task, pairs=False) == []
    assert found(split, target, task, allow=["rest"]) == []


def test_a_pair_is_compared_where_both_are_known(world):
    part = np.random.default_rng(5).normal(size=ROWS) * 30
    split = world.with_columns(part=part).with_columns(rest=pl.col("y") - pl.col("part"))
    gaps = split.with_columns(
        part=pl.when(pl.int_range(pl.len()) % 3 > 0).then("part"),
        rest=pl.when(pl.int_range(pl.len()) % 5 > 0).then("rest"),
        empty=pl.lit(None, dtype=pl.Float64),
        constant=pl.lit(1.0),
    )
    assert found(gaps, "y", "regression") == [(("part", "rest"), "combination")]


def test_one_of_three_classes_is_enough(world):
    frame = world.with_columns(grade=pl.col("y").bin_quantiles(3, labels=["low", "mid", "high"]).cast(pl.String))
    told = frame.with_columns(hint=(pl.col("grade") == "mid").cast(pl.Int64))
    report = find_leakage(told, infos(told, "y", "late", "grade"), target="grade", task="multiclass")
    assert [leak.features for leak in report.leaks] == [("hint",)]
    assert report.leaks[0].reason == "'hint' is the label in another form (AUC 1.0000)"


def test_few_rows_are_not_judged(world):
    frame = world.head(50).with_columns(copy=pl.col("y"))
    report = find_leakage(frame, infos(frame, "y", "late"), target="y", task="regression")
    assert (report.judged, report.leaks) == (False, ())


@pytest.mark.skipif(not BIKES.exists(), reason=f"no {BIKES}: hours of a bicycle rental with casual, registered, cnt")
def test_casual_and_registered_riders_are_all_riders():
    frame = pl.read_csv(BIKES)
    report = find_leakage(frame, infos(frame, "cnt"), target="cnt", task="regression")
    assert [leak.features for leak in report.leaks] == [("casual", "registered")]
    honest = frame.drop("casual", "registered")
    assert find_leakage(honest, infos(honest, "cnt"), target="cnt", task="regression").leaks == ()


@pytest.mark.slow
@pytest.mark.skipif(not BEANS.exists(), reason=f"no {BEANS}: measures of beans of seven kinds, one much the largest")
def test_a_class_that_stands_apart_is_no_leak():
    beans = pl.read_csv(BEANS)
    assert find_leakage(beans, infos(beans, "Class"), target="Class", task="multiclass").leaks == ()
    named = beans.with_columns(code=pl.col("Class").rank("dense"))
    [leak] = find_leakage(
        named, infos(named, "Class"), target="Class", task="multiclass", limits=Leakage(pairs=False)
    ).leaks
    assert leak.features == ("code",)
    rest = np.random.default_rng(5).normal(size=beans.height) * 30
    split = named.with_columns(rest=rest).with_columns(part=pl.col("code") - pl.col("rest")).drop("code")
    [leak] = find_leakage(split, infos(split, "Class"), target="Class", task="multiclass").leaks
    assert leak.features == ("rest", "part")


@pytest.mark.parametrize("name", ["f", "y", "n", "sum", "mean"])
def test_a_category_may_be_called_as_anything(name: str) -> None:
    draw = np.random.default_rng(0)
    rows = pl.DataFrame({name: ["a", "b"] * 100, "speed": draw.normal(size=200), "late": draw.random(200) < 0.5})
    infos = [
        FeatureInfo(name=name, kind="categorical", source="input"),
        FeatureInfo(name="speed", kind="numeric", source="input"),
    ]
    report = find_leakage(rows, infos, target="late", task="binary")
    assert (report.judged, report.leaks) == (True, ())
