"""Any table as it was: by version, as of an instant, in Polars and in SQL, and put back."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from ml_platform.lake.errors import NotYetCreated
from ml_platform.lake.query.sql import attach, query
from ml_platform.lake.storage.tables import Lake

FIRST = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _dated(lake: Lake, table: str, commits: int, first: datetime = FIRST) -> None:
    """Commit the values 0, 1, … as if one had been written on each day."""
    for value in range(commits):
        version = lake.replace(table, pl.DataFrame({"value": [value]}))
        log = Path(lake.location(table)) / "_delta_log" / f"{version:020d}.json"
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = int((first + value * DAY).timestamp() * 1000)
        log.write_text("\n".join(map(json.dumps, actions)))


@pytest.mark.parametrize(("after", "value"), [(0 * DAY, 0), (0.99 * DAY, 0), (1 * DAY, 1), (900 * DAY, 3)])
def test_a_table_is_read_as_of_an_instant(lake: Lake, after: timedelta, value: int) -> None:
    _dated(lake, "raw/x", 4)
    assert lake.read("raw/x", as_of=FIRST + after).collect().item() == value
    assert query(lake, "SELECT value FROM raw.x", as_of=FIRST + after).item() == value


def test_the_instant_can_lie_far_back_in_a_long_log(lake: Lake) -> None:
    _dated(lake, "raw/x", 70)
    assert lake.read("raw/x", as_of=FIRST + 2.5 * DAY).collect().item() == 2


def test_what_did_not_exist_yet_is_named_or_left_out(lake: Lake) -> None:
    _dated(lake, "raw/old", 1)
    _dated(lake, "raw/new", 1, FIRST + 10 * DAY)
    with pytest.raises(
        NotYetCreated, match=r"'raw/new' did not exist at 2013-01-02 .* first known commit is of 2013-01-11"
    ):
        lake.read("raw/new", as_of=FIRST + DAY)
    with duckdb.connect(":memory:") as connection:
        assert attach(connection, lake, as_of=FIRST + DAY) == {"raw/old": 0}
        with pytest.raises(NotYetCreated):
            attach(connection, lake, ["raw/new"], as_of=FIRST + DAY)


def test_a_version_goes_before_the_instant_in_sql(lake: Lake) -> None:
    for table in ("raw/a", "raw/b"):
        _dated(lake, table, 3)
    sql = "SELECT a.value AS a, b.value AS b FROM raw.a, raw.b"
    assert query(lake, sql, versions={"raw/a": 2}, as_of=FIRST).row(0) == (2, 0)


def test_a_table_is_compared_with_itself_in_sql(lake: Lake) -> None:
    _dated(lake, "raw/x", 4)
    sql = """
        WITH early AS (SELECT value FROM raw.x AT (TIMESTAMP => '2013-01-02 12:00'))
        SELECT x.value, was.value, early.value, (SELECT value FROM raw.x AT (VERSION => 0))
        FROM raw.x, raw.x AS was AT (VERSION => 2), early
    """
    assert query(lake, sql).row(0) == (3, 2, 1, 0)
    assert query(lake, sql, as_of=FIRST + 2 * DAY).row(0) == (2, 2, 1, 0)
    assert query(lake, "FROM raw.x AT (TIMESTAMP => TIMESTAMPTZ '2013-01-02 12:00+00')").item() == 1


@pytest.mark.parametrize(
    ("clause", "error", "message"),
    [
        ("VERSION => 9", LookupError, "versions 0 to 1, version 9"),
        ("VERSION => 'x'", ValueError, r"AT \(VERSION => 3\) or AT \(TIMESTAMP => .*was wanted"),
        ("TIMESTAMP => now()", ValueError, "was wanted"),
        ("TIMESTAMP => 'yesterday'", ValueError, "like 2024-06-01"),
        ("TIMESTAMP => '2001-01-01'", NotYetCreated, "did not exist at 2001-01-01"),
    ],
)
def test_a_date_in_sql_that_makes_no_sense_is_refused(
    lake: Lake, clause: str, error: type[Exception], message: str
) -> None:
    _dated(lake, "raw/x", 2)
    with pytest.raises(error, match=message):
        query(lake, f"SELECT * FROM raw.x AT ({clause})")


def test_all_versions_of_an_instant_are_pinned_together(lake: Lake) -> None:
    for table in ("raw/a", "raw/b"):
        _dated(lake, table, 3)
    assert lake.versions(["raw/a", "raw/b"], as_of=FIRST + DAY) == {"raw/a": 1, "raw/b": 1}


def test_contradictions_and_naive_instants_are_refused(lake: Lake) -> None:
    _dated(lake, "raw/x", 1)
    with pytest.raises(ValueError, match="both given"):
        lake.read("raw/x", version=0, as_of=FIRST)
    with pytest.raises(ValueError, match="with time zone"):
        lake.read("raw/x", as_of=datetime(2013, 1, 1))
    with pytest.raises(ValueError, match="wants a version or an instant"):
        lake.restore("raw/x")


def test_a_table_is_put_back_and_what_it_was_meanwhile_stays_readable(lake: Lake) -> None:
    _dated(lake, "raw/x", 3)
    assert lake.restore("raw/x", as_of=FIRST + DAY) == 3
    assert lake.read("raw/x").collect().item() == 1
    assert lake.restore("raw/x", 0) == 4
    assert lake.read("raw/x").collect().item() == 0
    assert [lake.read("raw/x", version=version).collect().item() for version in range(4)] == [0, 1, 2, 1]
    assert lake.history("raw/x")["operation"].to_list()[:2] == ["RESTORE", "RESTORE"]
    assert lake.restore("raw/x", 4) == 4, "it is as it was already"
    with pytest.raises(LookupError, match="versions 0 to 4, version 9"):
        lake.restore("raw/x", 9)
