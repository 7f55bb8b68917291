"""Delta tables: versions, replacement, schema rules, writers at the same time."""

import multiprocessing
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.errors import SchemaMismatch, TableNotFound
from ml_platform.lake.storage.tables import Lake

DAYS = pl.DataFrame({"day": [date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 3)], "value": [1, 2, 3]})


def test_every_write_is_a_version_and_old_versions_stay_readable(lake: Lake) -> None:
    assert lake.append("raw/days", DAYS) == 0
    assert lake.append("raw/days", DAYS) == 1
    assert lake.replace("raw/days", DAYS.head(1)) == 2
    assert [lake.read("raw/days", version=version).collect().height for version in range(3)] == [3, 6, 1]
    assert lake.versions(["raw/days"]) == {"raw/days": 2}
    assert lake.history("raw/days")["version"].to_list() == [2, 1, 0]
    assert lake.restore("raw/days", 1) == 3
    assert lake.read("raw/days").collect().height == 6


def test_replacing_a_range_twice_changes_nothing_else(lake: Lake) -> None:
    lake.append("raw/days", DAYS, partition_by=["day"])
    second = pl.DataFrame({"day": [date(2013, 1, 2)] * 2, "value": [20, 21]})
    for _ in range(2):
        lake.replace("raw/days", second, where="day >= '2013-01-02' AND day < '2013-01-03'")
    assert sorted(lake.read("raw/days").collect()["value"]) == [1, 3, 20, 21]


def test_a_range_can_be_the_first_write_and_can_be_emptied(lake: Lake) -> None:
    lake.replace("raw/days", DAYS, where="day >= '2013-01-01'", partition_by=["day"])
    lake.replace("raw/days", DAYS.clear(), where="day >= '2013-01-02'")
    assert lake.read("raw/days").collect()["value"].to_list() == [1]


def test_a_row_outside_of_the_replaced_range_is_refused(lake: Lake) -> None:
    lake.append("raw/days", DAYS)
    with pytest.raises(ValueError, match=r"(?s)raw/days.*day = '2013-01-02'.*filter them to the range") as caught:
        lake.replace("raw/days", DAYS, where="day = '2013-01-02'")
    assert "do not all match" in str(caught.value)
    assert lake.read("raw/days").collect().sort("day").equals(DAYS)


def test_a_missing_table_is_named_with_its_neighbours(lake: Lake) -> None:
    lake.append("raw/flights", DAYS)
    with pytest.raises(
        TableNotFound, match=r"'raw/flight'.*has: raw/flights\..*Did you mean 'raw/flights'\?.*Materialise"
    ):
        lake.read("raw/flight")
    with pytest.raises(LookupError, match="versions 0 to 0, version 7"):
        lake.read("raw/flights", version=7)


def test_a_lake_that_is_not_there_yet_has_no_tables_and_is_not_created(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "nothing"))
    assert lake.tables() == []
    with pytest.raises(TableNotFound, match="no tables at all"):
        lake.version("raw/flights")
    assert not (tmp_path / "nothing").exists()


def test_tables_are_found_at_any_depth(lake: Lake) -> None:
    for table in ("raw/days", "quarantine/raw/days", "features/x"):
        lake.append(table, DAYS, partition_by=["day"])
    assert lake.tables() == ["features/x", "quarantine/raw/days", "raw/days"]


def test_columns_are_added_only_when_asked_for(lake: Lake) -> None:
    lake.append("raw/days", DAYS)
    wider = DAYS.with_columns(note=pl.lit("x"))
    with pytest.raises(SchemaMismatch, match=r"column 'note' \(String\) is not in the table"):
        lake.append("raw/days", wider)
    lake.append("raw/days", wider, add_columns=True)
    lake.append("raw/days", DAYS, add_columns=True)
    assert sorted(lake.read("raw/days").collect()["note"].to_list(), key=str) == [None] * 6 + ["x"] * 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pl.Series(["a"]), "column 'value': wanted Int64, found String"),
        (pl.Series([1.5]), "column 'value': wanted Int64, found Float64"),
        (pl.Series([datetime(2013, 1, 1)]), "timestamp without time zone"),
    ],
)
def test_a_type_that_does_not_fit_is_named(lake: Lake, value: pl.Series, message: str) -> None:
    lake.append("raw/days", DAYS)
    with pytest.raises(SchemaMismatch, match=message):
        lake.append("raw/days", pl.DataFrame({"day": [date(2013, 1, 1)], "value": value}))
    assert lake.version("raw/days") == 0


def test_types_are_kept_or_turned_into_delta_s_own(lake: Lake) -> None:
    frame = pl.DataFrame(
        {
            "small": pl.Series([1], dtype=pl.UInt8),
            "kind": pl.Series(["a"], dtype=pl.Categorical),
            "at": pl.Series([datetime(2013, 1, 1, tzinfo=UTC)])
            .dt.convert_time_zone("Asia/Tokyo")
            .dt.cast_time_unit("ms"),
            "nothing": pl.Series([None], dtype=pl.Float64),
        }
    )
    lake.append("raw/types", frame)
    assert lake.schema("raw/types") == pl.Schema(
        {"small": pl.Int16(), "kind": pl.String(), "at": pl.Datetime("us", "UTC"), "nothing": pl.Float64()}
    )
    assert lake.read("raw/types").collect()["at"].item() == datetime(2013, 1, 1, tzinfo=UTC)


def test_an_application_s_batch_is_appended_once(lake: Lake) -> None:
    assert lake.last_app_version("log/x", "worker") is None
    for number in (1, 2, 2, 1):
        lake.append("log/x", DAYS, app_transaction=("worker", number))
    assert lake.read("log/x").collect().height == 6
    assert lake.last_app_version("log/x", "worker") == 2


def _append(uri: str, writer: int, batches: int) -> None:
    lake = Lake(uri)
    for batch in range(batches):
        rows = pl.DataFrame({"writer": [writer], "batch": [batch]})
        lake.append("log/x", rows, app_transaction=(f"writer-{writer}", batch))


def test_two_processes_append_at_the_same_time_from_the_first_commit_on(lake: Lake) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append, args=(lake.uri, writer, 12)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    rows = lake.read("log/x").collect().sort("writer", "batch").rows()
    assert rows == [(writer, batch) for writer in range(2) for batch in range(12)]


def test_two_processes_cannot_append_the_same_batch_twice(lake: Lake) -> None:
    spawn = multiprocessing.get_context("spawn")
    twins = [spawn.Process(target=_append, args=(lake.uri, 0, 12)) for _ in range(2)]
    for process in twins:
        process.start()
    for process in twins:
        process.join()
    assert [process.exitcode for process in twins] == [0, 0]
    assert sorted(lake.read("log/x").collect()["batch"]) == list(range(12))


def _replace(uri: str, day: int, times: int) -> None:
    lake = Lake(uri)
    for value in range(times):
        rows = pl.DataFrame({"day": [date(2013, 1, day)], "value": [value]})
        lake.replace("raw/days", rows, where=f"day = '2013-01-0{day}'", partition_by=["day"])


def test_two_processes_replace_different_days_at_the_same_time(lake: Lake) -> None:
    lake.append("raw/days", DAYS, partition_by=["day"])
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_replace, args=(lake.uri, day, 8)) for day in (1, 2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    assert lake.read("raw/days").collect().sort("day")["value"].to_list() == [7, 7, 3]
