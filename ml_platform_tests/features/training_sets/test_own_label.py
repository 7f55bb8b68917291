"""Means that hold their row's own label, among more rows than are looked at first."""

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.leakage.own_label import OwnLabels

ROWS = 30_000


@pytest.fixture(scope="module")
def world() -> pl.DataFrame:
    """Labels by shop, of 3,000 shops, a few of them large; and by town, of 40."""
    random = np.random.default_rng(0)
    shop = np.where(random.random(ROWS) < 0.3, random.integers(0, 5, ROWS), random.integers(5, 3_000, ROWS))
    town = random.integers(0, 40, ROWS)
    return pl.DataFrame(
        {
            "shop": [f"shop-{number}" for number in shop],
            "town": [f"town-{number}" for number in town],
            "late": (random.random(ROWS) < 0.2 + 0.1 * (shop % 5)).astype(np.float64),
            "minutes": random.exponential(20, ROWS) + shop % 7 + town,
            "noise": random.normal(size=ROWS),
            "rounded": random.normal(size=ROWS).round(2),
        }
    )


def encodings(label: str, key: str) -> dict[str, pl.Expr]:
    total, count, overall = pl.col(label).sum().over(key), pl.len().over(key), pl.col(label).mean()
    return {
        "mean": total / count,
        "towards a prior": (total + 10 * overall) / (count + 10),
        "of the others": (total - pl.col(label)) / (count - 1),
    }


@pytest.mark.parametrize("name", ["mean", "towards a prior", "of the others"])
@pytest.mark.parametrize(("label", "key"), [("late", "shop"), ("minutes", "shop"), ("minutes", "town")])
def test_encodings_are_found(world: pl.DataFrame, label: str, key: str, name: str) -> None:
    frame = world.with_columns(encodings(label, key)[name].alias("encoded"))
    assert OwnLabels(frame, [frame[label].to_numpy()], ["town", "shop"]).hold("encoded")
    if name == "mean" or (name, label) == ("towards a prior", "minutes"):
        # By its values alone, where two groups seldom have the same one.
        assert OwnLabels(frame, [frame[label].to_numpy()], []).hold("encoded")


@pytest.mark.parametrize("label", ["late", "minutes"])
def test_what_knows_less_is_not(world: pl.DataFrame, label: str) -> None:
    """Noise, encodings of another label, with a little noise, and of a single row's change."""
    other = "minutes" if label == "late" else "late"
    frame = world.with_columns(
        encodings(other, "shop")["mean"].alias("other"),
        (encodings(label, "shop")["mean"] + 0.01 * pl.col("noise")).alias("noisy"),
        pl.col("shop").str.len_chars().cast(pl.Float64).alias("length"),
        pl.lit(1.0).alias("constant"),
    )
    search = OwnLabels(frame, [frame[label].to_numpy()], ["town", "shop"])
    columns = ["noise", "rounded", "other", "noisy", "length", "constant", label]
    assert [name for name in columns if search.hold(name)] == []


def test_rows_without_a_value_say_nothing(world: pl.DataFrame) -> None:
    """A mean that is null in a third of the rows is that of other rows than those it is compared with."""
    frame = world.filter(pl.int_range(pl.len()) % 3 > 0)
    frame = pl.concat(
        [frame.with_columns(encodings("late", "shop")["mean"].alias("encoded")), world.head(9_000)], how="diagonal"
    )
    search = OwnLabels(frame, [frame["late"].to_numpy()], ["shop"])
    assert frame["encoded"].null_count() == 9_000
    assert search.hold("encoded")
