"""Windows over arrivals: by brute force, by the compiled SQL and in NumPy the same rows, to the last digit."""

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ml_platform.features.rolling import change_engine
from ml_platform.features.rolling.arrival_sql import arrival_sql
from ml_platform.features.rolling.change_engine import compute_changes
from ml_platform.features.rolling.spec import Rolling, microseconds, window_name

AGGREGATES: dict[str, Any] = {
    "sales": {"function": "count", "description": "Sales."},
    "revenue": {"function": "sum", "column": "amount", "decimals": 2, "description": "Takings."},
    "basket": {"function": "mean", "column": "amount", "decimals": 2, "description": "Mean sale."},
    "clerks": {"function": "distinct", "column": "clerk", "description": "Clerks seen."},
    "last_clerk": {"function": "last", "column": "clerk", "type": "string", "description": "Who sold last."},
    "least": {"function": "min", "column": "amount", "description": "Smallest sale."},
    "most": {"function": "max", "column": "amount", "description": "Largest sale."},
}
START = datetime(2024, 5, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

events = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        st.integers(0, 40),  # seconds: few, so that instants coincide
        st.one_of(st.none(), st.integers(-5, 30)),  # of delay
        st.one_of(st.none(), st.decimals(-10_000_000, 10_000_000, places=2).map(float)),
        st.one_of(st.none(), st.sampled_from(["x", "y", "z"])),
    ),
    min_size=1,
    max_size=25,
)


def declared(**changes: Any) -> Rolling:
    plain = {"source": "raw/sales", "time": "sold_at", "arrived": "arrived_at", "windows": [7 * SECOND, 20 * SECOND]}
    return Rolling.model_validate({**plain, "aggregates": AGGREGATES, **changes})


def table(rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (shop, START + SECOND * at, None if delay is None else START + SECOND * (at + delay), amount, clerk)
            for shop, at, delay, amount, clerk in rows
        ],
        schema={
            "shop": pl.String,
            "sold_at": pl.Datetime("us", "UTC"),
            "arrived_at": pl.Datetime("us", "UTC"),
            "amount": pl.Float64,
            "clerk": pl.String,
        },
        orient="row",
    )


def brute_force(frame: pl.DataFrame, rolling: Rolling) -> list[tuple[Any, ...]]:
    """Rows by the definition, in plain Python."""
    every = [
        (row["sold_at"], max(row["sold_at"], row["arrived_at"] or row["sold_at"]), row) for row in frame.to_dicts()
    ]
    newest = max(at for at, _, _ in every)
    longest = max(rolling.windows)
    result = []
    for shop in sorted(frame["shop"].drop_nulls().unique()):
        own = [(at, known, row) for at, known, row in every if row["shop"] == shop]
        points = {known for at, known, _ in own if known < at + longest}
        if rolling.rows == "changes":
            points |= {at + w for at, known, _ in own for w in rolling.windows if known < at + w}
        for point in sorted(point for point in points if point <= newest):
            values = []
            for name, item in rolling.aggregates.items():
                for window in rolling.windows:
                    inside = [(at, row) for at, known, row in own if point - window < at and known <= point]
                    values.append(_value(name, item, inside))
            result.append((shop, *values, point))
    return result


def _value(name: str, item: Any, inside: list[Any]) -> Any:
    if name == "sales":
        return len(inside)
    known = [(at, row[item.column]) for at, row in inside if row[item.column] is not None]
    if name in {"revenue", "basket"}:
        total = sum(round(value * 100) for _, value in known) / 100
        return total if name == "revenue" else (total / len(known) if known else None)
    if name == "clerks":
        return len({value for _, value in known})
    if name == "last_clerk":
        return max(known)[1] if known else None
    extreme = min if name == "least" else max
    return extreme(value for _, value in known) if known else None


def rows_of(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.sort("shop", "event_time").rows()


@given(events, st.sampled_from(["changes", "events"]))
@settings(max_examples=80, deadline=None)
def test_every_engine_gives_the_rows_of_the_definition(rows, written):
    frame, rolling = table(rows), declared(rows=written)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        connection.register("sales", frame)
        connection.execute("CREATE VIEW raw.sales AS FROM sales")
        wanted = brute_force(frame, rolling)
        by_sql = connection.sql(arrival_sql(rolling, ("shop",), "event_time")).pl()
        assert rows_of(by_sql) == wanted
        computed = compute_changes(connection, rolling, ("shop",), "event_time")
        assert (computed is None) == (not frame["shop"].is_not_null().any())
        assert rows_of(pl.concat(computed)) == wanted if computed is not None else not wanted


def test_keys_are_computed_in_parts(monkeypatch):
    frame = table([(f"s{n % 9}", n % 40, n % 4, float(n), "xyz"[n % 3]) for n in range(300)])
    monkeypatch.setattr(change_engine, "CHANGES", 200)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        connection.register("sales", frame)
        connection.execute("CREATE VIEW raw.sales AS FROM sales")
        computed = compute_changes(connection, declared(), ("shop",), "event_time")
        assert computed is not None
        frames = list(computed)
    assert len(frames) > 1
    assert rows_of(pl.concat(frames)) == brute_force(frame, declared())


def test_sums_of_scaled_integers_do_not_depend_on_the_order_of_events():
    rolling = declared(arrived=None)
    frame = table([("a", n, None, 0.1 * n, "x") for n in range(40)])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        connection.register("sales", frame.sample(fraction=1, shuffle=True, seed=3))
        connection.execute("CREATE VIEW raw.sales AS FROM sales")
        computed = compute_changes(connection, rolling, ("shop",), "event_time")
        assert computed is not None
        assert rows_of(pl.concat(computed)) == brute_force(frame, rolling)


def test_sums_that_64_bits_may_not_hold_are_refused():
    frame = table([("a", n, 0, 9e15, "x") for n in range(8)])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        connection.register("sales", frame)
        connection.execute("CREATE VIEW raw.sales AS FROM sales")
        computed = compute_changes(connection, declared(), ("shop",), "event_time")
        assert computed is not None
        with pytest.raises(ValueError, match=r"'revenue'.*fewer `decimals`"):
            list(computed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": timedelta(hours=1)}, "leave `every` out"),
        (
            {"aggregates": {"sum": {"function": "sum", "column": "amount", "description": "Takings."}}},
            r"\['sum'\] need `decimals`",
        ),
        (
            {"aggregates": {"n": {"function": "count", "decimals": 2, "description": "Sales."}}},
            "count takes no `decimals`",
        ),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        declared(**changes)


def test_names_of_features_are_those_of_other_windows():
    assert list(declared().columns())[:2] == [f"sales_{window_name(window)}" for window in declared().windows]
    assert microseconds(declared().windows[0]) == 7_000_000
