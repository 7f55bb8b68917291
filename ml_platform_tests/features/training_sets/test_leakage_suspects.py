"""What is too good is a leak; what may be too good is shown and stops nothing; what is slow or strong is sound."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.leakage import LeakageReport, find_leakage, single_strength
from ml_platform.spec.model import Leakage
from ml_platform.spec.types import Task

ROWS = 4000
TIMES = pl.datetime_range(
    datetime(2024, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC), "1h", eager=True, time_unit="us"
).head(ROWS)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def world(random: np.random.Generator) -> pl.DataFrame:
    """Three positive causes and a group; nothing of it is the label."""
    a, b, c = (random.gamma(3, 1, ROWS) + 1 for _ in range(3))
    group = random.integers(0, 400, ROWS).astype(str)
    return pl.DataFrame({"time": TIMES, "group": group, "a": a, "b": b, "c": c})


def judge(frame: pl.DataFrame, task: Task = "regression") -> LeakageReport:
    infos = [
        FeatureInfo(name=name, kind="categorical" if kind == pl.String else "numeric", source="input")
        for name, kind in frame.schema.items()
        if name not in {"time", "label"}
    ]
    return find_leakage(frame, infos, target="label", task=task, timestamp="time")


def kinds(findings) -> list[tuple[tuple[str, ...], str]]:
    return [(tuple(sorted(finding.features)), finding.kind) for finding in findings]


def test_independent_features_are_neither(world: pl.DataFrame, random: np.random.Generator) -> None:
    cases: list[tuple[Task, np.ndarray]] = [
        ("regression", random.normal(size=ROWS)),
        ("binary", random.random(ROWS) < 0.1),
    ]
    for task, label in cases:
        report = judge(world.with_columns(label=label), task)
        assert (report.leaks, report.suspects, report.not_judged) == ((), (), "")


def test_a_near_copy_of_a_number_is_suspect(world: pl.DataFrame, random: np.random.Generator) -> None:
    label = random.normal(size=ROWS)
    report = judge(world.with_columns(label=label, copy=label + random.normal(size=ROWS) * 0.146))
    assert report.leaks == ()
    assert kinds(report.suspects) == [(("copy",), "alone")]
    assert report.suspects[0].value == pytest.approx(0.979, abs=0.003)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_a_class_with_three_flips_in_a_hundred_is_suspect(
    world: pl.DataFrame, random: np.random.Generator, share: float
) -> None:
    label = random.random(ROWS) < share
    flipped = np.where(random.random(ROWS) < 0.03, ~label, label)
    report = judge(world.with_columns(label=label, flipped=pl.Series(flipped.astype(str))), "binary")
    assert (report.leaks, kinds(report.suspects)) == ((), [(("flipped",), "alone")])


def test_a_pair_with_noise_of_one_percent_is_suspect(world: pl.DataFrame, random: np.random.Generator) -> None:
    total = world["a"] - 3 * world["b"]
    report = judge(
        world.with_columns(label=total + pl.Series(random.normal(size=ROWS)) * 0.01 * total.to_numpy().std(ddof=1))
    )
    assert (report.leaks, kinds(report.suspects)) == ((), [(("a", "b"), "combination")])


@pytest.mark.parametrize(
    ("label", "names", "kind"),
    [
        (pl.col("a") + pl.col("b") + pl.col("c"), ("a", "b", "c"), "combination"),
        (1e3 * pl.col("a") + 600 * pl.col("b") - 7e2 * pl.col("c") + 4, ("a", "b", "c"), "combination"),
        (pl.col("a") / pl.col("b"), ("a", "b"), "product"),
        (-2 * pl.col("a") * pl.col("b") / pl.col("c"), ("a", "b", "c"), "product"),
        (pl.col("a").sqrt() * pl.col("c").pow(2), ("a", "c"), "product"),
    ],
    ids=["sum of three", "scaled sum of three", "ratio", "product of three", "powers"],
)
def test_exact_combinations_are_leaks(world: pl.DataFrame, label: pl.Expr, names: tuple[str, ...], kind: str) -> None:
    leaks = [leak for leak in judge(world.with_columns(label=label)).leaks if set(leak.features) == set(names)]
    assert [leak.kind for leak in leaks] == [kind]


def test_columns_that_cancel_each_other_out_are_seen(world: pl.DataFrame, random: np.random.Generator) -> None:
    label = random.normal(size=ROWS)
    large = random.normal(size=ROWS) * 1e4
    rest = world.select("time", "group", "b")
    report = judge(rest.with_columns(label=label, x=large + label, y=large + world["a"], z=world["a"]))
    assert kinds(report.leaks) == [(("x", "y", "z"), "combination")]


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (pl.col("a") + pl.col("b") + pl.col("c") > 13, ("a", "b", "c")),
        (pl.col("a") / pl.col("b") > 1.2, ("a", "b")),
    ],
    ids=["threshold of a sum of three", "threshold of a ratio"],
)
def test_classes_told_by_combinations_are_leaks(world: pl.DataFrame, label: pl.Expr, names: tuple[str, ...]) -> None:
    report = judge(world.with_columns(label=label), "binary")
    assert names in [tuple(sorted(leak.features)) for leak in report.leaks]


def test_the_next_rows_label_is_a_leak_and_the_last_is_not(world: pl.DataFrame, random: np.random.Generator) -> None:
    series = pl.Series(np.convolve(random.normal(size=ROWS + 5), np.ones(6), "valid"))
    frame = world.with_columns(label=series, after=series.shift(-1), before=series.shift(1)).slice(1, ROWS - 2)
    report = judge(frame)
    assert (kinds(report.leaks), report.suspects) == ([(("after",), "later label")], ())
    assert "1 row later" in report.leaks[0].reason


def test_a_later_label_is_seen_within_its_group(random: np.random.Generator) -> None:
    groups = pl.DataFrame({"group": [f"shop {n}" for n in range(40)]})
    frame = groups.join(pl.DataFrame({"time": TIMES.head(100)}), how="cross")
    frame = frame.with_columns(label=random.normal(size=frame.height)).with_columns(
        soon=pl.col("label").shift(-2).over("group"), lately=pl.col("label").shift(1).over("group")
    )
    report = judge(frame.sample(fraction=1, shuffle=True, seed=1))
    assert kinds(report.leaks) == [(("soon",), "later label")]
    assert "2 rows later" in report.leaks[0].reason


def test_a_lag_of_a_random_walk_stops_nothing(world: pl.DataFrame, random: np.random.Generator) -> None:
    walk = pl.Series(np.cumsum(random.normal(size=ROWS)))
    report = judge(world.with_columns(label=walk, lag=walk.shift(1)).slice(1))
    assert (report.leaks, kinds(report.suspects)) == ((), [(("lag",), "alone")])
    assert "of the label of the row before" in report.suspects[0].reason


def test_a_strong_sensor_stops_nothing(world: pl.DataFrame, random: np.random.Generator) -> None:
    label = random.normal(size=ROWS)
    report = judge(world.with_columns(label=label, sensor=label + random.normal(size=ROWS) * 0.11))
    assert (report.leaks, kinds(report.suspects)) == ((), [(("sensor",), "alone")])


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("kind", ["mean", "drawn towards a prior", "of the others"])
def test_a_target_encoding_on_the_rows_themselves_is_a_leak(
    world: pl.DataFrame, random: np.random.Generator, task: Task, kind: str
) -> None:
    label = random.normal(size=ROWS) + 5 if task == "regression" else (random.random(ROWS) < 0.3)
    frame = world.with_columns(label=pl.Series(label)).with_columns(y=pl.col("label").cast(pl.Float64))
    n, total = pl.len().over("group"), pl.col("y").sum().over("group")
    encoded = {
        "mean": total / n,
        "drawn towards a prior": (total + 4 * pl.col("y").mean()) / (n + 4),
        "of the others": (total - pl.col("y")) / (n - 1),
    }[kind]
    report = judge(frame.with_columns(encoded=encoded).drop("y"), task)
    assert (("encoded",), "own label") in kinds(report.leaks)
    assert all("encoded" in leak.features for leak in report.leaks)


def test_a_target_encoding_of_earlier_rows_is_sound(world: pl.DataFrame, random: np.random.Generator) -> None:
    frame = world.with_columns(label=pl.Series(random.random(ROWS) < 0.3))
    y = pl.col("label").cast(pl.Float64)
    earlier = (y.cum_sum().over("group") - y + 0.3) / (y.cum_count().over("group"))
    report = judge(frame.with_columns(encoded=earlier), "binary")
    assert (report.leaks, report.suspects) == ((), ())


def test_too_few_rows_are_said(world: pl.DataFrame) -> None:
    report = judge(world.head(99).with_columns(label=pl.col("a")))
    assert (report.judged, report.leaks) == (False, ())
    assert report.not_judged.startswith("99 labelled rows, at least 100 are needed")
    few = judge(world.with_columns(label=pl.int_range(pl.len()) < 3), "binary")
    assert "fewer than 5 rows" in few.not_judged


def test_the_strength_of_allowed_features_is_told_too(world: pl.DataFrame) -> None:
    frame = world.with_columns(label=pl.col("a") * 2)
    infos = [FeatureInfo(name=name, kind="numeric", source="input") for name in ("a", "b")]
    strength = single_strength(frame, infos, target="label", task="regression", limits=Leakage(allow=("a",)))
    assert list(strength) == ["a", "b"]
    assert strength["a"] == pytest.approx(1)
