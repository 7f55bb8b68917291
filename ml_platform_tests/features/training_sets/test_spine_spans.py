"""A training set that is made in spans of time is the one that is made at once."""

from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest

from ml_platform.features.training_sets import spine_spans
from ml_platform.features.training_sets.spine_spans import check_unique
from ml_platform_tests.toy_world import DAYS, START, Shops

SPREAD = {"families": ["lightgbm"], "training": {"workers": 2}}


@pytest.fixture
def in_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spine_spans, "SPAN_ROWS", 900)


@pytest.mark.usefixtures("in_spans")
def test_rows_versions_and_summary_are_those_of_a_set_made_at_once(shops: Shops) -> None:
    as_of = START + timedelta(days=40)
    spread = shops.respecified(**SPREAD, sample=0.7)
    spans = spine_spans.spine_spans(shops.lake, spread.spec, shops.folder, {"raw/orders": 0})
    assert spans is not None
    assert len(spans) > 5
    assert all(one.end <= other.start for one, other in pairwise(spans))
    made, whole = spread.training_set(as_of), shops.respecified(sample=0.7).training_set(as_of)
    assert made.model_dump(exclude={"version", "digest"}) == whole.model_dump(exclude={"version", "digest"})
    one, other = (shops.lake.read(ref.table, version=ref.version).sort("order_id").collect() for ref in (made, whole))
    assert one.equals(other)


@pytest.mark.usefixtures("in_spans")
def test_an_id_that_stands_in_two_spans_is_refused(shops: Shops) -> None:
    orders = shops.lake.read("raw/orders").collect()
    last = pl.col("ordered_at") == pl.col("ordered_at").max()
    twice = orders.with_columns(order_id=pl.when(last).then(pl.lit("order-3")).otherwise("order_id"))
    shops.lake.replace("raw/orders", twice)
    with pytest.raises(ValueError, match=r"late.sql gives 1 rows or more with the id of another row, e.g. 'order-3'"):
        shops.respecified(**SPREAD).training_set()


@pytest.mark.usefixtures("in_spans")
def test_weights_are_checked_in_each_span_and_summarised_over_all(shops: Shops) -> None:
    orders = shops.lake.read("raw/orders").collect()
    halves = pl.col("ordered_at") > START + timedelta(days=DAYS // 2)
    weighted = orders.with_columns(weight=pl.when(halves).then(2.0).otherwise(0.0))
    shops.lake.replace("raw/orders", weighted)  # whole spans of weight 0, which is right as long as others are not
    made = shops.respecified(**SPREAD, weight="weight").training_set()
    at_once = shops.respecified(weight="weight").training_set()
    assert made.weight_summary == pytest.approx(at_once.weight_summary)
    wrong = weighted.with_columns(weight=pl.when(pl.col("order_id") == "order-5000").then(-1.0).otherwise("weight"))
    shops.lake.replace("raw/orders", wrong)
    with pytest.raises(
        ValueError, match=r"weight 'weight': wanted finite numbers from 0 on, found -1.0 in .*order-5000"
    ):
        shops.respecified(**SPREAD, weight="weight").training_set()


def test_rows_without_an_instant_are_left_to_the_build_that_names_them(shops: Shops) -> None:
    orders = shops.lake.read("raw/orders").collect()
    first = pl.col("order_id") == "order-0"
    shops.lake.replace("raw/orders", orders.with_columns(ordered_at=pl.when(first).then(None).otherwise("ordered_at")))
    spread = shops.respecified(**SPREAD)
    assert spine_spans.spine_spans(shops.lake, spread.spec, shops.folder, {"raw/orders": 1}) is None


def test_ids_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spine_spans, "_IDS_AT_ONCE", 100)
    ids = pl.LazyFrame({"id": [f"row-{n}" for n in range(1000)]})
    check_unique(ids, "id", 1000, "spine.sql")
    with pytest.raises(ValueError, match=r"e\.g\. 'row-7'"):
        check_unique(pl.concat([ids, pl.LazyFrame({"id": ["row-7"]})]), "id", 1001, "spine.sql")
