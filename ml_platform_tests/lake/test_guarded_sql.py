"""Attacks by SQL on a lake that shows its reader a part: each is refused, or answers with permitted values only."""

import json
from datetime import UTC, datetime

import duckdb
import polars as pl
import pytest

from ml_platform.lake.access import AccessDenied, TableAccess, TableRead
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.query.allowed_functions import ALLOWED_FUNCTIONS
from ml_platform.lake.query.overlays import Overlay
from ml_platform.lake.query.sql import attach, check_expression, query, query_batches
from ml_platform.lake.query.sql_gate import OutsideTheLake
from ml_platform_tests.lake.guarded_world import as_ada, leaks, make_lake

REFUSED = "refused"
ATTACKS = {
    # What is granted, and how it looks.
    "everything": ("FROM raw.people ORDER BY id", [(1, "S***", "Paris", 30, None), (2, "S***", "Paris", 40, None)]),
    "count": ("SELECT count(*) FROM raw.people", [(2,)]),
    "count of hidden rows": ("SELECT count(*) FROM raw.people WHERE city LIKE 'Hidden%'", [(0,)]),
    "min and max": ("SELECT min(age), max(age), min(name), max(name) FROM raw.people", [(30, 40, "S***", "S***")]),
    "summarize": ("SELECT column_name, min, max FROM (SUMMARIZE raw.people) WHERE column_name IN ('name', 'age') "
                  "ORDER BY 1", [("age", "30", "40"), ("name", "S***", "S***")]),
    "describe": ("SELECT column_name FROM (DESCRIBE raw.people)",
                 [("id",), ("name",), ("city",), ("age",), ("code",)]),
    "ordering by a masked column": ("SELECT id FROM raw.people ORDER BY name DESC, id", [(1,), (2,)]),
    "grouping by a masked column": ("SELECT name, count(*) FROM raw.people GROUP BY name", [("S***", 2)]),
    "window over a masked column": ("SELECT rank() OVER (ORDER BY name) FROM raw.people", [(1,), (1,)]),
    "condition on a masked column": ("SELECT id FROM raw.people WHERE name = 'SECRETAda'", []),
    "prefix of a masked column": ("SELECT id FROM raw.people WHERE starts_with(name, 'SEC')", []),
    "join on a masked column": ("SELECT count(*) FROM raw.people p JOIN (VALUES ('SECRETAda')) v(n) ON p.name = v.n",
                                [(0,)]),
    "join with hidden rows": ("SELECT o.id FROM raw.open o LEFT JOIN raw.people p USING (id) WHERE p.id IS NULL "
                              "ORDER BY 1", [(3,), (4,)]),
    "anti join": ("SELECT id FROM raw.open ANTI JOIN raw.people USING (id) ORDER BY id", [(3,), (4,)]),
    "correlated subquery": ("SELECT (SELECT name FROM raw.people p WHERE p.id = o.id) FROM raw.open o ORDER BY o.id",
                            [("S***",), ("S***",), (None,), (None,)]),
    "subquery of a condition": ("SELECT count(*) FROM raw.open WHERE id IN (SELECT id FROM raw.people)", [(2,)]),
    "positional join": ("SELECT p.name FROM raw.open o POSITIONAL JOIN raw.people p WHERE p.name IS NOT NULL",
                        [("S***",), ("S***",)]),
    "set operation": ("SELECT name FROM raw.people EXCEPT SELECT 'S***'", []),
    "sample": ("SELECT count(*) FROM (FROM raw.people USING SAMPLE 100%)", [(2,)]),
    "columns by pattern": ("SELECT COLUMNS('.*') FROM raw.people WHERE id = 1", [(1, "S***", "Paris", 30, None)]),
    "struct of a row": ("SELECT p FROM raw.people p WHERE id = 1",
                        [({"id": 1, "name": "S***", "city": "Paris", "age": 30, "code": None},)]),
    "row as JSON": ("SELECT to_json(p)::VARCHAR FROM raw.people p WHERE id = 1",
                    [('{"id":1,"name":"S***","city":"Paris","age":30,"code":null}',)]),
    "list of a column": ("SELECT list(name) FROM raw.people", [(["S***", "S***"],)]),
    "argument of another column": ("SELECT arg_max(name, age) FROM raw.people", [("S***",)]),
    "pushed rows and overlay's base": ("SELECT id, place FROM features.visits", [(1, "#")]),
    "one column": ("FROM raw.letters", [(1,)]),
    "old version by number": ("SELECT id, name FROM raw.people AT (VERSION => 0) ORDER BY id",
                              [(1, "O***"), (2, "O***")]),
    "own name that hides a table": ("WITH people AS (SELECT 1 AS a) FROM people", [(1,)]),
    "recursion": ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT max(n) FROM t",
                  [(3,)]),
    "names of an outer WITH in a subquery": ("WITH a AS (SELECT id FROM raw.open) SELECT (SELECT count(*) FROM a)",
                                             [(4,)]),
    "lateral": ("SELECT count(*) FROM raw.people p, LATERAL (SELECT p.age + 1)", [(2,)]),
    "unnest": ("SELECT unnest([1, 2])", [(1,), (2,)]),
    "range": ("SELECT count(*) FROM range(3)", [(3,)]),
    # Columns, tables and versions that are not granted.
    "column that is not granted": ("SELECT salary FROM raw.people", REFUSED),
    "qualified": ("SELECT p.salary FROM raw.people p", REFUSED),
    "condition on it": ("SELECT id FROM raw.people WHERE salary > 1", REFUSED),
    "ordering by it": ("SELECT id FROM raw.people ORDER BY salary", REFUSED),
    "join by it": ("SELECT 1 FROM raw.people p JOIN raw.open o ON p.salary = o.id", REFUSED),
    "using it": ("SELECT 1 FROM raw.people JOIN raw.people q USING (salary)", REFUSED),
    "replacing it": ("SELECT * REPLACE (salary AS id) FROM raw.people", REFUSED),
    "pattern of it": ("SELECT COLUMNS('salary') FROM raw.people", REFUSED),
    "in an old version": ("SELECT salary FROM raw.people AT (VERSION => 0)", REFUSED),
    "text of letters": ("SELECT text FROM raw.letters", REFUSED),
    "known table": ("FROM raw.known", REFUSED),
    "hidden table": ("FROM hidden.vault", REFUSED),
    "hidden table in a subquery": ("SELECT (SELECT text FROM hidden.vault)", REFUSED),
    "hidden table in WITH": ("WITH a AS (FROM hidden.vault) FROM a", REFUSED),
    "hidden table in a WITH that is not used": ("WITH a AS (FROM hidden.vault) SELECT 1", REFUSED),
    "hidden table in EXISTS": ("SELECT id FROM raw.open WHERE EXISTS (FROM hidden.vault)", REFUSED),
    "hidden table at a version": ("FROM hidden.vault AT (VERSION => 0)", REFUSED),
    "hidden table described": ("FROM (DESCRIBE hidden.vault)", REFUSED),
    "hidden table summarised": ("FROM (SUMMARIZE hidden.vault)", REFUSED),
    "hidden table pivoted": ("FROM (PIVOT hidden.vault ON text IN ('x') USING count(*))", REFUSED),
    "quarantine": ('FROM quarantine."raw/people"', REFUSED),
    "pushed rows": ("FROM pushed.visits__0123456789ab", REFUSED),
    "audit": ("FROM governance.audit", REFUSED),
    "schema of a dated view": ('FROM "hidden at VERSION 0".vault', REFUSED),
    # Errors that would quote hidden values.
    "cast of hidden rows": ("SELECT id FROM raw.people WHERE CAST(city AS INTEGER) = 1", REFUSED),
    "cast of a masked column": ("SELECT CAST(name AS INTEGER) FROM raw.people", REFUSED),
    "cast of a column masked by NULL": ("SELECT count(*) FROM raw.people WHERE CAST(code AS INTEGER) > 20", [(0,)]),
    "division by hidden ages": ("SELECT count(*) FROM raw.people WHERE 1 / (age - 77777) > 0", [(0,)]),
    "overflow of hidden ages": ("SELECT sum(CAST(age AS TINYINT)) FROM raw.people", [(70,)]),
    "error of one's own": ("SELECT assert_true(age < 50) FROM raw.people", [(None,), (None,)]),
    "date of a masked column": ("SELECT CAST(name AS DATE) FROM raw.people", REFUSED),
    "JSON of a masked column": ("SELECT json_extract(name, '$.a') FROM raw.people", REFUSED),
    "pattern from a column": ("SELECT regexp_matches('x', city || '(') FROM raw.people", REFUSED),
    "strptime": ("SELECT strptime(city, '%Y') FROM raw.people", REFUSED),
    "cast within a CASE": ("SELECT CASE WHEN id > 0 THEN city::INT END FROM raw.people", REFUSED),
    "cast beneath an aggregate": ("SELECT max(city::INT) FROM raw.people", REFUSED),
    "cast beside a join": ("SELECT 1 FROM raw.people p JOIN raw.open o ON p.city::INT = o.id", REFUSED),
    # Files.
    "file of the table": ("FROM read_parquet('{file}')", REFUSED),
    "file by name": ("FROM '{file}'", REFUSED),
    "parquet_scan": ("FROM parquet_scan('{file}')", REFUSED),
    "all files": ("FROM read_parquet('{lake}/*/*/*.parquet')", REFUSED),
    "metadata": ("SELECT stats_min FROM parquet_metadata('{file}')", REFUSED),
    "full metadata": ("FROM parquet_full_metadata('{file}')", REFUSED),
    "schema of a file": ("FROM parquet_schema('{file}')", REFUSED),
    "bloom filter": ("FROM parquet_bloom_probe('{file}', 'name', 'SECRETAda')", REFUSED),
    "key values": ("FROM parquet_kv_metadata('{file}')", REFUSED),
    "log": ("FROM read_json('{lake}/raw/people/_delta_log/00000000000000000000.json')", REFUSED),
    "log as text": ("FROM read_text('{lake}/raw/people/_delta_log/00000000000000000000.json')", REFUSED),
    "blob": ("FROM read_blob('{file}')", REFUSED),
    "csv": ("FROM read_csv('/etc/passwd')", REFUSED),
    "sniffing": ("FROM sniff_csv('/etc/passwd')", REFUSED),
    "glob": ("FROM glob('{lake}/**')", REFUSED),
    "delta": ("FROM delta_scan('{lake}/hidden/vault')", REFUSED),
    "file within a subquery": ("SELECT (SELECT count(*) FROM read_parquet('{file}'))", REFUSED),
    "file as an own name": ("WITH \"{file}\" AS (SELECT 1) FROM \"{file}\"", REFUSED),
    "file before its own name": ("WITH a AS (FROM \"{file}\"), \"{file}\" AS (SELECT 1) FROM a", REFUSED),
    # DuckDB's catalogs and functions that tell of them.
    "views": ("FROM duckdb_views()", REFUSED),
    "views without brackets": ("FROM duckdb_views", REFUSED),
    "views before their own name": ("WITH a AS (FROM duckdb_views), duckdb_views AS (SELECT 1) FROM a", REFUSED),
    "views as the seed of a recursion of their name": (
        "WITH RECURSIVE duckdb_views AS (SELECT sql FROM duckdb_views UNION ALL SELECT sql FROM duckdb_views) "
        "SELECT sql FROM duckdb_views", REFUSED),
    "master table as a seed": (
        "WITH RECURSIVE sqlite_master AS (FROM sqlite_master UNION FROM sqlite_master) FROM sqlite_master", REFUSED),
    "file as a seed": (
        "WITH RECURSIVE \"{file}\" AS (FROM \"{file}\" UNION ALL FROM \"{file}\") FROM \"{file}\"", REFUSED),
    "seed within the seed": (
        "WITH RECURSIVE a AS (WITH RECURSIVE duckdb_views AS (SELECT 1 AS n UNION ALL SELECT n FROM a) "
        "SELECT n FROM duckdb_views UNION ALL SELECT n FROM a WHERE false) FROM a", REFUSED),
    "views in a subquery beside": ("SELECT * FROM (WITH duckdb_views AS (SELECT 1) FROM duckdb_views), duckdb_views",
                                   REFUSED),
    "information schema": ("FROM information_schema.columns", REFUSED),
    "views of the information schema": ("SELECT view_definition FROM information_schema.views", REFUSED),
    "pg_catalog": ("FROM pg_catalog.pg_views", REFUSED),
    "sqlite_master": ("FROM sqlite_master", REFUSED),
    "main": ("FROM main.duckdb_views", REFUSED),
    "system": ("FROM system.main.duckdb_views", REFUSED),
    "temp": ('FROM temp.main."lake:raw/people@2"', REFUSED),
    "memory": ("FROM memory.raw.people", REFUSED),
    "registered relation": ('FROM "lake:raw/people@2"', REFUSED),
    "all tables": ("FROM (SHOW ALL TABLES)", REFUSED),
    "tables": ("FROM (SHOW TABLES)", REFUSED),
    "databases": ("FROM (SHOW DATABASES)", REFUSED),
    "settings": ("FROM duckdb_settings()", REFUSED),
    "setting": ("SELECT current_setting('allowed_paths')", REFUSED),
    "secrets": ("FROM duckdb_secrets()", REFUSED),
    "variables": ("FROM duckdb_variables()", REFUSED),
    "text of a view": ("SELECT pg_get_viewdef('raw.people')", REFUSED),
    "statistics of a masked column": ("SELECT stats(age) FROM raw.people", REFUSED),
    "internal function": ("SELECT __internal_compress_string_utinyint(name) FROM raw.people", REFUSED),
    "function of a schema": ("SELECT main.current_setting('allowed_paths')", REFUSED),
    "function by the dot": ("SELECT 'allowed_paths'.current_setting()", REFUSED),
    "query()": ("FROM query('FROM duckdb_views()')", REFUSED),
    "query_table()": ("FROM query_table('raw.people')", REFUSED),
    "serialised statement": ("FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))", REFUSED),
    "environment": ("SELECT getenv('ML_PLATFORM_KEY')", REFUSED),
    "waiting": ("SELECT pg_sleep(60)", REFUSED),
    "log of DuckDB": ("SELECT write_log('x')", REFUSED),
    "cache of files": ("FROM duckdb_external_file_cache()", REFUSED),
    "python": ("FROM lake", REFUSED),
    "prediction": ("SELECT predict('any', p) FROM raw.people p", REFUSED),
    "type of a schema": ("SELECT CAST(id AS raw.mytype) FROM raw.open", REFUSED),
    # Statements that are no SELECT.
    "copy": ("COPY (FROM raw.people) TO '{lake}/stolen.csv'", REFUSED),
    "copy of a file": ("COPY raw.people FROM '{file}'", REFUSED),
    "attach": ("ATTACH '{lake}/x.db' AS x", REFUSED),
    "explain": ("EXPLAIN ANALYZE FROM raw.people", REFUSED),
    "set": ("SET enable_external_access = true", REFUSED),
    "pragma": ("PRAGMA show_tables", REFUSED),
    "two statements": ("SELECT 1; FROM duckdb_views()", REFUSED),
    "create": ("CREATE TABLE t AS FROM raw.people", REFUSED),
    "load": ("INSTALL httpfs", REFUSED),
    "view made anew": ("CREATE OR REPLACE VIEW raw.people AS FROM read_parquet('{file}')", REFUSED),
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return make_lake(tmp_path_factory.mktemp("guarded"))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(lake, name):
    sql, wanted = ATTACKS[name]
    sql = sql.replace("{file}", lake.snapshot("raw/people").file_uris()[0]).replace("{lake}", lake.uri)
    ada = as_ada(lake)
    if wanted == REFUSED:
        with pytest.raises((duckdb.Error, ValueError, LookupError, AccessDenied)) as refusal:
            query(ada, sql)
        assert not [one for one in leaks(refusal.value) if one not in sql]
    else:
        rows = query(ada, sql)
        assert rows.rows() == wanted
        assert not leaks(rows)


def test_there_are_enough_attacks():
    assert len(ATTACKS) >= 100


def test_open_lakes_answer_what_a_guard_refuses(lake):
    # Else the attacks above would prove nothing: the values are there to be seen.
    assert leaks(query(lake, "FROM raw.people"))
    assert leaks(query(lake, "FROM hidden.vault"))
    with pytest.raises(duckdb.ConversionException, match="Hidden-1"):
        query(lake, "SELECT CAST(city AS INTEGER) FROM raw.people WHERE city LIKE 'H%'")


def test_time_travel_and_as_of_stay_masked(lake):
    ada = as_ada(lake)
    first = query(ada, "SELECT name FROM raw.people", versions={"raw/people": 0})
    assert first["name"].to_list() == ["O***", "O***"]
    now = query(ada, "SELECT name FROM raw.people", as_of=datetime.now(UTC))
    assert now["name"].to_list() == ["S***", "S***"]
    with pytest.raises(AccessDenied, match=r"'select' on raw\.known"):
        query(ada, "SELECT 1", versions={"raw/known": 0}, tables=["raw/known"])
    with pytest.raises(TableNotFound):
        query(ada, "SELECT 1", versions={"hidden/vault": 0})


def test_hidden_and_missing_tables_are_told_apart_by_nothing(lake):
    texts = []
    for table in ("hidden.vault", "hidden.ghost"):
        with pytest.raises(TableNotFound) as refusal:
            query(as_ada(lake), f"FROM {table}")
        texts.append(str(refusal.value).replace(table.replace(".", "/"), "<table>"))
    assert texts[0] == texts[1]
    assert "vault" not in texts[0]


def test_pushed_rows_are_masked_and_filtered_with_the_views_own(lake):
    def overlay(table, version):
        if table != "features/visits":
            return None
        return Overlay("pushed/visits__0123456789ab", ("id", "event_time"), ("place",), ("__pushed_at",))

    assert query(lake, "SELECT DISTINCT place FROM features.visits", overlays=overlay).rows() == [("SECRETpush",)]
    rows = query(as_ada(lake), "SELECT id, place FROM features.visits", overlays=overlay)
    assert rows.rows() == [(1, "#")]


def test_all_tables_are_attached_that_are_granted(lake):
    with duckdb.connect() as connection:
        pinned = attach(connection, as_ada(lake))
        assert sorted(pinned) == ["features/visits", "raw/letters", "raw/open", "raw/people"]
        assert connection.execute("SELECT count(*) FROM raw.people").fetchall() == [(2,)]


def test_batches_are_guarded_too(lake):
    frames = list(query_batches(as_ada(lake), "SELECT name, code FROM raw.people"))
    assert pl.concat(frames)["name"].to_list() == ["S***", "S***"]


def test_filters_and_masks_see_the_columns_that_they_hide(lake):
    access = TableAccess({"id": None, "name": "CASE WHEN salary > 50000 THEN 'rich' END"}, "salary > 1 AND age < 100")
    rows = query(as_ada(lake, {"raw/people": access}), "FROM raw.people ORDER BY id")
    assert rows.rows() == [(1, "rich"), (2, "rich")]
    # A mask has its column's name: the filter sees the column.
    swapped = TableAccess({"id": None, "city": "'Hidden-1'", "name": "city"}, "city = 'Paris'")
    rows = query(as_ada(lake, {"raw/people": swapped}), "SELECT id, name FROM raw.people ORDER BY id")
    assert rows.rows() == [(1, "Paris"), (2, "Paris")]


def test_filters_that_fit_no_version_refuse_it(lake):
    access = TableAccess(None, "no_such_column = 1")
    with pytest.raises(AccessDenied, match="cannot be computed on version 2") as refusal:
        query(as_ada(lake, {"raw/people": access}), "FROM raw.people")
    assert "no_such_column" not in str(refusal.value)
    with pytest.raises(AccessDenied, match="No column that is granted"):
        query(as_ada(lake, {"raw/people": TableAccess({"gone": None})}), "FROM raw.people")


@pytest.mark.parametrize(
    "text",
    [
        "true) FROM (SELECT 1", "true); SELECT (1", "(SELECT 1)", "true) --", "id IN (SELECT 1)", "", "*",
        "current_setting('x') = ''", "row_number() OVER ()", "EXISTS (FROM duckdb_views())", "a FROM b",
    ],
)  # fmt: skip
def test_filters_are_one_expression_over_a_row(lake, text):
    with pytest.raises(ValueError, match="the row filter"):
        check_expression(text, "the row filter")
    with pytest.raises(ValueError, match=r"the row filter of raw\.people"):
        query(as_ada(lake, {"raw/people": TableAccess(None, text)}), "FROM raw.people")
    with pytest.raises(ValueError, match=r"the mask of raw\.people\.name"):
        query(as_ada(lake, {"raw/people": TableAccess({"name": text})}), "FROM raw.people")


def test_masked_values_keep_their_columns_types(lake):
    ada = as_ada(lake, {"raw/people": TableAccess({"id": None, "age": "age // 10 * 10", "name": "NULL"})})
    assert query(ada, "FROM raw.people").schema == lake.read("raw/people").select("id", "name", "age").collect_schema()
    wrong = as_ada(lake, {"raw/people": TableAccess({"age": "'about ' || left(city, 1)"})})
    with pytest.raises(duckdb.ConversionException):
        query(wrong, "FROM raw.people")


def test_reads_are_told_with_their_columns_and_rows(lake):
    reads: list[TableRead] = []
    ada = as_ada(lake, reads=reads)
    query(ada, "SELECT name FROM raw.people WHERE age > 1")
    query(ada, "SELECT count(*) FROM raw.open JOIN raw.people AT (VERSION => 0) USING (id)")
    list(query_batches(ada, "FROM raw.open"))
    with pytest.raises(AccessDenied):
        query(ada, "FROM raw.known")
    with pytest.raises(TableNotFound):
        query(ada, "FROM hidden.vault")
    told = [(one.table, one.version, one.columns, one.rows, one.is_refused) for one in reads]
    assert told == [
        ("raw/people", 2, ("name", "age"), 2, False),
        ("raw/open", 0, ("id",), 1, False),
        ("raw/people", 0, ("id",), 1, False),
        ("raw/open", 0, ("id", "x"), 4, False),
        ("raw/known", None, (), 0, True),
        ("hidden/vault", None, (), 0, True),
    ]
    assert {(one.principal, one.path) for one in reads} == {("user:ada", "sql")}


def test_every_function_of_duckdb_is_known():
    known = duckdb.connect().execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate')"
    )
    there = {name for (name,) in known.fetchall()}
    assert ALLOWED_FUNCTIONS & there
    assert not {"stats", "current_setting", "write_log", "nextval"} & ALLOWED_FUNCTIONS
    gone = {name for name in ALLOWED_FUNCTIONS if name.isidentifier()} - {
        name
        for (name,) in duckdb.connect()
        .execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()")
        .fetchall()
    }
    assert not gone, "named as allowed, and not DuckDB's (any more)"


def test_trees_of_kinds_that_are_not_known_are_refused(lake):
    from ml_platform.lake.query.principal_gate import check_principals_sql

    ((text,),) = duckdb.execute("SELECT json_serialize_sql('SELECT 1 FROM raw.open')").fetchall()
    tree = json.loads(text)
    check_principals_sql(tree)
    tree["statements"][0]["node"]["from_table"]["type"] = "NEW_KIND_OF_SOURCE"
    with pytest.raises(OutsideTheLake, match="new_kind_of_source"):
        check_principals_sql(tree)
