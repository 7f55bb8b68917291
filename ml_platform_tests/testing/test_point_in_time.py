"""Views that keep to what was known, and views that look ahead, each in its own way."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.testing import Arrives, SampleHome, as_of_join, check_view_is_point_in_time
from ml_platform.testing.as_of_join import newest_known
from ml_platform_tests.testing.shop_project import LOADS, ShopProject

Home = Callable[..., SampleHome]
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _view(select: str, *, more: str = "", columns: str = "value: {type: number, description: A value.}") -> str:
    return (
        "/*\ndescription: A view.\nowner: shops@example.com\nentity: [shop]\nttl: 3 days\n"
        f"{more}columns:\n  {columns}\n*/\n{select}\n"
    )


_GRID = """
    SELECT shop, event_time, (
        SELECT count(*) FROM raw.loads AS one WHERE one.shop = grid.shop AND one.seen_at <= grid.event_time
    )::DOUBLE AS value
    FROM (
        SELECT shop, unnest(generate_series(min(seen_at), (SELECT max(seen_at) FROM raw.loads), INTERVAL 6 HOURS))
            AS event_time
        FROM raw.loads GROUP BY shop
    ) AS grid
"""


def _over(source: str, time: str, value: str, bounds: str) -> str:
    window = f"(PARTITION BY shop ORDER BY {time} {bounds})"
    return f"SELECT shop, {time} AS event_time, {value} OVER {window} AS value FROM {source}"


KEPT = {
    "of the row itself": "SELECT shop, seen_at AS event_time, load AS value FROM raw.loads",
    "over rows before": _over("raw.loads", "seen_at", "avg(load)", ""),
    "on a grid of hours to the newest event": _GRID,
    "of another view": _over("features.shop_load", "event_time", "max(load)", ""),
}
AHEAD = {
    "over the next row": _over("raw.loads", "seen_at", "avg(load)", "ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING"),
    "over the next hours": _over(
        "raw.loads", "seen_at", "sum(load)", "RANGE BETWEEN CURRENT ROW AND INTERVAL 30 HOURS FOLLOWING"
    ),
    "over all rows": "SELECT shop, seen_at AS event_time, load / max(load) OVER () AS value FROM raw.loads",
    "of another view": _over("features.shop_load", "event_time", "lead(load)", ""),
}


@pytest.mark.parametrize("select", KEPT.values(), ids=KEPT)
def test_a_view_that_keeps_to_what_was_known_passes(project: ShopProject, make_home: Home, select: str) -> None:
    project.write_view("tried", _view(select))
    check_view_is_point_in_time("tried", make_home())


@pytest.mark.parametrize("select", AHEAD.values(), ids=AHEAD)
def test_a_view_that_looks_ahead_is_told_with_values_as_they_were_and_as_they_are(
    project: ShopProject, make_home: Home, select: str
) -> None:
    project.write_view("tried", _view(select))
    with pytest.raises(AssertionError, match="have other values") as caught:
        check_view_is_point_in_time("tried", make_home())
    assert "It looks ahead" in str(caught.value)
    assert "shop = shop-" in str(caught.value)
    assert " → " in str(caught.value)


def test_an_event_that_counts_before_it_was_known_is_told(project: ShopProject, make_home: Home) -> None:
    project.write_view(
        "tried", _view("SELECT shop, seen_at - INTERVAL 1 DAY AS event_time, load AS value FROM raw.loads")
    )
    with pytest.raises(AssertionError, match="exist only because of later rows"):
        check_view_is_point_in_time("tried", make_home())


def test_rows_that_later_rows_take_away_are_told(project: ShopProject, make_home: Home) -> None:
    newest = "QUALIFY row_number() OVER (PARTITION BY shop ORDER BY seen_at DESC) = 1"
    project.write_view("tried", _view(f"SELECT shop, seen_at AS event_time, load AS value FROM raw.loads {newest}"))
    with pytest.raises(AssertionError, match="vanish because of later rows"):
        check_view_is_point_in_time("tried", make_home())


def test_a_view_in_python_is_judged_too(project: ShopProject, make_home: Home) -> None:
    text = (
        "import polars as pl\n\nfrom ml_platform.features.views.polars_view import polars_view\n\n\n"
        "@polars_view(description='A view.', owner='shops@example.com', entity=['shop'], sources=['raw/loads'],\n"
        "    columns={'value': {'type': 'number', 'description': 'A value.'}})\n"
        "def view(loads: pl.LazyFrame) -> pl.LazyFrame:\n"
        "    value = pl.col('load').shift(NUMBER).over('shop', order_by='seen_at')\n"
        "    return loads.select('shop', value=value, event_time='seen_at')\n"
    )
    for name, number in (("back", 1), ("ahead", -1)):
        (project.defs / "features" / f"{name}.py").write_text(text.replace("NUMBER", str(number)))
    home = make_home()
    check_view_is_point_in_time("back", home)
    with pytest.raises(AssertionError, match="have other values"):
        check_view_is_point_in_time("ahead", home)


ORDERS = "SELECT shop, {at} AS event_time, avg(late::INT) AS value FROM raw.orders GROUP BY ALL"
LATE = Arrives(filled={"known_at": ["late", "minutes", "outcome"]})


def test_of_a_source_with_several_times_somebody_must_say_when_its_rows_are_known(
    project: ShopProject, make_home: Home
) -> None:
    project.write_view("tried", _view(ORDERS.format(at="known_at")))
    with pytest.raises(AssertionError, match=r"2 times to choose from: ordered_at, known_at.*arrives=\{'raw/orders'"):
        check_view_is_point_in_time("tried", make_home())


def test_columns_that_are_filled_later_count_from_then_on(project: ShopProject, make_home: Home) -> None:
    """Whether an order is late is known when it arrives, five hours after it is there."""
    where = "FROM raw.orders WHERE late IS NOT NULL"
    for name, at in (("kept", "known_at"), ("ahead", "ordered_at")):
        project.write_view(name, _view(ORDERS.format(at=at).replace("FROM raw.orders", where)))
    home = make_home(arrives={"raw/orders": LATE})
    check_view_is_point_in_time("kept", home)
    with pytest.raises(AssertionError, match="exist only because of later rows"):
        check_view_is_point_in_time("ahead", home)


def test_a_delay_of_all_rows_is_taken_into_account(project: ShopProject, make_home: Home) -> None:
    project.write_view("tried", _view(KEPT["of the row itself"]))
    home = make_home(arrives={"raw/loads": Arrives("seen_at", after=timedelta(days=1))})
    with pytest.raises(AssertionError, match="exist only because of later rows"):
        check_view_is_point_in_time("tried", home)


def test_the_time_that_incremental_names_is_taken(project: ShopProject, make_home: Home) -> None:
    more = "incremental:\n  look_back: 1 day\n  times: {raw/orders: ordered_at}\n"
    select = "SELECT shop, ordered_at AS event_time, max(weight) AS value FROM raw.orders GROUP BY ALL"
    project.write_view("tried", _view(select, more=more))
    check_view_is_point_in_time("tried", make_home())


def test_an_incremental_view_that_reaches_less_far_back_than_it_promises_is_told(
    project: ShopProject, make_home: Home
) -> None:
    select = _over("raw.loads", "seen_at", "avg(load)", "RANGE INTERVAL 5 DAYS PRECEDING")
    more = "incremental:\n  look_back: {} days\n  times: {{raw/loads: seen_at}}\n"
    project.write_view("kept", _view(select, more=more.format(6)))
    project.write_view("short", _view(select, more=more.format(2)))
    home = make_home()
    check_view_is_point_in_time("kept", home)
    with pytest.raises(AssertionError, match=r"(?s)have other values.*Its declaration is wrong"):
        check_view_is_point_in_time("short", home)


def test_rows_created_later_than_an_instant_are_not_wanted_at_it(
    project: ShopProject, tables: tuple[pl.DataFrame, pl.DataFrame], make_home: Home
) -> None:
    """Every load is reported twice: at once, and corrected a day later, which counts from then on."""
    loads = tables[1].with_columns(written_at=pl.col("seen_at"))
    again = loads.with_columns(pl.col("load") + 1, pl.col("written_at") + timedelta(days=1))
    columns = {**LOADS, "written_at": {"type": "timestamp", "key": True}}
    project.write_source("loads", columns, pl.concat([loads, again]))
    select = "SELECT shop, seen_at AS event_time, written_at, load AS value FROM raw.loads"
    project.write_view("tried", _view(select, more="created: written_at\n"))
    check_view_is_point_in_time("tried", make_home(arrives={"raw/loads": Arrives("written_at")}))


@pytest.mark.parametrize("condition", ["false", "seen_at = (SELECT max(seen_at) FROM raw.loads)"])
def test_a_view_of_which_nothing_can_be_compared_is_no_success(
    project: ShopProject, make_home: Home, condition: str
) -> None:
    select = f"SELECT shop, seen_at AS event_time, load AS value FROM raw.loads WHERE {condition}"
    project.write_view("tried", _view(select))
    with pytest.raises(AssertionError, match=r"wanted rows to compare|vanish because of later rows"):
        check_view_is_point_in_time("tried", make_home())


def test_a_source_without_a_time_is_known_from_the_beginning(project: ShopProject, make_home: Home) -> None:
    project.write_source(
        "shops", {"shop": {"type": "string", "key": True}, "area": {"type": "number"}},
        pl.DataFrame({"shop": ["shop-0", "shop-1"], "area": [10.0, 20.0]}),
    )  # fmt: skip
    project.write_view(
        "tried", _view("SELECT shop, TIMESTAMPTZ '2000-01-01 00:00:00+00' AS event_time, area AS value FROM raw.shops")
    )
    check_view_is_point_in_time("tried", make_home())


def test_a_table_that_nobody_declares_is_taken_from_the_samples(
    project: ShopProject, tables: tuple[pl.DataFrame, pl.DataFrame], make_home: Home
) -> None:
    project.write_view("tried", _view(KEPT["over rows before"].replace("raw.loads", "upstream.loads")))
    with pytest.raises(
        AssertionError, match=r"neither a raw table nor a feature view .*/samples/upstream/loads\.parquet"
    ):
        check_view_is_point_in_time("tried", make_home(samples=project.root / "samples"))
    (project.root / "samples" / "upstream").mkdir(parents=True)
    tables[1].write_parquet(project.root / "samples" / "upstream" / "loads.parquet")
    check_view_is_point_in_time("tried", make_home(samples=project.root / "samples"))


@pytest.mark.parametrize(
    "fault",
    [
        {"ttl": None},  # expired rows are joined
        {"ttl": timedelta(days=3) - timedelta(microseconds=1)},  # as if the TTL were exclusive
        {"event_time": "created"},
    ],
    ids=str,
)
def test_an_engine_that_joins_otherwise_is_found_out(
    project: ShopProject, make_home: Home, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """The engine's own join, told something else than the view declares."""
    select = "SELECT shop, seen_at AS event_time, seen_at - INTERVAL 1 HOUR AS created, load AS value FROM raw.loads"
    project.write_view("tried", _view(select, more="created: created\n"))
    check_view_is_point_in_time("tried", make_home())

    def faulty(spine: pl.LazyFrame, lookups: list[Any], *, timestamp: str) -> pl.LazyFrame:
        return point_in_time_join(spine, [replace(one, **fault) for one in lookups], timestamp=timestamp)

    monkeypatch.setattr(as_of_join, "point_in_time_join", faulty)
    with pytest.raises(AssertionError, match="differs from the brute-force one"):
        check_view_is_point_in_time("tried", make_home())


def _sales(created: str | None, ttl: timedelta | None) -> FeatureView:
    return FeatureView(
        name="sales", description="Sales.", owner="shops@example.com", entity=("shop",), created=created, ttl=ttl,
        columns={"sales": FeatureColumn(type="integer", description="Sales.")}, sql="SELECT 1",
    )  # fmt: skip


def test_the_plain_rule_by_hand() -> None:
    rows = [
        {"event_time": NOON + hours * HOUR, "written": NOON + written * HOUR, "sales": sales}
        for hours, written, sales in ((0, 0, 1), (0, 2, 2), (1, 5, 3))
    ]
    plain, by_creation = _sales(None, HOUR), _sales("written", HOUR)

    def sales(view: FeatureView, at: timedelta, *, knowledge_time: bool = False) -> int | None:
        found = newest_known(rows, NOON + at, view, knowledge_time=knowledge_time)
        return None if found is None else found["sales"]

    microsecond = timedelta(microseconds=1)
    assert sales(plain, -microsecond) is None  # nothing was known yet
    assert sales(plain, HOUR) == 3  # at the very instant
    assert sales(plain, 2 * HOUR) == 3  # as old as may be
    assert sales(plain, 2 * HOUR + microsecond) is None  # and no older one comes back
    assert sales(by_creation, HOUR - microsecond) == 2  # of two at once the one written last
    assert sales(by_creation, HOUR - microsecond, knowledge_time=True) == 1
    assert sales(_sales("written", None), 4 * HOUR, knowledge_time=True) == 2
