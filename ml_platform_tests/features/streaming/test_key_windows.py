"""Windows kept event by event: at every instant what the batch engine computes of the events that had arrived."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.online.store import Row, to_micros
from ml_platform.features.rolling.change_engine import compute_changes
from ml_platform.features.streaming.key_windows import KeyWindows
from ml_platform.features.streaming.plan import WindowPlan
from ml_platform.features.streaming.timeline import CHANGES, DELTAS, Timeline, feature_order, row_at
from ml_platform_tests.features.rolling.test_change_engine import SECOND, START, declared, table

_EVENTS = st.lists(
    st.tuples(
        st.just("a"),
        st.integers(0, 40),
        st.integers(0, 30),
        st.one_of(st.none(), st.decimals(-1000, 1000, places=2).map(float)),
        st.one_of(st.none(), st.sampled_from(["x", "y", "z"])),
    ),
    min_size=1,
    max_size=25,
)


def offline(rows: list[Any], written: str) -> pl.DataFrame:
    """Rows of the batch engine, the last ones too."""
    rolling = declared(rows=written, filter="shop = 'a'")
    frame = table([*rows, ("end", 1000, 0, None, None)])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        connection.register("sales", frame)
        connection.execute("CREATE VIEW raw.sales AS FROM sales")
        frames = compute_changes(connection, rolling, ("shop",), "event_time")
        assert frames is not None
        return pl.concat(frames).sort("event_time")


def values_of(amount: float | None, clerk: str | None, plan: WindowPlan) -> tuple[Any, ...]:
    scaled = None if amount is None else round(amount * 100)
    known = {"__scaled_2_amount": scaled, "__value_amount": amount, "__value_clerk": clerk}
    return tuple(known[column] for column in plan.inputs)


def at(second: int) -> int:
    return to_micros(START + SECOND * second)


@given(_EVENTS, st.sampled_from(["changes", "events"]), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None)
def test_a_timeline_has_the_rows_of_the_batch_engine(rows, written, most, random):
    plan = WindowPlan(declared(rows=written))
    wanted = offline(rows, written)
    windows = KeyWindows(plan)
    arrivals = sorted(rows, key=lambda row: row[1] + row[2])
    entered = 0
    for place, (_, second, delay, amount, clerk) in enumerate(arrivals):
        known = second + delay
        entered += windows.add(at(second), at(known), values_of(amount, clerk, plan))
        if not entered or (place + 1 < len(arrivals) and sum(arrivals[place + 1][1:3]) == known):
            continue  # nothing to look up yet, or others arrive at the same instant
        if written == "changes" and random.random() < 0.3:
            until = sum(arrivals[place + 1][1:3]) if place + 1 < len(arrivals) else known + 50
            windows.advance(at(random.randint(known, until - 1)))  # as a timer does
        timeline = windows.timeline(most)
        end = sum(arrivals[place + 1][1:3]) if place + 1 < len(arrivals) else 999
        horizon = timeline.changes[most - 1] if timeline.runs_out else at(end)
        if timeline.runs_out:  # nobody writes it again: all windows are empty in the end all the same
            at_last = row_at(stored(timeline), at(9999)).values
            assert at_last["sales_7s"] == at_last["sales_20s"] == 0
            assert at_last["last_clerk_20s"] is None
        for second_ in range(known, end):
            if windows.clock <= at(second_) <= horizon:
                check(row_at(stored(timeline), at(second_)), wanted, at(second_))


def stored(timeline: Timeline) -> Row:
    names = (*feature_order(declared().columns()), CHANGES, DELTAS)
    return Row(timeline.since, dict(zip(names, timeline.stored(), strict=True)))


def check(row: Row, wanted: pl.DataFrame, micros: int) -> None:
    before = wanted.filter(pl.col("event_time").dt.epoch("us") <= micros)
    expected = before.row(before.height - 1, named=True)
    assert row.event_time == expected.pop("event_time")
    expected.pop("shop")
    assert row.values == dict(sorted(expected.items()))


@given(_EVENTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_partitions_that_lag_behind_end_in_the_same_rows(rows, random):
    """Arrivals in any order: the state at the end is that of the events in order."""
    plan = WindowPlan(declared())
    ordered, mixed = KeyWindows(plan), KeyWindows(plan)
    shuffled = random.sample(rows, len(rows))
    for windows, events in ((ordered, sorted(rows, key=lambda row: row[1] + row[2])), (mixed, shuffled)):
        for _, second, delay, amount, clerk in events:
            windows.add(at(second), at(second + delay), values_of(amount, clerk, plan))
    if ordered.clock == mixed.clock:  # unless nothing was in any window when it arrived
        assert mixed.timeline(8) == ordered.timeline(8)


def test_state_read_from_its_events_goes_on_where_it_was():
    plan = WindowPlan(declared())
    whole, kept = KeyWindows(plan), []
    for second in range(60):
        values = values_of(second / 10, "xyz"[second % 3], plan)
        whole.add(at(second), at(second), values)
        kept.append((at(second), values))
    known = [(us, values) for us, values in kept if us > whole.clock - plan.longest]
    again = KeyWindows(plan, whole.clock, whole.changed, known)
    assert again.timeline(5) == whole.timeline(5)
    assert len(again) == 20


def test_many_events_of_one_instant_leave_together():
    plan = WindowPlan(declared())
    windows = KeyWindows(plan)
    for _ in range(50):
        windows.add(at(0), at(0), values_of(1.0, "x", plan))
    timeline = windows.timeline(3)
    assert timeline.changes == [at(7), at(20)]
    row = row_at(stored(timeline), at(7))
    assert (row.values["sales_7s"], row.values["sales_20s"], row.values["revenue_20s"]) == (0, 50, 50.0)


def test_what_left_all_windows_is_forgotten():
    plan = WindowPlan(declared())
    windows = KeyWindows(plan)
    for second in range(5000):
        windows.add(at(second), at(second), values_of(float(second), "x", plan))
    assert len(windows) < 600
    assert datetime.fromtimestamp(windows.clock / 1e6, UTC) - START == timedelta(seconds=4999)
