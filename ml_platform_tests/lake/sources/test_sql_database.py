"""PostgreSQL as a source, on a real server: everything, or what changed since."""

import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.sources.sql_database import last_cursor, load_changes
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.ingestion.test_quarantine import Crash, _crashing_after
from ml_platform_tests.postgres_server import running_postgres

psycopg = pytest.importorskip("psycopg", reason="wants psycopg: pip install 'psycopg[binary]'")
Execute = Callable[[str], None]
TABLE = "CREATE TABLE orders (id uuid PRIMARY KEY, shop text, amount numeric(10, 2), day date, changed timestamptz)"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server of the test's own."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def execute(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Execute]:
    """Run a statement; the table `orders` has three rows, one of which breaks the contract."""
    monkeypatch.setenv("SHOP_URL", server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute(TABLE)
        connection.execute(
            "INSERT INTO orders SELECT md5(i::text)::uuid, 'shop ' || i, (i - 2) * 1.5, '2024-01-01',"
            " timestamptz '2024-01-01 10:00+02' + i * interval '1 hour' FROM generate_series(1, 3) AS t(i)"
        )
        yield connection.execute


def _spec(**sql: Any) -> SourceSpec:
    return SourceSpec.model_validate(
        {
            "name": "raw/orders",
            "description": "Orders.",
            "owner": "team:shop",
            "sql": {"url_variable": "SHOP_URL", "query": "SELECT * FROM orders;", "cursor": "changed", **sql},
            "columns": {
                "id": {"type": "string", "key": True},
                "shop": {"type": "string"},
                "amount": {"type": "number", "minimum": 0},
                "day": {"type": "date", "nullable": True},
                "changed": {"type": "timestamp"},
            },
        }
    )


def _shops(lake: Lake) -> list[tuple[str, float]]:
    return lake.read("raw/orders").select("shop", "amount").sort("shop").collect().rows()


def test_only_what_is_new_or_changed_is_read(lake: Lake, execute: Execute) -> None:
    assert last_cursor(lake, _spec()) is None
    first = load_changes(lake, _spec())
    assert (first.rows_read, first.rows_written, first.reasons) == (3, 2, {"amount: below 0": 1})
    assert _shops(lake) == [("shop 2", 0.0), ("shop 3", 1.5)]
    assert last_cursor(lake, _spec()) == datetime(2024, 1, 1, 11, tzinfo=UTC)
    execute("UPDATE orders SET amount = 9, changed = '2024-01-02Z' WHERE shop = 'shop 2'")
    execute("INSERT INTO orders VALUES (gen_random_uuid(), 'shop 4', 4, NULL, '2024-01-03Z')")
    second = load_changes(lake, _spec())
    assert second.rows_read == 3  # the newest of before once more, the changed one, the new one
    assert _shops(lake) == [("shop 2", 9.0), ("shop 3", 1.5), ("shop 4", 4.0)]


def test_a_rejected_row_at_the_newest_value_is_quarantined_once(lake: Lake, execute: Execute) -> None:
    execute("UPDATE orders SET changed = '2025-01-01Z' WHERE shop = 'shop 1'")
    for _ in range(3):
        load_changes(lake, _spec())
    assert lake.read("quarantine/raw/orders").collect().height == 1


def test_what_commits_late_is_found_within_the_lookback(lake: Lake, execute: Execute) -> None:
    load_changes(lake, _spec())
    execute("INSERT INTO orders VALUES (gen_random_uuid(), 'late', 1, NULL, '2024-01-01 10:30Z')")
    load_changes(lake, _spec())
    assert "late" not in dict(_shops(lake))
    load_changes(lake, _spec(lookback_seconds=3600))
    assert "late" in dict(_shops(lake))
    load_changes(lake, _spec(lookback_seconds=315e9))  # before the calendar: from its start


@pytest.mark.parametrize(("seconds", "found"), [(0, False), (1, True), (86_400, True), (315e9, True)])
def test_a_lookback_of_less_than_a_day_reads_a_day_of_dates_again(
    lake: Lake, execute: Execute, seconds: float, found: bool
) -> None:
    by_day = {"query": "SELECT shop, changed::date AS day FROM orders", "cursor": "day", "lookback_seconds": seconds}
    columns = {"shop": {"type": "string", "key": True}, "day": {"type": "date"}}
    spec = SourceSpec.model_validate(
        {
            "name": "raw/orders",
            "description": "Orders.",
            "owner": "team:shop",
            "sql": {"url_variable": "SHOP_URL", **by_day},
            "columns": columns,
        }
    )
    execute("UPDATE orders SET changed = '2024-01-05Z' WHERE shop = 'shop 1'")
    load_changes(lake, spec)
    execute("INSERT INTO orders VALUES (gen_random_uuid(), 'late', 1, NULL, '2024-01-04 23:30Z')")
    load_changes(lake, spec)
    assert ("late" in lake.read("raw/orders").collect()["shop"]) is found


@pytest.mark.parametrize("commits_made", range(7))
def test_a_crash_between_any_two_commits_loses_and_doubles_nothing(
    lake: Lake, execute: Execute, monkeypatch: pytest.MonkeyPatch, commits_made: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(commits, "retried", _crashing_after(commits_made))
        with pytest.raises(Crash):
            load_changes(lake, _spec(batch_rows=1))
    told: list[str] = []
    load_changes(lake, _spec(batch_rows=1), progress=told.append)
    assert _shops(lake) == [("shop 2", 0.0), ("shop 3", 1.5)]
    assert lake.read("quarantine/raw/orders").collect().height == 1
    assert told[-1].endswith("rows, up to changed 2024-01-01 11:00:00+00:00")


def test_without_a_cursor_everything_is_read(lake: Lake, execute: Execute) -> None:
    raw = raw_table(_spec(cursor=None))
    assert raw.load(lake).rows_written == 2
    execute("DELETE FROM orders WHERE shop = 'shop 3'")
    raw.load(lake)
    assert _shops(lake) == [("shop 2", 0.0)]
    execute("DELETE FROM orders")
    assert raw.load(lake).rows_read == 0


def test_an_integer_or_a_date_can_be_the_cursor(lake: Lake, execute: Execute) -> None:
    spec = _spec(query="SELECT *, extract(hour FROM changed)::int AS n FROM orders", cursor="n")
    with_number = spec.model_copy(update={"unlisted": "drop"})
    load_changes(lake, with_number)
    assert last_cursor(lake, with_number) == 11
    assert load_changes(lake, with_number).rows_read == 1
    execute("UPDATE orders SET day = '1969-12-31' WHERE shop <> 'shop 3'")
    load_changes(lake, _spec(cursor="day"))
    assert last_cursor(lake, _spec(cursor="day")) == date(2024, 1, 1)
    assert load_changes(lake, _spec(cursor="day")).rows_read == 1


def test_a_restored_table_reads_again_what_it_lost(lake: Lake, execute: Execute) -> None:
    load_changes(lake, _spec())
    before = lake.version("raw/orders")
    for hour in (4, 5, 6):
        execute(f"INSERT INTO orders VALUES (gen_random_uuid(), 'shop {hour}', 1, NULL, '2024-01-02 0{hour}:00Z')")
    load_changes(lake, _spec())
    lake.restore("raw/orders", before)
    assert last_cursor(lake, _spec()) == datetime(2024, 1, 1, 11, tzinfo=UTC)
    load_changes(lake, _spec())
    assert [shop for shop, _ in _shops(lake)] == ["shop 2", "shop 3", "shop 4", "shop 5", "shop 6"]


def test_a_batch_of_wrong_rows_alone_is_not_read_again(lake: Lake, execute: Execute) -> None:
    load_changes(lake, _spec())
    execute("UPDATE orders SET amount = -1, changed = '2024-01-02Z' WHERE shop = 'shop 2'")
    load_changes(lake, _spec(batch_rows=1))
    assert last_cursor(lake, _spec()) == datetime(2024, 1, 2, tzinfo=UTC)


def test_a_row_without_a_cursor_value_is_not_passed_over(lake: Lake, execute: Execute) -> None:
    load_changes(lake, _spec())
    execute("INSERT INTO orders VALUES (gen_random_uuid(), 'undated', 1, NULL, NULL)")
    with pytest.raises(ValueError, match=r"sql\.cursor 'changed' .*never null; found Datetime.* with 1 nulls"):
        load_changes(lake, _spec())


ODD = """
    SELECT 1 AS id, 1.5::numeric AS exact, '{"a": 1}'::jsonb AS json, '{1,2}'::int[] AS list, interval '1 day' AS span,
        inet '10.0.0.1' AS address, timestamp '2024-07-01 12:00' AS local, 'abc'::bytea AS bytes
    UNION ALL SELECT 2, 'NaN', '[1, {"b": 2}]', NULL, NULL, NULL, '2024-07-01', NULL
    UNION ALL SELECT 3, 2, NULL, NULL, NULL, NULL, '2024-03-31 02:30', NULL -- the clocks skip it
"""


@pytest.mark.parametrize("batch_rows", [1, 100])
def test_types_that_polars_lacks_are_texts_and_local_times_are_placed(
    lake: Lake, execute: Execute, batch_rows: int
) -> None:
    text = {"type": "string", "nullable": True}
    columns: dict[str, Any] = {
        "id": {"type": "integer", "key": True},
        "exact": {"type": "number"},
        **dict.fromkeys(("json", "list", "span", "address"), text),
        "local": {"type": "timestamp", "time_zone": "Europe/Berlin"},
    }
    spec = _spec(query=ODD, cursor="id", batch_rows=batch_rows).model_dump(exclude_none=True)
    report = load_changes(lake, SourceSpec.model_validate({**spec, "columns": columns, "unlisted": "drop"}))
    assert lake.read("raw/orders").collect().rows() == [
        (1, 1.5, '{"a": 1}', "{1,2}", "1 day", "10.0.0.1", datetime(2024, 7, 1, 10, tzinfo=UTC))
    ]
    assert set(report.reasons) == {
        "exact: not a number",
        "local: not a timestamp of Europe/Berlin (or one that the clocks show twice)",
    }


def test_a_value_that_nothing_can_hold_is_named(lake: Lake, execute: Execute) -> None:
    execute("UPDATE orders SET changed = 'infinity' WHERE shop = 'shop 1'")
    with pytest.raises(ValueError, match=r"(?s)query of \$SHOP_URL .*'infinity'.*NULLIF"):
        load_changes(lake, _spec())


def test_mistakes_say_what_is_wanted(lake: Lake, execute: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"sql\.cursor 'shop' wants .* timestamp with time zone.*found String"):
        load_changes(lake, _spec(cursor="shop"))
    number = {"query": "SELECT *, 1 AS n FROM orders", "cursor": "n", "lookback_seconds": 60}
    with pytest.raises(ValueError, match="lookback_seconds wants a cursor that is a time; 'n' is an integer"):
        load_changes(lake, _spec(**number).model_copy(update={"unlisted": "drop"}))
    with pytest.raises(ValueError, match=r'query of \$SHOP_URL cannot be run: relation "order" does not exist'):
        load_changes(lake, _spec(query='SELECT * FROM "order"'))
    monkeypatch.setenv("SHOP_URL", "postgresql://test@127.0.0.1:1/shop")
    with pytest.raises(ConnectionError, match=r"database of \$SHOP_URL cannot be reached: .*Connection refused"):
        load_changes(lake, _spec())
    monkeypatch.setenv("SHOP_URL", "mysql://test:secret@127.0.0.1/shop")
    with pytest.raises(ValueError, match=r"\$SHOP_URL is not the URL of a PostgreSQL database") as refused:
        load_changes(lake, _spec())
    assert "secret" not in "".join(traceback.format_exception(refused.value))
    monkeypatch.delenv("SHOP_URL")
    with pytest.raises(ValueError, match="environment has no SHOP_URL"):
        load_changes(lake, _spec())
