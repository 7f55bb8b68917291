"""The spine's query reads only what is wanted: of files outside the span the data is damaged here, so reading fails."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from ml_platform.features.training_sets.build import spine_labels
from ml_platform.features.training_sets.spine import Span, read_spine
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform_tests.toy_world import shop_spec

START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
COLUMNS = ["order_id", "ordered_at", "late"]
PLAIN = "SELECT order_id, ordered_at, late, known_at, amount FROM raw.orders"
OF_A_DATE = """
SELECT order_id, (day + to_hours(hour)) AT TIME ZONE 'UTC' AS ordered_at, late FROM raw.orders
WHERE day BETWEEN getvariable('span_start')::DATE AND getvariable('span_end')::DATE
"""
RANKED = """
SELECT order_id, ordered_at, row_number() OVER (PARTITION BY amount ORDER BY ordered_at) > 3 AS late FROM raw.orders
"""


@pytest.fixture
def lake(lake: Lake) -> Lake:
    """Ten days of orders, each in a file of its own, of which the first five cannot be read."""
    for number in range(10):
        at = START + number * DAY
        hours = pl.int_range(24, eager=True)
        frame = pl.DataFrame({"hour": hours}).with_columns(
            order_id=pl.format("{}-{}", pl.lit(number), "hour"),
            ordered_at=(pl.lit(at) + pl.duration(hours="hour")).dt.cast_time_unit("us"),
            day=pl.lit(at.date()),
            late=pl.col("hour") % 3 == 0,
            known_at=pl.lit(at).dt.cast_time_unit("us"),
            amount=pl.lit(1.0),
        )
        lake.append("raw/orders", frame)
        if number < 5:
            for path in set(lake.snapshot("raw/orders").file_uris()):
                _damage(Path(path))
    return lake


def _damage(path: Path) -> None:
    """Overwrite everything but the footer of a Parquet file."""
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8
    data[4:-footer] = bytes(len(data) - footer - 4)
    path.write_bytes(data)


def spine(folder: Path, query: str) -> tuple[ModelSpec, Path]:
    (folder / "late.sql").write_text(query)
    return shop_spec(), folder


@pytest.mark.parametrize("query", [PLAIN, OF_A_DATE], ids=["a column", "made of two columns"])
def test_only_files_of_the_span_are_read(lake: Lake, tmp_path: Path, query: str) -> None:
    asked = spine(tmp_path, query)
    rows = read_spine(lake, *asked, COLUMNS, span=Span("ordered_at", START + 7.5 * DAY, START + 9 * DAY))
    assert rows.columns == COLUMNS
    assert rows["ordered_at"].sort().to_list() == [
        START + 7.5 * DAY + timedelta(hours=number) for number in range(36)
    ], "the start belongs to it, the end does not"
    with pytest.raises(duckdb.Error):
        read_spine(lake, *asked, COLUMNS)


def test_a_query_that_needs_earlier_rows_reads_them(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(duckdb.Error):
        read_spine(lake, *spine(tmp_path, RANKED), COLUMNS, span=Span("ordered_at", START + 8 * DAY, START + 9 * DAY))


def test_without_a_span_the_query_sees_the_ends_of_time(tmp_path: Path, settings) -> None:
    whole = Lake(settings.lake_uri + "_whole")
    whole.append("raw/orders", pl.DataFrame({"order_id": ["a"], "day": [START.date()], "hour": [3], "late": [True]}))
    assert read_spine(whole, *spine(tmp_path, OF_A_DATE), COLUMNS).height == 1


def test_a_missing_column_and_a_repeated_id_are_refused(tmp_path: Path, settings) -> None:
    lake = Lake(settings.lake_uri + "_twice")
    lake.append("raw/orders", pl.DataFrame({"order_id": ["a", "a"], "late": [True, False]}))
    query = "SELECT order_id, late FROM raw.orders"
    with pytest.raises(ValueError, match=r"late.sql must give the columns \['ordered_at'\]; it gives \['order_id'"):
        read_spine(lake, *spine(tmp_path, query), COLUMNS)
    with pytest.raises(ValueError, match=r"1 rows with the id of another row, e\.g\. 'a'"):
        read_spine(lake, *spine(tmp_path, query), ["order_id", "late"])


@pytest.mark.parametrize("name", ["amount", "AMOUNT"])
def test_a_column_given_twice_is_refused_where_it_is_wanted(tmp_path: Path, settings, name: str) -> None:
    lake = Lake(settings.lake_uri + "_columns")
    lake.append(
        "raw/orders", pl.DataFrame({"order_id": ["a"], "amount": [None]}, schema_overrides={"amount": pl.Int64})
    )
    model = spine(tmp_path, f"SELECT *, coalesce(amount, 0) AS {name} FROM raw.orders")
    with pytest.raises(ValueError, match=r"gives 'amount' more than once.*SELECT \* REPLACE \(… AS amount\)"):
        read_spine(lake, *model, ["order_id", "amount"])
    assert read_spine(lake, *model, ["order_id"]).height == 1
    model = spine(tmp_path, "SELECT * REPLACE (coalesce(amount, 0) AS amount) FROM raw.orders")
    assert read_spine(lake, *model, ["order_id", "amount"])["amount"].to_list() == [0]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT order_id,\n\n  n::INT AS late\nFROM raw.orders", r"late\.sql:3: Conversion Error: .*'x'.*TRY_CAST"),
        ("SELECT order_id,\n  1 % (n = 'x')::INT AS late\nFROM raw.orders", r"late\.sql: .*Division by zero"),
        ("SELECT order_id,\n  nothing AS late\nFROM raw.orders", r"late\.sql:2: Binder Error: .*nothing"),
        ("SELECT order_id, late\nFROM raw.order", r"late\.sql: The lake at .* no table 'raw/order'.*'raw/orders'"),
        ("SELECT order_id, late FROM 'a.csv'", r"late\.sql: 'a\.csv' is not a table of the lake"),
        ("SELECT order_id,, late", r"late\.sql: One SELECT was wanted"),
    ],
)
def test_an_error_of_the_query_names_model_file_and_line(tmp_path: Path, settings, query: str, said: str) -> None:
    lake = Lake(settings.lake_uri + "_failing")
    lake.append("raw/orders", pl.DataFrame({"order_id": ["a", "b"], "n": ["1", "x"]}))
    with pytest.raises((duckdb.Error, LookupError, ValueError), match=f"(?s)^model 'order_late': {tmp_path}/{said}"):
        read_spine(lake, *spine(tmp_path, query), ["order_id", "late"])


@pytest.mark.parametrize(
    ("target", "changes", "said"),
    [
        ("1 + (n > 1)::INT", {}, r"late\.sql: target 'late': .* found 1 \(1 row\), 2 \(1 row\); .* true \(late = 2\)"),
        ("CASE WHEN n > 1 THEN 'gone' ELSE 'here' END", {}, r"found 'gone' \(1 row\), 'here' \(1 row\)"),
        ("n / 0", {"task": "regression", "families": ["ridge"]}, r"wants finite numbers, found inf \(2 rows\)"),
        ("sqrt(-n)", {"task": "regression", "families": ["ridge"]}, r"wants finite numbers, found nan \(2 rows\)"),
        ("n / 2", {"task": "multiclass"}, r"classes .* found 0\.5 \(1 row\)"),
    ],
)
def test_labels_that_mean_nothing_are_refused_as_soon_as_the_spine_is_read(
    tmp_path: Path, settings, target: str, changes: dict, said: str
) -> None:
    lake = Lake(settings.lake_uri + "_labels")
    lake.append("raw/orders", pl.DataFrame({"order_id": ["a", "b", "c"], "n": [1, 2, None]}))
    query = f"SELECT order_id, CASE WHEN n IS NOT NULL THEN {target} END AS late FROM raw.orders"
    _, folder = spine(tmp_path, query)
    with pytest.raises(ValueError, match=said):
        read_spine(lake, shop_spec(**changes), folder, ["order_id", "late"])


def test_rows_of_no_class_yet_are_no_class(tmp_path: Path, settings) -> None:
    lake = Lake(settings.lake_uri + "_classes")
    lake.append("raw/orders", pl.DataFrame({"order_id": ["a", "b"], "n": [7.0, None], "known_at": [START, START]}))
    _, folder = spine(tmp_path, "SELECT order_id, n AS late, known_at FROM raw.orders")
    assert spine_labels(lake, shop_spec(task="multiclass"), folder).collect()["late"].to_list() == [7]
