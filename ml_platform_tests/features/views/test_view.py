"""Feature views: what a file must say, and what its query must give."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_view, load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake

DAY = datetime(2013, 7, 4, tzinfo=UTC)
HEADER = """/*
description: Sales of a shop.
owner: shops@example.com
entity: [shop]
ttl: 36 hours
columns:
  revenue: {type: number, unit: EUR, description: Receipts of the day.}
  busy: {type: boolean, description: More than ten receipts.}
*/
"""
QUERY = "SELECT shop, closed_at AS event_time, revenue, receipts > 10 AS busy FROM raw.days"


@pytest.fixture
def days(lake: Lake) -> Lake:
    frame = pl.DataFrame(
        {"shop": ["b", "a", "a"], "closed_at": [DAY, DAY + timedelta(days=1), DAY], "revenue": [1, 2, None],
         "receipts": [5, 11, 20]},
        schema_overrides={"closed_at": pl.Datetime("us", "UTC")},
    )  # fmt: skip
    lake.append("raw/days", frame)
    return lake


def write(folder: Path, text: str, name: str = "sales.sql") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_view_is_read_from_its_file(tmp_path):
    view = load_view(write(tmp_path, HEADER + QUERY + ";\n"))
    assert (view.name, view.table, view.entity, view.event_time) == ("sales", "features/sales", ("shop",), "event_time")
    assert view.ttl == timedelta(hours=36)
    assert view.columns["revenue"].unit == "EUR"
    assert view.source_tables == ("raw/days",)
    assert load_views(tmp_path) == {"sales": view}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QUERY, r"sales\.sql: wanted a leading /\* … \*/ comment"),
        ("/* entity: [ */" + QUERY, r"sales\.sql: the leading comment is not YAML"),
        ("/* just words */" + QUERY, r"sales\.sql: the leading comment must be a YAML mapping, found str"),
        (HEADER.replace("ttl:", "tll:") + QUERY, r"sales\.sql: tll: unknown key 'tll'; did you mean 'ttl'"),
        (
            HEADER.replace("type: number", "type: float") + QUERY,
            r"columns\.revenue\.type: unknown value 'float'.*Allowed: boolean, integer, number",
        ),
        (HEADER.replace("[shop]", "shop") + QUERY, r"entity: a list was wanted, e\.g\. \[shop\]; found 'shop'"),
        (
            HEADER.replace("[shop]", "[shop, shop]") + QUERY,
            r"each is a column of its own, found \['shop', 'shop', 'event",
        ),
        (HEADER.replace("ttl:", "created: event_time\nttl:") + QUERY, r"found \['shop', 'event_time', 'event_time'\]"),
        (HEADER.replace("busy:", "shop:") + QUERY, r"\['shop'\] also name the entity"),
        (HEADER + QUERY.replace("SELECT", "SELEC"), r"sales\.sql: One SELECT was wanted: syntax error .* \"SELEC\""),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_view(write(tmp_path, text))


def test_the_hash_follows_the_meaning_not_the_prose(tmp_path):
    def digest(text: str) -> str:
        return load_view(write(tmp_path, text)).hash

    base = digest(HEADER + QUERY)
    assert digest(HEADER.replace("Receipts of the day", "Takings") + QUERY) == base
    assert digest(HEADER + "-- a comment\n" + QUERY.replace(" FROM", "\n    FROM")) == base
    assert digest(HEADER + QUERY.replace(" FROM", " /* so\nbusy */ -- it's\nFROM") + " -- that is all") == base
    named = QUERY + " WHERE shop <> 'a  b'  -- spaces count, and 'so -- does'\n AND shop <> 'a -- b'"
    assert digest(HEADER + named) == digest(HEADER + named.replace("  -- spaces count, and 'so -- does'\n", " "))
    assert digest(HEADER + named) != digest(HEADER + named.replace("a  b", "a b"))
    assert digest(HEADER + named) != digest(HEADER + named.replace("a -- b", "a"))
    changes = [
        ("36 hours", "35 hours"),
        ("type: number", "type: integer"),
        ("> 10", "> 11"),
        ("unit: EUR", "unit: USD"),
    ]
    assert len({digest((HEADER + QUERY).replace(*change)) for change in changes} | {base}) == 5


def test_a_view_is_computed_and_typed_as_declared(days: Lake, tmp_path):
    view = load_view(write(tmp_path, HEADER + QUERY))
    report = compute_view(days, view)
    table = days.read(view.table).collect()
    assert table.schema == {
        "shop": pl.String, "event_time": pl.Datetime("us", "UTC"), "revenue": pl.Float64, "busy": pl.Boolean,
    }  # fmt: skip
    assert table.sort("event_time", "shop").rows() == [
        ("a", DAY, None, True), ("b", DAY, 1.0, False), ("a", DAY + timedelta(days=1), 2.0, True),
    ]  # fmt: skip
    assert (report.rows, report.tables, report.newest) == (3, {"raw/days": 0}, DAY + timedelta(days=1))
    assert report.null_share == {"revenue": pytest.approx(1 / 3), "busy": 0.0}


def test_a_whole_number_with_a_fraction_is_not_cut_off(days: Lake, tmp_path):
    whole = HEADER.replace("type: number", "type: integer")
    view = load_view(write(tmp_path, whole + QUERY))
    compute_view(days, view)
    assert days.read(view.table).collect()["revenue"].sum() == 3
    half = load_view(write(tmp_path, whole + QUERY.replace("revenue,", "revenue + 0.5 AS revenue,")))
    with pytest.raises(ValueError, match=r"column 'revenue' is declared as integer, its values are .*, e\.g\. .*1\.5"):
        compute_view(days, half)


def test_computing_again_replaces_the_rows(days: Lake, tmp_path):
    view = load_view(write(tmp_path, HEADER + QUERY))
    first = compute_view(days, view)
    second = compute_view(days, view)
    assert second.version == first.version + 1
    assert days.read(view.table).collect().height == 3


def test_a_connection_of_ones_own_is_used_and_left_open(days: Lake, tmp_path):
    with duckdb.connect() as connection:
        compute_view(days, load_view(write(tmp_path, HEADER + QUERY)), connection=connection)
        assert connection.execute("SELECT count(*) FROM raw.days").fetchone() == (3,)


def test_an_empty_view_is_a_table_without_rows(days: Lake, tmp_path):
    view = load_view(write(tmp_path, HEADER + QUERY + " WHERE false"))
    report = compute_view(days, view)
    assert (report.rows, report.newest) == (0, None)
    assert days.read(view.table).collect().columns == ["shop", "event_time", "revenue", "busy"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (QUERY.replace(", receipts > 10 AS busy", ", 1 AS extra"), r"missing \['busy'\], not declared \['extra'\]"),
        (
            QUERY.replace("closed_at AS", "closed_at::TIMESTAMP AS"),
            r"view 'sales': column 'event_time' must be a timestamp with a time zone.*AT TIME ZONE 'UTC'",
        ),
        (
            QUERY.replace("receipts > 10 AS", "receipts AS"),
            r"view 'sales': column 'busy' is declared as boolean, its values are .*, e\.g\. .*; cast it in the query",
        ),
        (
            QUERY.replace("receipts > 10 AS", "'yes' AS"),
            r"'busy' is declared as boolean, its values are String; cast it in the query, or declare another type",
        ),
        (
            QUERY.replace("revenue,", "closed_at::DATE AS revenue,"),
            r"'revenue' is declared as number, its values are Date;",
        ),
        (
            QUERY.replace("revenue,", "'ten' AS revenue,"),
            r"'revenue' is declared as number, its values are String;",
        ),
        (QUERY.replace("SELECT shop", "SELECT nullif(shop, 'b') AS shop"), r"1 of 3 rows have no 'shop'"),
        (QUERY + " UNION ALL " + QUERY, r"3 rows share \('shop', 'event_time'\) with another, e\.g\. \{'shop'"),
    ],
)
def test_a_query_that_breaks_the_declaration_is_refused_and_nothing_written(days: Lake, tmp_path, query, message):
    view = load_view(write(tmp_path, HEADER + query))
    with pytest.raises(ValueError, match=message):
        compute_view(days, view)
    assert not days.exists(view.table)


def test_rows_of_one_event_time_need_a_created_column(days: Lake, tmp_path):
    header = HEADER.replace("ttl:", "created: received_at\nttl:")
    query = QUERY.replace("SELECT", "SELECT closed_at AS received_at,")
    late = query.replace("closed_at AS received_at", "closed_at + INTERVAL 1 HOUR AS received_at")
    view = load_view(write(tmp_path, f"{header}{query} UNION ALL {late}"))
    assert view.keys == ("shop", "event_time", "received_at")
    assert compute_view(days, view).rows == 6


def test_views_of_one_project_have_their_own_names():
    with pytest.raises(ValueError, match="String should match pattern"):
        FeatureView(name="Sales-1", description="", owner="a", entity=("s",), columns={}, sql="SELECT 1")
