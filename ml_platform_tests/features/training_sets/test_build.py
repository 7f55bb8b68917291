"""Training sets of a small shop: which rows, which columns, which versions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.features.training_sets.build import build_training_set, feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec

START = datetime(2013, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
UTC_TIME = pl.Datetime("us", "UTC")
SPINE = "SELECT order_id, shop, ordered_at, amount, delivered_at, days > 2 AS late FROM raw.orders"
REQUEST = """import polars as pl
from ml_platform.features.expressions.request_features import RequestFeature

REQUEST_FEATURES = {
    "as_of": RequestFeature(pl.col("ordered_at") - pl.duration(hours=1)),
    "weekday": RequestFeature(pl.col("ordered_at").dt.weekday().cast(pl.Int64), "Monday = 1."),
}
"""
VIEW = """/*
description: Orders of a shop so far.
owner: shops@example.com
entity: [shop]
columns:
  orders: {type: integer, unit: orders, description: Orders so far.}
  mood: {type: string, description: How it goes.}
*/
SELECT shop, ordered_at AS event_time, row_number() OVER (PARTITION BY shop ORDER BY ordered_at) AS orders, 'ok' AS mood
FROM raw.orders
"""


def orders(first: int, last: int) -> pl.DataFrame:
    numbers = range(first, last)
    delivered = [None if n % 5 == 4 else START + DAY * (n + 1 + n % 4) for n in numbers]
    return pl.DataFrame(
        {
            "order_id": [f"o{n:02}" for n in numbers],
            "shop": ["a" if n % 2 else "b" for n in numbers],
            "ordered_at": [START + DAY * n for n in numbers],
            "amount": [float(n) for n in numbers],
            "delivered_at": delivered,
            "days": [None if d is None else 1 + n % 4 for n, d in zip(numbers, delivered, strict=True)],
        },
        schema_overrides={"ordered_at": UTC_TIME, "delivered_at": UTC_TIME, "days": pl.Int64},
    )


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "late_orders", "description": "Late?", "owner": "a@b", "task": "binary", "target": "late",
            "spine": "spine.sql", "id": "order_id", "timestamp": "as_of", "label_available_at": "delivered_at",
            "inputs": [
                {"name": "order_id", "type": "string", "feature": False},
                {"name": "shop", "type": "string"},
                {"name": "ordered_at", "type": "timestamp", "feature": False},
                {"name": "amount", "type": "integer", "unit": "EUR"},
            ],
            "request_features": "request_features.py",
            "lookups": [{"view": "shop_orders"}],
            "families": ["lightgbm"],
            "scoring": {"start": "2013-07-01"},
        }
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spine.sql").write_text(SPINE)
    (tmp_path / "request_features.py").write_text(REQUEST)
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "shop_orders.sql").write_text(VIEW)
    return tmp_path


@pytest.fixture
def views(lake: Lake, folder: Path) -> dict[str, FeatureView]:
    lake.append("raw/orders", orders(0, 20))
    found = load_views(folder / "views")
    compute_view(lake, found["shop_orders"])
    return found


def test_columns_features_and_versions(lake, spec, folder, views):
    ref = build_training_set(lake, spec, folder, views)
    frame = lake.read(ref.table, version=ref.version).collect()
    assert frame.columns == [
        "order_id", "as_of", "delivered_at", "late", "shop", "ordered_at", "amount", "weekday", "shop_orders__orders",
        "shop_orders__mood",
    ]  # fmt: skip
    assert [(f.name, f.kind, f.source, f.unit) for f in ref.features] == [
        ("shop", "categorical", "input", None),
        ("amount", "numeric", "input", "EUR"),
        ("weekday", "numeric", "derived", None),
        ("shop_orders__orders", "numeric", "view:shop_orders", "orders"),
        ("shop_orders__mood", "categorical", "view:shop_orders", None),
    ]
    assert frame.schema["amount"] == pl.Int64
    assert ref.tables == {"raw/orders": 0, "features/shop_orders": 0}
    assert ref.view_hashes == {"shop_orders": views["shop_orders"].hash}
    assert (ref.rows, ref.first, ref.last) == (frame.height, frame["as_of"].min(), frame["as_of"].max())
    assert ref.label_summary == {"positive_share": frame["late"].sum() / frame.height}


def test_features_are_those_of_the_instant_of_prediction(lake, spec, folder, views):
    frame = lake.read(build_training_set(lake, spec, folder, views).table).collect()
    seen = dict(zip(frame["order_id"], frame["shop_orders__orders"], strict=True))
    # Order n of a shop is asked about an hour before it: its own row in the view is not known yet.
    assert seen == {f"o{n:02}": n // 2 or None for n in range(20) if n % 5 != 4}


def test_only_labels_known_by_as_of_are_used(lake, spec, folder, views):
    as_of = START + 10 * DAY
    ref = build_training_set(lake, spec, folder, views, as_of=as_of)
    frame = lake.read(ref.table).collect()
    known = orders(0, 20).filter(pl.col("delivered_at") <= as_of)
    assert frame["order_id"].sort().to_list() == known["order_id"].to_list()
    assert ref.as_of == as_of
    assert build_training_set(lake, spec, folder, views).as_of == orders(0, 20)["delivered_at"].max()


def test_rows_are_sorted_and_the_same_inputs_give_the_same_rows(lake, spec, folder, views):
    first = build_training_set(lake, spec, folder, views)
    second = build_training_set(lake, spec, folder, views)
    frames = [lake.read(ref.table, version=ref.version).collect() for ref in (first, second)]
    assert frames[0].equals(frames[1])
    assert frames[0].sort("as_of", "order_id").equals(frames[0])
    assert first.model_dump(exclude={"version"}) == second.model_dump(exclude={"version"})


def test_later_rows_change_no_earlier_row(lake, spec, folder, views):
    as_of = START + 12 * DAY
    before = lake.read(build_training_set(lake, spec, folder, views, as_of=as_of).table).collect()
    lake.append("raw/orders", orders(20, 40))
    compute_view(lake, views["shop_orders"])
    ref = build_training_set(lake, spec, folder, views, as_of=as_of)
    assert lake.read(ref.table).collect().equals(before)
    assert ref.tables == {"raw/orders": 1, "features/shop_orders": 1}


def test_rows_to_score_need_no_label(lake, spec, folder, views):
    ref = build_training_set(lake, spec, folder, views)
    rows = feature_rows(
        lake, spec, folder, views, FeatureDefinitions.of_spec(spec, folder), START + 3 * DAY, START + 6 * DAY
    )
    assert rows["order_id"].to_list() == ["o04", "o05", "o06"]  # asked an hour before the order
    assert rows["late"].to_list() == [None, False, True]
    assert rows.columns == lake.read(ref.table).collect_schema().names()


def test_a_spine_without_a_column_names_it(lake, spec, folder, views):
    (folder / "spine.sql").write_text(SPINE.replace(", amount", ""))
    with pytest.raises(ValueError, match=r"model 'late_orders': spine\.sql must give the columns \['amount'\]"):
        build_training_set(lake, spec, folder, views)


def test_an_id_given_twice_is_shown(lake, spec, folder, views):
    (folder / "spine.sql").write_text(SPINE.replace("SELECT order_id", "SELECT left(order_id, 2) AS order_id"))
    with pytest.raises(ValueError, match=r"18 rows with the id of another row, e\.g\. 'o[01]'"):
        build_training_set(lake, spec, folder, views)


def test_no_label_yet_says_what_to_do(lake, spec, folder, views):
    with pytest.raises(ValueError, match=r"no row of spine\.sql has a label available by 2013-07-01"):
        build_training_set(lake, spec, folder, views, as_of=START)
    assert not lake.exists("training_sets/late_orders")


def test_an_unknown_view_is_named(lake, spec, folder, views):
    with pytest.raises(ValueError, match=r"name the feature view 'shop_orders'; there are \['other'\]"):
        build_training_set(lake, spec, folder, {"other": views["shop_orders"]})


def test_a_share_of_the_rows_is_the_same_whatever_comes_later(lake, spec, folder, views):
    half = spec.model_copy(update={"sample": 0.5})
    everything = lake.read(build_training_set(lake, spec, folder, views).table).collect()
    first = lake.read(build_training_set(lake, half, folder, views).table).collect()
    assert 0 < first.height < everything.height
    assert first.equals(everything.join(first.select("order_id"), on="order_id", how="semi"))
    lake.append("raw/orders", orders(20, 40))
    compute_view(lake, views["shop_orders"])
    later = lake.read(build_training_set(lake, half, folder, views).table).collect()
    assert later.filter(pl.col("ordered_at") < START + 20 * DAY).equals(first)
    definitions = FeatureDefinitions.of_spec(half, folder)
    window = (START - DAY, START + 40 * DAY)
    assert feature_rows(lake, half, folder, views, definitions, *window).height == 40, "all rows are scored"
