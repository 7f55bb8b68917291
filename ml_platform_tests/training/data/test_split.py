from datetime import datetime
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_platform.training.data.split import refit_rows, split_by_time
from ml_platform_tests.toy_world import shop_spec

START = datetime(2024, 1, 1, tzinfo=UTC)


def frame(days: int = 60, label_after: timedelta = timedelta(hours=5)) -> pl.DataFrame:
    at = [START + timedelta(hours=6 * i) for i in range(4 * days)]
    return pl.DataFrame(
        {
            "order_id": [f"o{i:04}" for i in range(len(at))],
            "ordered_at": at,
            "known_at": [instant + label_after for instant in at],
        }
    )


def test_parts_are_ordered_apart_and_end_at_the_newest_row() -> None:
    parts = split_by_time(frame(), shop_spec())
    bounds = parts.bounds
    assert bounds.holdout.last == frame()["ordered_at"].max()
    assert bounds.holdout.last - bounds.holdout.first < timedelta(days=14)
    assert bounds.holdout.first - bounds.validation.last > timedelta(days=1)
    assert bounds.validation.first - bounds.train.last > timedelta(days=1)
    assert parts.train.height == bounds.train.rows
    ids = [set(part["order_id"]) for part in (parts.train, parts.validation, parts.holdout)]
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]
    assert not ids[0] & ids[2]


def test_order_of_the_rows_does_not_matter() -> None:
    shuffled = frame().sample(fraction=1.0, shuffle=True, seed=3)
    assert split_by_time(shuffled, shop_spec()).train.equals(split_by_time(frame(), shop_spec()).train)


@pytest.mark.parametrize("late", [timedelta(days=1), timedelta(days=3), timedelta(days=9)])
def test_labels_were_known_before_the_next_part(late: timedelta) -> None:
    parts = split_by_time(frame(label_after=late), shop_spec())
    for before, after in ((parts.train, parts.validation), (parts.validation, parts.holdout)):
        newest, oldest = before["known_at"].max(), after["ordered_at"].min()
        assert isinstance(newest, datetime)
        assert isinstance(oldest, datetime)
        assert newest < oldest


def test_history_bounds_the_training_rows() -> None:
    spec = shop_spec(split={"holdout": "7 days", "validation": "7 days", "gap": "1 day", "history": "10 days"})
    train = split_by_time(frame(), spec).bounds.train
    assert train.rows == 40
    assert train.last - train.first < timedelta(days=10)


@pytest.mark.parametrize("part", ["holdout", "validation", "gap"])
def test_a_part_longer_than_the_calendar_is_told_as_any_other_too_long(part: str) -> None:
    days = {"holdout": "7 days", "validation": "7 days", "gap": "1 day", part: "999999999 days"}
    with pytest.raises(ValueError, match=r"no rows are left for the (training|validation) part.*999999999 days"):
        split_by_time(frame(), shop_spec(split=days))


def test_a_history_longer_than_the_calendar_is_all_of_it() -> None:
    days = {"holdout": "7 days", "validation": "7 days", "gap": "1 day"}
    spec = shop_spec(split={**days, "history": "999999999 days"})
    everything = frame()
    assert split_by_time(everything, spec).train.equals(split_by_time(everything, shop_spec(split=days)).train)
    assert refit_rows(everything, spec).height == everything.height


@pytest.mark.parametrize("year", [1, 9999])
def test_rows_at_the_ends_of_the_calendar_are_split_like_others(year: int) -> None:
    days = {"holdout": "7 days", "validation": "7 days", "gap": "1 day", "history": "300 days"}
    first = datetime(year, 1, 1, tzinfo=UTC)
    moved = frame().with_columns(pl.col("ordered_at", "known_at") + (first - START))
    parts, spec = split_by_time(moved, shop_spec(split=days)), shop_spec(split=days)
    assert parts.train["order_id"].to_list() == split_by_time(frame(), spec).train["order_id"].to_list()
    assert refit_rows(moved, spec).height == moved.height


def test_too_short_a_range_says_what_is_wanted_and_found() -> None:
    with pytest.raises(ValueError, match=r"no rows are left for the training part.*2024-01-01 to 2024-01-20"):
        split_by_time(frame(days=20), shop_spec())
    with pytest.raises(ValueError, match="the training set has no rows"):
        split_by_time(frame().clear(), shop_spec())
