"""Rolling aggregates from YAML: by brute force at every instant, and equal to a hand-written query."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.online.publish import latest_rows
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_view, load_views
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.lineage import KEY, view_lineage

START = datetime(2013, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOWS = {"3h": 3 * HOUR, "1d": 24 * HOUR}
DECLARED = """
description: How a till has been selling.
owner: shops@example.com
entity: [shop, till]
ttl: 2 days
rolling:
  source: raw/sales
  time: sold_at
  filter: status <> 'void'
  windows: [3 hours, 1 day]
{every}
  aggregates:
    sales: {{function: count, description: Sales.}}
    revenue: {{function: sum, column: amount, unit: EUR, description: Takings.}}
    basket: {{function: mean, column: amount, unit: EUR, description: Mean sale.}}
    smallest: {{function: min, column: amount, unit: EUR, description: Smallest sale.}}
    largest: {{function: max, column: amount, unit: EUR, description: Largest sale.}}
    clerks: {{function: distinct, column: clerk, description: Clerks seen.}}
    last_clerk: {{function: last, column: clerk, type: string, description: Who sold last.}}
"""
SINCE = "    quiet: {function: time_since, description: Time since the last sale.}\n"


def sales(rows: int = 300) -> pl.DataFrame:
    random = np.random.default_rng(17)
    hours = np.sort(random.uniform(0, 96, rows)).round(1)  # so that some fall on one instant
    return pl.DataFrame(
        {
            "shop": [None if n % 41 == 0 else ("a", "b")[n % 2] for n in range(rows)],
            "till": random.integers(1, 3, rows),
            "sold_at": [None if n % 43 == 0 else START + HOUR * float(hour) for n, hour in enumerate(hours)],
            "amount": [None if n % 7 == 0 else float(v) for n, v in enumerate(random.normal(20, 5, rows))],
            "clerk": [f"c{v}" for v in random.integers(0, 4, rows)],
            "status": [None if n % 37 == 0 else ("void" if n % 11 == 0 else "ok") for n in range(rows)],
        },
        schema_overrides={"sold_at": pl.Datetime("us", "UTC")},
    )


def write(folder: Path, every: str = "") -> Path:
    text = DECLARED.format(every=f"  every: {every}" if every else "") + (SINCE if every else "")
    path = folder / "till_sales.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def sold(lake: Lake) -> Lake:
    lake.append("raw/sales", sales())
    return lake


def expected(events: list[dict[str, Any]], shop: str, till: int, now: datetime) -> dict[str, Any]:
    mine = [e for e in events if (e["shop"], e["till"]) == (shop, till) and e["sold_at"] <= now]
    found: dict[str, Any] = {}
    for name, window in WINDOWS.items():
        inside = [e for e in mine if e["sold_at"] > now - window]
        amounts = [e["amount"] for e in inside if e["amount"] is not None]
        found |= {
            f"sales_{name}": len(inside),
            f"revenue_{name}": sum(amounts),
            f"basket_{name}": sum(amounts) / len(amounts) if amounts else None,
            f"smallest_{name}": min(amounts, default=None),
            f"largest_{name}": max(amounts, default=None),
            f"clerks_{name}": len({e["clerk"] for e in inside}),
            f"last_clerk_{name}": max(inside, key=lambda e: (e["sold_at"], e["clerk"]))["clerk"] if inside else None,
        }
    return found


def counted(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.read("raw/sales").filter(pl.col("status") != "void").drop_nulls(["shop", "sold_at"])
    return rows.collect().to_dicts()


def test_the_newest_row_is_exact_at_any_instant(sold, tmp_path):
    view = load_view(write(tmp_path))
    compute_view(sold, view)
    rows = sold.read(view.table).collect()
    events = counted(sold)
    for n in range(55):  # up to the newest event
        now = START + HOUR * (1 + n * 1.7)
        for shop, till in (("a", 1), ("b", 2)):
            past = rows.filter(shop=shop, till=till).filter(pl.col("event_time") <= now).sort("event_time")
            wanted = expected(events, shop, till, now)
            if past.is_empty():
                assert wanted["sales_1d"] == 0
                continue
            newest = past.row(-1, named=True)
            assert {name: newest[name] for name in wanted} == pytest.approx(wanted), (now, shop, till)


def test_on_a_clock_every_tick_is_exact_and_time_since_grows(sold, tmp_path):
    view = load_view(write(tmp_path, every="30 minutes"))
    compute_view(sold, view)
    rows = sold.read(view.table).sort("event_time").collect()
    events = counted(sold)
    assert all(
        row["event_time"].minute in {0, 30} and row["event_time"].second == 0 for row in rows.iter_rows(named=True)
    )
    for row in rows.gather_every(7).to_dicts():
        wanted = expected(events, row["shop"], row["till"], row["event_time"])
        assert {name: row[name] for name in wanted} == pytest.approx(wanted), row["event_time"]
        mine = [
            e["sold_at"] for e in events
            if (e["shop"], e["till"]) == (row["shop"], row["till"]) and e["sold_at"] <= row["event_time"]
        ]  # fmt: skip
        age = row["event_time"] - max(mine)
        assert row["quiet"] == (pytest.approx(age.total_seconds()) if age < 24 * HOUR else None)
    ticks = rows.filter(shop="a", till=1)["event_time"].diff().drop_nulls()
    assert ticks.min() == ticks.max() == HOUR / 2


def test_no_row_is_later_than_the_newest_event_anywhere(sold, tmp_path):
    late = pl.DataFrame({**sales(2).row(1, named=True), "sold_at": START + 200 * HOUR, "shop": "c", "status": "void"})
    sold.append("raw/sales", late.with_columns(pl.col("sold_at").cast(pl.Datetime("us", "UTC"))))
    view = load_view(write(tmp_path))
    report = compute_view(sold, view)
    assert report.newest is not None
    assert report.newest <= START + 200 * HOUR
    empty = latest_rows(sold, view)
    assert empty["sales_1d"].to_list() == [0] * empty.height, "a void sale moved the clock on, and the windows emptied"
    assert set(empty["shop"]) == {"a", "b"}


def test_it_equals_a_query_written_by_hand(sold, tmp_path):
    (tmp_path / "by_hand.sql").write_text(
        dedent("""\
        /*
        description: Sales of a shop at each of its sales.
        owner: shops@example.com
        entity: [shop]
        columns:
          sales_3h: {type: integer, description: Sales.}
          revenue_3h: {type: number, description: Takings.}
        */
        SELECT DISTINCT
            shop, sold_at AS event_time, count(*) OVER w AS sales_3h, coalesce(sum(amount) OVER w, 0) AS revenue_3h
        FROM raw.sales WHERE shop IS NOT NULL AND sold_at IS NOT NULL
        WINDOW w AS (PARTITION BY shop ORDER BY sold_at
            RANGE BETWEEN INTERVAL '2 hours 59 minutes 59.999999 seconds' PRECEDING AND CURRENT ROW)
        """)
    )
    (tmp_path / "declared.yaml").write_text(
        dedent("""\
        description: Sales of a shop.
        owner: shops@example.com
        entity: [shop]
        rolling:
          source: raw/sales
          time: sold_at
          windows: [3 hours]
          aggregates:
            sales: {function: count, description: Sales.}
            revenue: {function: sum, column: amount, description: Takings.}
        """)
    )
    views = load_views(tmp_path)
    for view in views.values():
        compute_view(sold, view)
    by_hand = sold.read("features/by_hand").collect()
    declared = sold.read("features/declared").collect()
    both = by_hand.join(declared, on=["shop", "event_time"], suffix="_declared", how="left")
    assert both["sales_3h"].to_list() == both["sales_3h_declared"].to_list()
    assert both["revenue_3h"].to_list() == pytest.approx(both["revenue_3h_declared"].to_list())
    assert declared.height > by_hand.height, "and a row when a sale leaves the window"


def test_it_is_a_view_like_any_other(sold, tmp_path):
    view = load_view(write(tmp_path))
    assert (view.name, view.table, view.source_tables, view.ttl) == (
        "till_sales", "features/till_sales", ("raw/sales",), timedelta(days=2),
    )  # fmt: skip
    assert (view.columns["sales_3h"].type, view.columns["last_clerk_1d"].type) == ("integer", "string")
    assert (view.columns["revenue_1d"].description, view.columns["revenue_1d"].unit) == ("Takings, last 1d.", "EUR")
    text = write(tmp_path).read_text()
    write(tmp_path).write_text(text.replace("Takings.", "What was taken."))
    assert load_view(tmp_path / "till_sales.yaml").hash == view.hash, "prose changes no meaning"
    write(tmp_path).write_text(text.replace("3 hours", "4 hours"))
    assert load_view(tmp_path / "till_sales.yaml").hash != view.hash
    lineage = view_lineage(view, sold)[KEY]
    assert "amount" in {dep.column_name for dep in lineage.deps_by_column["revenue_3h"]}


def test_rows_at_events_alone_have_the_same_values_and_stand_until_the_next_event(sold, tmp_path):
    path = write(tmp_path)
    whole = load_view(path)
    compute_view(sold, whole)
    at_changes = sold.read(whole.table).collect()
    path.write_text(path.read_text().replace("  filter:", "  rows: events\n  filter:"))
    view = load_view(path)
    assert view.hash != whole.hash
    report = compute_view(sold, view)
    rows = sold.read(view.table).collect()
    events = pl.DataFrame(counted(sold)).select("shop", "till", "sold_at").unique()
    assert report.rows == rows.height == events.height < at_changes.height
    same_instants = at_changes.join(rows, on=view.keys, how="semi")
    assert_frame_equal(rows.sort(view.keys), same_instants.sort(view.keys))
    newest = latest_rows(sold, view)
    last = events.group_by("shop", "till").agg(pl.col("sold_at").max())
    assert newest.join(last, left_on=["shop", "till", "event_time"], right_on=["shop", "till", "sold_at"]).height == 4
    assert (newest["sales_3h"] >= 1).all(), "no window is empty at an event"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("function: mean, column: amount", "function: mean", "function mean needs a `column`"),
        ("function: count,", "function: count, column: amount,", "function count takes no `column`"),
        ("windows: [3 hours, 1 day]", "windows: [1 day, 24 hours]", "one appears twice"),
        ("windows: [3 hours, 1 day]", "windows: []", "windows"),
        (
            "windows: [3 hours, 1 day]",
            "windows: [3h, 1 day]",
            r"windows.0: wanted a number and a unit .*'6 hours'.*'3h'",
        ),
        ("windows: [3 hours, 1 day]", "windows: [0.5 seconds]", "wanted positive whole seconds"),
        ("status <> 'void'", "status <>", "One SELECT was wanted: syntax error"),
        ("ttl: 2 days", "ttl: -2 days", "ttl: wanted a span of time that is not negative"),
        ("function: max", "function: median", "aggregates.largest.function"),
        ("entity: [shop, till]", "entity: shop", r"entity: wanted a list of columns of raw/sales"),
        ("  filter:", "  rows: event\n  filter:", "rolling: rows: unknown value 'event'; did you mean 'events'"),
        ("  filter:", "  rows: events\n  every: 1 hour\n  filter:", "each says when rows are written"),
        ("  source: raw/sales", "  sources: raw/sales", "unknown key 'sources'; did you mean 'source'"),
        ("rolling:", "columns: {}\nrolling:", r"\['columns'\] follow from `rolling`"),
        ("    sales: {", "    quiet: {function: time_since, description: x.}\n    sales: {", "declare `every`"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, old, new, message):
    path = write(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message) as raised:
        load_view(path)
    assert "till_sales.yaml" in str(raised.value)


def test_two_files_of_one_name_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "till_sales.sql").write_text(
        "/*\ndescription: x\nowner: a@b\nentity: [k]\ncolumns: {v: {type: number, description: V.}}\n*/\nSELECT 1"
    )
    with pytest.raises(ValueError, match="already declares the view 'till_sales'"):
        load_views(tmp_path)
