"""Inputs of a spine: what a request would be refused for makes no training set."""

from pathlib import Path

import pytest

from ml_platform.settings import Settings
from ml_platform_tests.toy_world import Shops, build_shops, shop_spec

COLUMNS = "order_id, shop, channel, weight, ordered_at, known_at, late"


def world_with(tmp_path: Path, kind: str, sql: str) -> Shops:
    """The shops with one more input, as the spine's SQL gives it."""
    inputs = [one.model_dump(exclude_defaults=True) for one in shop_spec().inputs]
    spec = shop_spec(inputs=[*inputs, {"name": "extra", "type": kind, "required": False}], request_features=None)
    world = build_shops(Settings(home=tmp_path / "home"), tmp_path / "defs", spec, rows=500)
    (tmp_path / "defs" / "late.sql").write_text(f"SELECT {COLUMNS}, {sql} AS extra FROM raw.orders")
    return world


@pytest.mark.parametrize(
    ("kind", "sql", "message"),
    [
        ("integer", "3.7::DOUBLE", r"late\.sql: column 'extra' is declared as integer, .*3\.7 in the row '.*'; round"),
        ("integer", "1.99::DECIMAL(10, 2)", r"e\.g\. 1\.99"),
        ("integer", "9223372036854775808::HUGEINT", "9223372036854775808"),
        ("integer", "'12'", "values are String"),
        ("integer", "true", "values are Boolean"),
        ("boolean", "0.25::DOUBLE", r"e\.g\. 0\.25.*say in the query what is true"),
        ("boolean", "2", r"e\.g\. 2 in"),
        ("number", "ordered_at", "values are Datetime"),
        ("number", "9007199254740993", "9007199254740993"),
        ("number", "'infinity'::DOUBLE", "wants a finite number"),
        ("string", "12345.0::DOUBLE", r"values are Float64; write the text in the query"),
        ("string", "1.10::DECIMAL(10, 2)", "values are Decimal"),
        ("string", "ordered_at", "values are Datetime"),
        ("timestamp", "ordered_at::TIMESTAMP", r"AT TIME ZONE 'UTC'"),
        ("timestamp", "DATE '2024-01-01'", "values are Date"),
        ("timestamp", "'infinity'::TIMESTAMPTZ", r"infinity \(outside of the years 1 to 9999\)"),
        ("timestamp", "'9999-12-31'::TIMESTAMPTZ", "of the years 1678 to 2261, as a request does"),
    ],
)
def test_a_value_that_no_request_sends_is_refused(tmp_path: Path, kind: str, sql: str, message: str) -> None:
    world = world_with(tmp_path, kind, sql)
    with pytest.raises(ValueError, match=message):
        world.training_set()


@pytest.mark.parametrize(
    ("kind", "sql", "value"),
    [
        ("integer", "3.0::DOUBLE", 3),
        ("integer", "3.00::DECIMAL(10, 2)", 3),
        ("number", "1.10::DECIMAL(10, 2)", 1.1),
        ("number", "3", 3.0),
        ("boolean", "1", True),
        ("string", "12345", "12345"),
        ("string", "DATE '2024-01-31'", "2024-01-31"),
        ("string", "NULL", None),
    ],
)
def test_a_value_of_another_type_is_taken_as_a_request_sends_it(tmp_path: Path, kind: str, sql: str, value) -> None:
    world = world_with(tmp_path, kind, sql)
    found = world.lake.read(world.training_set().table).collect().get_column("extra")
    assert found.unique().to_list() == [value]


@pytest.mark.parametrize("column", ["ordered_at", "known_at"])
def test_an_instant_outside_of_the_calendar_names_its_row(tmp_path: Path, column: str) -> None:
    world = world_with(tmp_path, "integer", "1")
    forever = f"CASE WHEN weight > 20 THEN 'infinity'::TIMESTAMPTZ ELSE {column} END AS {column}"
    (tmp_path / "defs" / "late.sql").write_text(
        f"SELECT {COLUMNS.replace(column, forever)}, 1 AS extra FROM raw.orders"
    )
    with pytest.raises(ValueError, match=rf"column '{column}' .*e\.g\. infinity .*in the row '.+'"):
        world.training_set()
