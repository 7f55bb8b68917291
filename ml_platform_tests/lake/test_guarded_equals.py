"""SQL through a guard answers as SQL on a copy that was masked and filtered beforehand, whatever the SQL."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.lake.access import TableAccess
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.guarded_world import SmallGuard

ACCESS = TableAccess({"id": None, "group": None, "name": "left(name, 2) || '…'", "value": "round(value)"}, "value < 60")
_COLUMNS = ("id", '"group"', "name", "value")
_EXPRESSIONS = st.sampled_from([
    *_COLUMNS, "hidden", "length(name)", "value * 2", "upper(name)", "CAST(value AS INTEGER)", "name || id",
    "CAST(name AS INTEGER)", "value / (id - 3)", "CASE WHEN value > 20 THEN name END", "TRY_CAST(name AS DATE)",
])  # fmt: skip
_CONDITIONS = st.sampled_from([
    "true", "value > 10", "value >= 60", "name LIKE 'ab%'", "name = 'ab…'", "hidden = 1",
    "id IN (SELECT id FROM raw.rows WHERE value < 30)", "CAST(name AS INTEGER) > 0",
    "EXISTS (SELECT 1 FROM raw.rows o WHERE o.name = t.name AND o.id <> t.id)",
    '"group" IS NULL', "value <> round(value)",
])  # fmt: skip
_AGGREGATES = st.sampled_from(["count(*)", "sum(value)", "max(name)", "list(name ORDER BY id)", "min(hidden)"])


@st.composite
def selects(draw: st.DrawFn) -> str:
    """A SELECT over the table, of which some are wrong."""
    where = draw(_CONDITIONS)
    if draw(st.booleans()):
        by = draw(st.sampled_from(_COLUMNS))
        having = draw(st.sampled_from(["", " HAVING count(*) > 1", " HAVING max(value) > 20"]))
        return (
            f"SELECT {by} AS k, {draw(_AGGREGATES)} AS a FROM raw.rows t WHERE {where} GROUP BY 1{having} ORDER BY ALL"
        )
    chosen = ", ".join(
        f"{one} AS c{number}" for number, one in enumerate(draw(st.lists(_EXPRESSIONS, min_size=1, max_size=3)))
    )
    source = draw(st.sampled_from([
        "raw.rows t", "(SELECT * FROM raw.rows) t", "raw.rows t SEMI JOIN raw.rows u ON t.name = u.name",
    ]))  # fmt: skip
    return f"SELECT {chosen} FROM {source} WHERE {where} ORDER BY ALL LIMIT {draw(st.integers(0, 20))}"


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Lake]:
    folder = tmp_path_factory.mktemp("equal")
    rows = pl.DataFrame({
        "id": range(40), "group": [None if n % 5 == 0 else f"g{n % 3}" for n in range(40)],
        "name": [f"{'ab' if n % 2 else 'xy'}{n}" for n in range(40)], "value": [n * 2.3 for n in range(40)],
        "hidden": [n % 2 for n in range(40)],
    })  # fmt: skip
    whole, copy = Lake(str(folder / "whole")), Lake(str(folder / "copy"))
    for part in rows.iter_slices(10):  # several files
        whole.append("raw/rows", part)
    columns = "id, \"group\", left(name, 2) || '…' AS name, round(value) AS value"
    masked = query(whole, f"SELECT {columns} FROM raw.rows WHERE value < 60")
    copy.append("raw/rows", masked)
    return Lake(whole.uri, guard=SmallGuard({"raw/rows": ACCESS})), copy


def answer(lake: Lake, sql: str) -> object:
    """Rows of an answer, or the kind of error that it ended in."""
    try:
        return query(lake, sql).rows()
    except (duckdb.Error, ValueError) as error:
        return type(error)


@settings(max_examples=150, deadline=None)
@given(sql=selects())
def test_a_guard_answers_as_a_masked_copy(lakes: tuple[Lake, Lake], sql: str) -> None:
    guarded, copy = lakes
    assert answer(guarded, sql) == answer(copy, sql)
