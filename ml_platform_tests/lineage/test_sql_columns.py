"""Which columns a query uses: told for each corner of DuckDB's SQL, and true of what the query gives."""

import random

import duckdb
import pytest

from ml_platform.lineage.graph import DIRECT
from ml_platform.lineage.sql_columns import sql_columns

TABLES = {
    "raw.f": {
        "id": "INTEGER",
        "a": "INTEGER",
        "b": "INTEGER",
        "s": "VARCHAR",
        "t": "TIMESTAMPTZ",
        "l": "INTEGER[]",
        "st": "STRUCT(x INTEGER, y INTEGER)",
    },
    "raw.w": {"a": "INTEGER", "temp": "INTEGER", "t": "TIMESTAMPTZ"},
}


def told(sql: str) -> dict[str, dict[str, str]]:
    """Output → `f.a` → kinds, as text that is short enough for a table of cases."""
    return {
        output: {
            f"{table.removeprefix('raw.')}.{column}": "/".join(sorted(kinds)) for (table, column), kinds in uses.items()
        }
        for output, uses in sql_columns(sql, TABLES).items()
    }


CASES: dict[str, dict[str, dict[str, str]]] = {
    "SELECT a, b + 1 AS x FROM raw.f WHERE s = 'k'": {
        "a": {"f.a": "copy", "f.s": "filter"},
        "x": {"f.b": "projection", "f.s": "filter"},
    },
    "SELECT * EXCLUDE (id, l, st, t, s) REPLACE (b * 2 AS b) FROM raw.f": {
        "a": {"f.a": "copy"},
        "b": {"f.b": "projection"},
    },
    "SELECT a AS z, z + 1 AS y, y * 2 AS q FROM raw.f": {
        "z": {"f.a": "copy"},
        "y": {"f.a": "projection"},
        "q": {"f.a": "projection"},
    },
    "SELECT a, temp FROM raw.f JOIN raw.w USING (a)": {
        "a": {"f.a": "join/projection", "w.a": "join/projection"},
        "temp": {"f.a": "join", "w.a": "join", "w.temp": "copy"},
    },
    "SELECT temp FROM raw.f ASOF JOIN raw.w ON f.a = w.a AND f.t >= w.t": {
        "temp": {"f.a": "join", "f.t": "join", "w.a": "join", "w.t": "join", "w.temp": "copy"}
    },
    "SELECT b FROM raw.f SEMI JOIN raw.w USING (a)": {"b": {"f.a": "join", "f.b": "copy", "w.a": "join"}},
    "SELECT s, sum(b) FILTER (WHERE a > 0) AS n FROM raw.f GROUP BY ALL HAVING max(id) > 1": {
        "s": {"f.s": "copy/group", "f.id": "filter"},
        "n": {"f.a": "filter", "f.b": "aggregate", "f.s": "group", "f.id": "filter"},
    },
    "SELECT string_agg(s ORDER BY t) AS g FROM raw.f": {"g": {"f.s": "aggregate", "f.t": "order"}},
    "SELECT sum(b) OVER w AS v FROM raw.f WINDOW w AS (PARTITION BY s ORDER BY t)": {
        "v": {"f.b": "aggregate", "f.s": "window", "f.t": "window"}
    },
    "SELECT a FROM raw.f QUALIFY row_number() OVER (PARTITION BY s ORDER BY t) = 1": {
        "a": {"f.a": "copy", "f.s": "window", "f.t": "window"}
    },
    "SELECT DISTINCT ON (s) b FROM raw.f ORDER BY s, t": {"b": {"f.b": "copy", "f.s": "group/order", "f.t": "order"}},
    "SELECT a FROM raw.f ORDER BY t LIMIT 2": {"a": {"f.a": "copy", "f.t": "order"}},
    "SELECT a FROM raw.f WHERE EXISTS (FROM raw.w WHERE w.a = f.a AND w.temp > f.b)": {
        "a": {"f.a": "copy/filter", "f.b": "filter", "w.a": "filter", "w.temp": "filter"}
    },
    "SELECT b, (SELECT max(temp) FROM raw.w WHERE w.a = f.a) AS q FROM raw.f": {
        "q": {"f.a": "filter", "w.a": "filter", "w.temp": "aggregate"}
    },
    "WITH m AS MATERIALIZED (SELECT a, max(b) AS top, min(id) AS low FROM raw.f GROUP BY a) SELECT top FROM m": {
        "top": {"f.a": "group", "f.b": "aggregate"}
    },
    "SELECT a FROM raw.f UNION ALL SELECT temp FROM raw.w": {"a": {"f.a": "copy", "w.temp": "copy"}},
    "SELECT a FROM raw.f UNION ALL BY NAME SELECT a, temp FROM raw.w": {
        "temp": {"w.temp": "copy"},
        "a": {"f.a": "copy", "w.a": "copy"},
    },
    "SELECT u.x FROM raw.f, unnest(l) AS u(x)": {"x": {"f.l": "join/projection"}},
    "SELECT st.x AS sx FROM raw.f": {"sx": {"f.st": "projection"}},
    "SELECT list_transform(l, lambda x: x + b) AS z FROM raw.f": {"z": {"f.b": "projection", "f.l": "projection"}},
    "SELECT [x + b FOR x IN l] AS z FROM raw.f": {"z": {"f.b": "projection", "f.l": "projection"}},
    "SELECT count(*) AS n FROM raw.f": {"n": {}},
    "PIVOT (SELECT a, s, b FROM raw.f) ON s IN ('x', 'y') USING sum(b) GROUP BY a": {
        "x": {"f.a": "read", "f.b": "read", "f.s": "read"}
    },
}


@pytest.mark.parametrize("sql", CASES)
def test_the_use_of_every_column_is_told(sql):
    given = told(sql)
    for output, uses in CASES[sql].items():
        extra = {column: kind for column, kind in given[output].items() if column not in uses}
        assert {column: kind for column, kind in given[output].items() if column in uses} == uses
        assert not extra, f"{output}: not used, but told {extra}"


def test_names_with_dots_blanks_and_other_case_are_resolved():
    tables = {"quarantine.raw/fl.ights": {"a b": "INTEGER", "x.y": "INTEGER", 'q"z': "INTEGER", "Other": "INTEGER"}}
    given = sql_columns('SELECT "a b" + "x.y" AS n, "q""z", OTHER FROM quarantine."raw/fl.ights"', tables)
    columns = [sorted(column for _, column in uses) for uses in given.values()]
    assert columns == [["a b", "x.y"], ['q"z'], ["Other"]]


def test_a_query_of_an_unknown_column_is_refused():
    with pytest.raises(duckdb.BinderException, match="nothing_like_it"):
        sql_columns("SELECT nothing_like_it FROM raw.f", TABLES)


# ---- what is told is true of the results

SOURCES = (
    "SELECT id, a, b, s, t FROM raw.f",
    "SELECT f.id, f.a, w.temp AS b, f.s, w.t FROM raw.f JOIN raw.w USING (a)",
)
STEPS = (
    "SELECT id, a + b AS a, b, s, t FROM ({0}) q WHERE b > 2",
    "SELECT min(id) AS id, a, sum(b) AS b, max(s) AS s, min(t) AS t FROM ({0}) q GROUP BY a",
    "SELECT id, a, sum(b) OVER w AS b, s, t FROM ({0}) q WINDOW w AS (PARTITION BY s ORDER BY id, a, b, t)",
    "SELECT DISTINCT a, min(id) OVER () AS id, b, s, t FROM ({0}) q",
    "SELECT id, a, b, s, t FROM ({0}) q WHERE a IN (SELECT a FROM raw.w WHERE temp > 3)",
    "SELECT id, a, (SELECT max(w.temp) FROM raw.w WHERE w.a = q.a) AS b, s, t FROM ({0}) q",
    "SELECT * FROM ({0}) q UNION ALL BY NAME SELECT id, b AS a, a AS b, s, t FROM raw.f",
    "WITH c AS MATERIALIZED ({0}) SELECT x.id, y.a, x.b, y.s, x.t FROM c x JOIN c y ON x.id = y.a",
    "SELECT id, a, b, s, t FROM ({0}) q QUALIFY row_number() OVER (PARTITION BY a ORDER BY id, b, s, t) = 1",
    "SELECT id, CASE WHEN s = 'u' THEN a ELSE b END AS a, b, lower(s) AS s, t FROM ({0}) q",
    "SELECT id, a, b, s, t FROM ({0}) q EXCEPT SELECT id, a, b, s, t FROM raw.f WHERE a = 1",
)
VALUES = {
    "INTEGER": "(random() * 6)::INT",
    "VARCHAR": "['u', 'V', 'x'][1 + (random() * 2)::INT]",
    "TIMESTAMPTZ": "TIMESTAMPTZ '2024-01-01' + to_hours((random() * 5)::INT)",
    "INTEGER[]": "[(random() * 5)::INT, 1]",
    "STRUCT(x INTEGER, y INTEGER)": "{'x': (random() * 5)::INT, 'y': 2}",
}


def results(connection, sql):
    relation = connection.sql(f"SELECT * FROM ({sql}) AS q(c0, c1, c2, c3, c4)")
    rows = relation.fetchall()
    return [sorted(repr(row[number]) for row in rows) for number in range(5)]


def changed(connection, table, column, kind):
    """Draw a column's values anew."""
    connection.execute(
        f'CREATE OR REPLACE TABLE {table} AS SELECT * REPLACE ({VALUES[kind]} AS "{column}") FROM {table}'
    )


def test_unused_columns_never_change_a_result_and_used_ones_do():
    rng = random.Random(2013)
    unused_checked, direct_seen, direct_effective = 0, 0, 0
    for _ in range(24):
        sql = rng.choice(SOURCES)
        for step in rng.sample(STEPS, rng.randint(1, 2)):
            sql = step.format(sql)
        uses = list(sql_columns(sql, TABLES).values())
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
            connection.execute(f"SELECT setseed({rng.random()})")
            for table, columns in TABLES.items():
                drawn = ", ".join(
                    f"{'i::INT' if name == 'id' else VALUES[kind]} AS {name}" for name, kind in columns.items()
                )
                connection.execute(f"CREATE TABLE {table} AS SELECT {drawn} FROM range(30) r(i)")
            before = results(connection, sql)
            for table, columns in TABLES.items():
                for column, kind in columns.items():
                    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS FROM {table}")
                    effects = set()
                    for _ in range(3):
                        changed(connection, table, column, kind)
                        after = results(connection, sql)
                        effects |= {number for number in range(5) if after[number] != before[number]}
                    connection.execute(f"CREATE OR REPLACE TABLE {table} AS FROM kept")
                    for number, used in enumerate(uses):
                        kinds = used.get((table, column), frozenset())
                        if not kinds:
                            unused_checked += 1
                            assert number not in effects, f"{table}.{column} changes column {number} of {sql}"
                        elif kinds & DIRECT:
                            direct_seen += 1
                            direct_effective += number in effects
    assert unused_checked > 300
    # Some never show: the temperature of a row whose key joins nothing, or a sum of which nothing is left.
    assert direct_seen > 100
    assert direct_effective > 0.8 * direct_seen
