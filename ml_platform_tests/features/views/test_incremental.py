"""Incremental computation gives what computing from scratch gives, and computes no more than it must."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.features.views.compute import ViewReport, compute_view
from ml_platform.features.views.incremental import STATE
from ml_platform.features.views.load import load_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query import sql
from ml_platform.lake.storage.tables import Lake

START = datetime(2013, 7, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ROLLING = """
description: Sales of a shop.
owner: shops@example.com
entity: [shop]
rolling:
  source: raw/sales
  time: sold_at
  windows: [3 hours, 2 days]
  {every}
  incremental: true
  aggregates:
    sales: {{function: count, description: Sales.}}
    revenue: {{function: sum, column: amount, description: Takings.}}
    largest: {{function: max, column: amount, description: Largest.}}
"""
BY_HAND = """/*
description: Sales of a shop, with the weather of its day before.
owner: shops@example.com
entity: [shop]
columns:
  running: {type: number, description: Takings of a day and a half.}
  rain: {type: number, description: Rain yesterday.}
incremental:
  look_back: 2 days
  times: {raw/sales: sold_at, raw/weather: day}
*/
SELECT DISTINCT s.shop, s.sold_at AS event_time, w.rain,
    sum(s.amount) OVER (PARTITION BY s.shop ORDER BY s.sold_at RANGE INTERVAL 36 HOURS PRECEDING) AS running
FROM raw.sales s LEFT JOIN raw.weather w ON w.day = date_trunc('day', s.sold_at) - INTERVAL 1 DAY
"""
IN_PYTHON = """
import polars as pl
from ml_platform.features.views.polars_view import polars_view

@polars_view(
    description="Sales of the hour before.", owner="a@b", entity=["shop"], sources=["raw/sales"],
    columns={"amount": {"type": "number", "description": "Amount."}},
    incremental={"look_back": "1 hour", "times": {"raw/sales": "sold_at"}},
)
def view(sales: pl.LazyFrame) -> pl.LazyFrame:
    hour = pl.col("sold_at").dt.truncate("1h").dt.offset_by("1h")
    return sales.group_by("shop", event_time=hour).agg(amount=pl.col("amount").sum())
"""
KINDS = {
    "rolling.yaml": ROLLING.format(every=""),
    "at_events.yaml": ROLLING.format(every="rows: events"),
    "ticking.yaml": ROLLING.format(every="every: 30 minutes"),
    "by_hand.sql": BY_HAND,
    "in_python.py": IN_PYTHON,
}


def sales(first: float, last: float, rows: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    at = [START + DAY * float(day) for day in np.sort(random.uniform(first, last, rows))]
    return pl.DataFrame(
        {"sale": [f"{seed}-{n}" for n in range(rows)], "shop": random.choice(["a", "b", "c"], rows), "sold_at": at,
         "amount": random.integers(1, 50, rows).astype(float)},
        schema_overrides={"sold_at": pl.Datetime("us", "UTC")},
    ).with_columns(day=pl.col("sold_at").dt.date())  # fmt: skip


def weather(*days: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"day": [START + DAY * day for day in days], "rain": [float(day) for day in days]},
        schema_overrides={"day": pl.Datetime("us", "UTC")},
    )


@pytest.fixture
def world(lake: Lake) -> Lake:
    lake.append("raw/sales", sales(0, 12, 400, seed=1), partition_by=("day",))
    lake.append("raw/weather", weather(*range(12)))
    return lake


def view_of(folder: Path, kind: str) -> FeatureView:
    (folder / kind).write_text(KINDS[kind])
    return load_view(folder / kind)


def same_as_from_scratch(lake: Lake, view: FeatureView) -> None:
    scratch = view.model_copy(update={"name": f"{view.name}_scratch", "incremental": None})
    compute_view(lake, scratch)
    found, wanted = (
        lake.read(item.table).select(*view.keys, *view.columns).sort(view.keys).collect() for item in (view, scratch)
    )
    assert found.equals(wanted)


def days(report: ViewReport) -> list[tuple[int, int | None]]:
    """Spans as numbers of days since the start."""
    assert report.spans is not None
    first = START.date()
    return [((begin - first).days, (end - first).days if end else None) for begin, end in report.spans]


@pytest.mark.parametrize("kind", KINDS)
def test_new_late_corrected_and_deleted_rows_give_what_from_scratch_gives(world, tmp_path, kind):
    view = view_of(tmp_path, kind)
    assert compute_view(world, view).spans is None, "the first time all days are computed"
    same_as_from_scratch(world, view)
    before = world.version(view.table)
    assert compute_view(world, view).spans == ()
    assert world.version(view.table) == before, "nothing changed, nothing is written"

    world.append("raw/sales", sales(12.1, 13, 30, seed=2))  # the next day
    world.append("raw/weather", weather(12))
    assert compute_view(world, view).spans
    same_as_from_scratch(world, view)

    world.append("raw/sales", sales(4.2, 4.4, 5, seed=3))  # late
    spans = days(compute_view(world, view))
    assert [begin for begin, _ in spans] == [4]
    assert spans[0][1] is not None
    assert spans[0][1] <= 9
    same_as_from_scratch(world, view)

    fifth = world.read("raw/sales").filter(pl.col("day") == date(2013, 7, 6)).collect()
    world.replace("raw/sales", fifth.tail(3).with_columns(pl.col("amount") * 2), where="day = '2013-07-06'")
    assert [begin for begin, _ in days(compute_view(world, view))] == [5]
    same_as_from_scratch(world, view)

    world.append("raw/sales", sales(20, 20.5, 5, seed=4))  # after a gap in which windows emptied
    compute_view(world, view)
    same_as_from_scratch(world, view)


def test_a_change_of_the_other_source_counts_too(world, tmp_path):
    view = view_of(tmp_path, "by_hand.sql")
    compute_view(world, view)
    world.replace("raw/weather", pl.concat([weather(*range(7), *range(8, 12)), weather(7).with_columns(rain=99.0)]))
    assert [begin for begin, _ in days(compute_view(world, view))] == [7]
    same_as_from_scratch(world, view)


def test_rows_written_again_as_they_were_cost_nothing(world, tmp_path):
    view = view_of(tmp_path, "rolling.yaml")
    compute_view(world, view)
    everything = world.read("raw/sales").collect()
    world.replace("raw/sales", everything.filter(pl.col("day") == date(2013, 7, 3)), where="day = '2013-07-03'")
    report = compute_view(world, view)
    assert report.spans == ()
    assert report.tables == {"raw/sales": 1}


def test_a_new_definition_and_a_lost_state_compute_all(world, tmp_path):
    view = view_of(tmp_path, "rolling.yaml")
    compute_view(world, view)
    changed = KINDS["rolling.yaml"].replace("3 hours", "4 hours")
    (tmp_path / "rolling.yaml").write_text(changed)
    other = load_view(tmp_path / "rolling.yaml")
    assert compute_view(world, other).spans is None
    same_as_from_scratch(world, other)
    state = world.read(STATE).filter(pl.col("view") == "rolling").collect()
    assert state.select("source", "version").rows() == [("raw/sales", 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_newest_rows_are_gone_nothing_is_left_after_the_end_of_the_data(world, tmp_path, kind):
    view = view_of(tmp_path, kind)
    world.append("raw/sales", sales(16, 16.1, 3, seed=2))  # windows empty before these
    compute_view(world, view)
    world.replace("raw/sales", world.read("raw/sales").filter(pl.col("sold_at") < START + 12 * DAY).collect())
    assert compute_view(world, view).spans
    same_as_from_scratch(world, view)
    world.replace("raw/sales", world.read("raw/sales").collect().clear())
    compute_view(world, view)
    same_as_from_scratch(world, view)


def test_a_look_back_that_was_too_short_is_mended_by_the_right_one(world, tmp_path):
    (tmp_path / "by_hand.sql").write_text(BY_HAND.replace("look_back: 2 days", "look_back: 0 hours"))
    short = load_view(tmp_path / "by_hand.sql")
    compute_view(world, short)
    world.append("raw/sales", sales(3.9, 3.99, 5, seed=3))
    compute_view(world, short)
    assert compute_view(world, view_of(tmp_path, "by_hand.sql")).spans is None
    same_as_from_scratch(world, view_of(tmp_path, "by_hand.sql"))


def test_what_others_did_to_the_table_is_not_taken_for_its_own(world, tmp_path):
    view = view_of(tmp_path, "rolling.yaml")
    old = compute_view(world, view).version
    world.append("raw/sales", sales(3.2, 3.4, 5, seed=3))
    compute_view(world, view)
    world.restore(view.table, old)
    assert compute_view(world, view).spans is None
    same_as_from_scratch(world, view)
    world.snapshot(view.table).optimize.compact()
    assert compute_view(world, view).spans == (), "other files, the same rows"


def test_it_may_be_asked_for_and_given_up(world, tmp_path):
    view = view_of(tmp_path, "rolling.yaml")
    whole = view.model_copy(update={"incremental": None})
    for present in (whole, view, whole, view):
        world.append("raw/sales", sales(3.2, 3.4, 5, seed=world.version("raw/sales") + 5))
        compute_view(world, present)
        same_as_from_scratch(world, view)


@pytest.mark.parametrize("kind", ["by_hand.sql", "in_python.py", "rolling.yaml"])
def test_rows_of_a_day_may_carry_its_date(lake, tmp_path, kind):
    dated = sales(0, 12, 60, seed=1).with_columns(pl.col("sold_at").dt.date())
    lake.append("raw/sales", dated.unique(["shop", "sold_at"]))
    lake.append("raw/weather", weather(*range(12)).with_columns(pl.col("day").dt.date()))
    (tmp_path / kind).write_text(
        KINDS[kind]
        .replace("s.sold_at AS", "s.sold_at::TIMESTAMPTZ AS")
        .replace('pl.col("sold_at")', 'pl.col("sold_at").cast(pl.Datetime("us", "UTC"))')
    )
    view = load_view(tmp_path / kind)
    compute_view(lake, view)
    same_as_from_scratch(lake, view)
    lake.append("raw/sales", dated.filter(pl.col("sold_at") == date(2013, 7, 4)).head(1).with_columns(shop=pl.lit("d")))
    assert [begin for begin, _ in days(compute_view(lake, view))] == [3]
    same_as_from_scratch(lake, view)


def test_the_report_is_of_the_whole_table(world, tmp_path):
    view = view_of(tmp_path, "by_hand.sql")
    compute_view(world, view)
    world.append("raw/sales", sales(3.2, 3.4, 5, seed=3))
    report = compute_view(world, view)
    table = world.read(view.table).collect()
    assert (report.rows, report.newest) == (table.height, table["event_time"].max())
    assert report.null_share == {"running": 0.0, "rain": table["rain"].null_count() / table.height}


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("{raw/sales: sold_at}", r"must name the time column of every source; missing \['raw/weather'\]"),
        ("{raw/sales: sold_at, raw/weather: day, raw/wether: day}", r"names \['raw/wether'\], which the view does not"),
        ("{raw/sales: sold, raw/weather: day}", r"found 'sold': there is no such column; .*\['sold_at', 'day'\]"),
        ("{raw/sales: sold_at, raw/weather: rain}", r"raw/weather, found 'rain': it is Float64; .*\['day'\]"),
    ],
)
def test_a_wrong_time_of_a_source_is_named_before_anything_is_computed(world, tmp_path, times, message):
    (tmp_path / "by_hand.sql").write_text(BY_HAND.replace("{raw/sales: sold_at, raw/weather: day}", times))
    view = load_view(tmp_path / "by_hand.sql")
    with pytest.raises(ValueError, match=message):
        compute_view(world, view)
    assert not world.exists(view.table)


def test_it_changes_no_meaning(tmp_path):
    view = view_of(tmp_path, "by_hand.sql")
    assert view.hash == view.model_copy(update={"incremental": None}).hash
    assert sql.referenced_tables(view.sql) == {"raw/sales", "raw/weather"}


@pytest.mark.parametrize("kind", ["rolling.yaml", "at_events.yaml", "by_hand.sql", "in_python.py"])
@pytest.mark.parametrize(("span", "look_back"), [("3 hours", "3 days"), ("999999999 days", "999999999 days")])
def test_the_first_and_the_last_days_with_spans_of_any_length(lake, tmp_path, kind, span, look_back):
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 22, 59, 59, 999_999, tzinfo=UTC)
    edges = sales(0, 12, 60, seed=1).with_columns(
        sold_at=pl.Series([first, first + HOUR, *[START] * 56, last - HOUR, last], dtype=pl.Datetime("us", "UTC"))
    )
    lake.append("raw/sales", edges.with_columns(day=pl.col("sold_at").dt.date()))
    lake.append("raw/weather", weather(*range(3)))
    text = KINDS[kind].replace("3 hours", span).replace("look_back: 2 days", f"look_back: {look_back}")
    (tmp_path / kind).write_text(text.replace('"look_back": "1 hour"', f'"look_back": "{look_back}"'))
    view = load_view(tmp_path / kind)
    report = compute_view(lake, view)
    same_as_from_scratch(lake, view)
    assert report.newest == last or kind == "in_python.py"
    again = edges.with_columns(sale=pl.col("sale") + "-again").filter(pl.col("sold_at").is_in([first, last]))
    lake.append("raw/sales", again.with_columns(day=pl.col("sold_at").dt.date()))
    spans = compute_view(lake, view).spans
    assert spans is not None
    assert {begin for begin, _ in spans} <= {first.date(), last.date()}
    same_as_from_scratch(lake, view)


def test_a_span_that_no_clock_has():
    with pytest.raises(ValueError, match="wanted at most 999,999,999 days, found '1000000000 days'"):
        FeatureView.model_validate({"name": "a", "ttl": "1000000000 days"})
