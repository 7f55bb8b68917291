"""DuckDB over the lake: pinned snapshots that say the same as Delta itself."""

from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.query.sql import _close_in, attach, query, referenced_tables
from ml_platform.lake.query.sql_gate import OutsideTheLake
from ml_platform.lake.storage.snapshots import files_are_alike
from ml_platform.lake.storage.tables import Lake

ROWS = pl.DataFrame(
    {
        "day": [date(2013, 1, 1), date(2013, 1, 2), None],
        "place": ["a b", "c/d=é%", "it's"],
        "seen": [datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in range(3)],
        "value": [1.5, None, 3.0],
    }
)


def _agrees(lake: Lake, table: str, sql_name: str) -> None:
    from_delta = lake.read(table).collect()
    from_duckdb = query(lake, f"SELECT * FROM {sql_name}")
    assert from_duckdb.schema == from_delta.schema
    assert_frame_equal(from_duckdb, from_delta, check_row_order=False)


@pytest.mark.parametrize("partition_by", [[], ["day"], ["day", "place"]])
def test_partitioned_or_not_the_rows_are_delta_s(lake: Lake, partition_by: list[str]) -> None:
    lake.append("raw/x", ROWS, partition_by=partition_by)
    _agrees(lake, "raw/x", "raw.x")


def test_an_empty_table_keeps_its_columns_and_types(lake: Lake) -> None:
    lake.append("raw/x", ROWS.clear(), partition_by=["day"])
    _agrees(lake, "raw/x", "raw.x")
    lake.append("raw/x", ROWS)
    lake.replace("raw/x", ROWS.clear(), where="place != ''")
    _agrees(lake, "raw/x", "raw.x")


def test_a_column_that_only_some_files_have_is_null_elsewhere(lake: Lake) -> None:
    lake.append("raw/x", ROWS, partition_by=["day"])
    lake.append("raw/x", ROWS.with_columns(note=pl.lit("new")), add_columns=True)
    _agrees(lake, "raw/x", "raw.x")
    assert query(lake, "SELECT count(*) - count(note) FROM raw.x").item() == 3


def test_only_a_table_whose_log_tells_its_files_apart_has_each_file_opened(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    lake.append("raw/x", ROWS)
    assert files_are_alike(lake.snapshot("raw/x"))
    lake.append("raw/x", ROWS.with_columns(note=pl.lit("new")), add_columns=True)
    assert not files_are_alike(lake.snapshot("raw/x"))
    lake.replace("raw/wide", pl.DataFrame({f"c{n}": [n] for n in range(40)}))
    assert not files_are_alike(lake.snapshot("raw/wide")), "statistics end with the 32nd column"


def test_a_column_that_no_file_has_yet_is_null(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    lake.append("raw/x", ROWS.clear().with_columns(note=pl.lit(None, dtype=pl.String)), add_columns=True)
    assert query(lake, "SELECT note FROM raw.x")["note"].to_list() == [None] * 3


def test_files_that_do_not_tell_the_column_names_are_read_through_delta(lake: Lake) -> None:
    write_deltalake(lake.location("raw/mapped"), ROWS, configuration={"delta.columnMapping.mode": "name"})
    write_deltalake(lake.location("raw/vectors"), ROWS, configuration={"delta.enableDeletionVectors": "true"})
    lake.snapshot("raw/vectors").delete("value = 3.0")
    assert query(lake, "SELECT sum(value) FROM raw.mapped").item() == 4.5
    assert query(lake, "SELECT sum(value) FROM raw.vectors").item() == 1.5


def test_a_view_stays_at_its_version_while_the_table_moves_on(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    with duckdb.connect(":memory:") as connection:
        assert attach(connection, lake, ["raw/x"]) == {"raw/x": 0}
        lake.append("raw/x", ROWS)
        assert connection.execute("SELECT count(*) FROM raw.x").fetchone() == (3,)
    assert query(lake, "SELECT count(*) FROM raw.x").item() == 6
    assert query(lake, "SELECT count(*) FROM raw.x", versions={"raw/x": 0}).item() == 3


def test_timestamps_are_utc_whatever_the_machine_s_zone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    lake.append("raw/x", ROWS)
    hours = query(lake, "SELECT hour(seen) AS hour, date_trunc('day', seen) AS day FROM raw.x ORDER BY seen")
    assert hours["hour"].to_list() == [0, 1, 2]
    assert hours["day"].to_list() == [datetime(2013, 1, 1, tzinfo=UTC)] * 3


def test_every_table_is_attached_unless_some_are_named(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    lake.append("quarantine/raw/x", ROWS)
    with duckdb.connect(":memory:") as connection:
        assert attach(connection, lake) == {"quarantine/raw/x": 0, "raw/x": 0}
    assert query(lake, 'SELECT count(*) FROM quarantine."raw/x"').item() == 3


def test_sql_over_a_missing_table_says_what_to_materialise(lake: Lake) -> None:
    with pytest.raises(TableNotFound, match=r"'raw/y'.*Materialise"):
        query(lake, "SELECT * FROM raw.y")


def test_referenced_tables_sees_through_ctes_subqueries_and_asof_joins() -> None:
    sql = """
        WITH late AS (SELECT * FROM raw.flights WHERE dep_delay > 15)
        SELECT * FROM late ASOF JOIN features.origin_weather AS w ON late.origin = w.origin AND late.t >= w.t
        WHERE EXISTS (SELECT 1 FROM "quarantine"."raw/flights") AND late.tailnum IN (SELECT tailnum FROM raw.planes)
    """
    assert referenced_tables(sql) == {"raw/flights", "features/origin_weather", "quarantine/raw/flights", "raw/planes"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT FROM WHERE",
        "DROP TABLE raw.flights",
        "COPY (SELECT 1) TO 'x.csv'",
        "SELECT 1; COPY (SELECT 1) TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "-- nothing",
        "",
    ],
)
def test_what_is_not_one_select_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="One SELECT was wanted"):
        referenced_tables(sql)


@pytest.mark.parametrize("uri", ["{}", "file://{}"])
def test_sql_sees_neither_files_nor_variables(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    ROWS.write_parquet(tmp_path / "secret.parquet")
    (tmp_path / "lake").mkdir()
    lake = Lake(uri.format(tmp_path / "lake"))
    lake.append("raw/x", ROWS)
    for relation in ("read_csv('{}.csv')", "'{}.csv'", "read_text('{}.csv')", "'{}.parquet'", "glob('{}*')"):
        with pytest.raises(OutsideTheLake, match="SQL reads only the lake's tables"):
            query(lake, f"SELECT * FROM {relation.format(tmp_path / 'secret')}")
    with pytest.raises(duckdb.CatalogException, match="Table with name ROWS does not exist"):
        query(lake, "SELECT * FROM ROWS")
    assert query(lake, "SELECT count(*) FROM raw.x").item() == 3


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_parquet('{file}')",
        "FROM parquet_scan('{file}')",
        "FROM '{file}'",
        "FROM parquet_metadata('{file}')",
        "FROM parquet_schema('{file}')",
        "FROM read_blob('{file}')",
        "FROM glob('{folder}/**')",
        "FROM query('FROM read_parquet(''{file}'')')",
        "FROM query_table('raw.x')",
        "FROM json_execute_serialized_sql('{{}}')",
        "SELECT (SELECT count(*) FROM '{file}')",
        "WITH t AS (FROM '{file}') FROM raw.x, t",
        "WITH \"{file}\" AS (SELECT 1) FROM raw.x, '{file}'",
        "FROM raw.x WHERE EXISTS (FROM read_parquet('{file}'))",
        "FROM raw.x, LATERAL (FROM read_text('{file}'))",
        "SELECT 1 UNION ALL (FROM READ_PARQUET('{file}'))",
        "FROM (DESCRIBE FROM '{file}')",
        "FROM (SUMMARIZE '{file}')",
        "FROM (SHOW ALL TABLES)",
        "FROM duckdb_views()",
        "FROM pg_catalog.pg_views",
        "FROM information_schema.tables",
        "FROM memory.raw.x",
        "FROM temp.main.x",
        "SELECT current_setting('allowed_paths')",
        "SELECT pg_get_viewdef(1)",
        "SELECT getenv('HOME')",
        'FROM "{folder}/x".parquet',
        "COPY (FROM raw.x) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "SET allowed_paths = ['/']",
    ],
)
def test_sql_reaches_tables_only_and_writes_nothing(lake: Lake, sql: str) -> None:
    lake.append("raw/x", ROWS)
    lake.append("raw/other", ROWS)
    (file,) = lake.snapshot("raw/other").file_uris()
    files = sorted(path for path in Path(lake.uri).rglob("*"))
    with pytest.raises((OutsideTheLake, TableNotFound, ValueError)):
        query(lake, sql.format(file=file, folder=Path(file).parent))
    assert sorted(path for path in Path(lake.uri).rglob("*")) == files


def test_the_connection_itself_reads_only_the_files_of_the_tables_that_were_named(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    lake.append("raw/other", ROWS)
    (file,) = lake.snapshot("raw/other").file_uris()
    files: list[str] = []
    with duckdb.connect(":memory:") as connection:
        attach(connection, lake, ["raw/x"], files=files)
        _close_in(connection, files)
        for relation in (f"'{file}'", f"read_parquet('{file}')", f"glob('{Path(file).parent}/*')"):
            with pytest.raises(duckdb.PermissionException):
                connection.sql(f"FROM {relation}").fetchall()
        assert connection.sql("SELECT count(*) FROM raw.x").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH a AS (FROM raw.x), b AS (FROM a) SELECT count(*) FROM b", [(3,)]),
        ("SELECT count(*) FROM raw.x, range(2) AS t(i), unnest([1, 2]) AS u(j)", [(12,)]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT max(i) FROM n", [(3,)]),
        ("SELECT count(*) FROM (SELECT * FROM raw.x AT (VERSION => 0)) AS old", [(3,)]),
        ("SELECT count(*) > 0 FROM (DESCRIBE raw.x)", [(True,)]),
        ('WITH "my rows" AS (FROM raw.x) SELECT count(*) FROM "my rows"', [(3,)]),
        ("SELECT list_sum([i * 2 for i in [1, 2]])", [(6,)]),
    ],
)
def test_sql_of_all_other_kinds_works(lake: Lake, sql: str, rows: list[tuple[object, ...]]) -> None:
    lake.append("raw/x", ROWS)
    assert query(lake, sql).rows() == rows


def test_a_version_of_a_table_that_does_not_exist_is_not_passed_over(lake: Lake) -> None:
    lake.append("raw/x", ROWS)
    lake.append("raw/y", ROWS)
    assert query(lake, "SELECT count(*) FROM raw.x", versions={"raw/y": 0}).item() == 3
    with pytest.raises(TableNotFound, match="Did you mean 'raw/x'"):
        query(lake, "SELECT count(*) FROM raw.x", versions={"raw/xx": 0})


def test_a_year_of_daily_partitions_is_read_with_pruning(flights_lake: Lake) -> None:
    sql = (
        "SELECT count(*) AS n, count(DISTINCT flight_id) AS ids FROM raw.flights WHERE flight_date = DATE '2013-03-10'"
    )
    expected = flights_lake.read("raw/flights").filter(pl.col("flight_date") == date(2013, 3, 10)).collect().height
    assert query(flights_lake, sql).rows() == [(expected, expected)]
    with duckdb.connect(":memory:") as connection:
        attach(connection, flights_lake, ["raw/flights"])
        plan = connection.sql(f"EXPLAIN ANALYZE {sql}").fetchall()[0][1]
    assert "Total Files Read: 1" in plan


def test_a_lake_behind_a_uri_says_the_same_as_one_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    remote = Lake(f"file://{tmp_path / 'lake'}")
    remote.append("raw/x", ROWS, partition_by=["day"])
    assert not remote.is_local
    assert remote.tables() == Lake(str(tmp_path / "lake")).tables() == ["raw/x"]
    _agrees(remote, "raw/x", "raw.x")
