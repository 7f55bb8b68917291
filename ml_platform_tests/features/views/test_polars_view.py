"""Views in Polars code: computed, hashed and loaded like the others."""

from datetime import UTC, datetime, timedelta
from textwrap import dedent

import dagster as dg
import polars as pl
import pytest

from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_view, load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.resources import build_resources

START = datetime(2013, 7, 1, tzinfo=UTC)
CODE = '''
"""A view for the test."""

import polars as pl

from ml_platform.features.views.polars_view import polars_view

FACTOR = 2.0  # doubles it


def scaled(amount: pl.Expr) -> pl.Expr:
    """Scale."""
    return amount * FACTOR


@polars_view(
    description="Sales of a shop on the day before.",
    owner="shops@example.com",
    entity=["shop"],
    sources=["raw/sales", "raw/shops"],
    columns={"revenue": {"type": "number", "unit": "EUR", "description": "Sum of the day."}},
    ttl="2 days",
)
def view(sales: pl.LazyFrame, shops: pl.LazyFrame) -> pl.LazyFrame:
    day = pl.col("sold_at").dt.truncate("1d").dt.offset_by("1d")
    open_shops = sales.join(shops, on="shop", how="semi")
    return open_shops.group_by("shop", event_time=day).agg(revenue=scaled(pl.col("amount")).sum())
'''


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "views" / "shop_days.py"
    file.parent.mkdir()
    file.write_text(CODE)
    return file


@pytest.fixture
def sold(lake):
    at = [START, START + timedelta(hours=5), START + timedelta(days=1), START]
    frame = pl.DataFrame({"shop": ["a", "a", "a", "closed"], "sold_at": at, "amount": [1.0, 2.0, 4.0, 8.0]})
    lake.append("raw/sales", frame.with_columns(pl.col("sold_at").cast(pl.Datetime("us", "UTC"))))
    lake.append("raw/shops", pl.DataFrame({"shop": ["a", "b"]}))
    return lake


def test_rows_are_those_of_the_function(sold, path):
    view = load_view(path)
    report = compute_view(sold, view)
    rows = sold.read(view.table).sort("event_time").collect()
    assert rows.rows() == [("a", START + timedelta(days=1), 6.0), ("a", START + timedelta(days=2), 8.0)]
    assert report.tables == {"raw/sales": 0, "raw/shops": 0}
    assert view.source_tables == ("raw/sales", "raw/shops")
    assert (view.name, view.ttl) == ("shop_days", timedelta(days=2))


def test_the_hash_is_over_what_changes_a_value(path):
    before = load_view(path).hash
    for old, new, same in (
        ("# doubles it", "# twice", True),
        ('"""Scale."""', '"""Multiply."""', True),
        ("Sum of the day.", "The day's sum.", True),
        ("FACTOR = 2.0", "FACTOR = 3.0", False),
        ("amount * FACTOR", "amount + FACTOR", False),
        ('ttl="2 days"', 'ttl="3 days"', False),
        ('"raw/sales", "raw/shops"', '"raw/receipts", "raw/shops"', False),
    ):
        assert old in CODE
        path.write_text(CODE.replace(old, new))
        assert (load_view(path).hash == before) is same, new


def test_a_folder_may_hold_all_kinds(path):
    (path.parent / "__init__.py").write_text("")
    (path.parent / "defs.yaml").write_text("type: x")
    (path.parent / "by_sql.sql").write_text(
        "/*\ndescription: x\nowner: a@b\nentity: [k]\ncolumns: {v: {type: number, description: V.}}\n*/\nSELECT 1"
    )
    assert sorted(load_views(path.parent)) == ["by_sql", "shop_days"]


def test_it_is_an_asset_like_the_others(sold, path, settings):
    view = load_view(path)
    built = dg.Definitions.merge(feature_view_defs(view), dg.Definitions(resources=build_resources(settings)))
    result = built.resolve_implicit_global_asset_job_def().execute_in_process()
    assert result.success
    [node] = [item for item in built.resolve_asset_graph().asset_nodes if item.key.path[0] == "features"]
    assert {key.to_user_string() for key in node.parent_keys} == {"raw/sales", "raw/shops"}
    assert node.kinds == {"deltalake", "polars"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("view = 3", "found int"),
        ("x = 1", "found NoneType"),
        (CODE.replace('"revenue": {', '"takings": {'), r"missing \['takings'\], not declared \['revenue'\]"),
        (CODE.replace("    return open_shops", "    _ = open_shops"), "must return a polars.LazyFrame, found NoneType"),
        (CODE.replace('"type": "number", ', ""), r"\.py: columns\.revenue\.type: is missing"),
    ],
)
def test_what_is_wrong_is_said(sold, path, code, message):
    path.write_text(code)
    with pytest.raises(ValueError, match=message):
        compute_view(sold, load_view(path))


def test_a_view_is_a_query_or_a_function():
    declared = {
        "name": "v_1", "description": "x", "owner": "a@b", "entity": ("k",),
        "columns": {"v": {"type": "number", "description": "V."}},
    }  # fmt: skip
    for both in ({}, {"sql": "SELECT 1", "code": dedent("x = 1"), "sources": ("raw/a",)}):
        with pytest.raises(ValueError, match="give one of `sql` and `code`"):
            FeatureView.model_validate({**declared, **both})
