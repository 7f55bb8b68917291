"""A model in a notebook answers what serving and batch scoring answer, and shows what is recorded of it."""

from datetime import timedelta

import polars as pl
import pytest

from ml_platform.inference.batch import score_window
from ml_platform.notebooks import ModelHandle, open_model
from ml_platform.registry.manifest import Target
from ml_platform_tests.toy_world import START, Shops

INPUTS = ["order_id", "shop", "channel", "weight", "ordered_at"]


@pytest.fixture
def model(shops: Shops, trained_shops) -> ModelHandle:
    target = Target(version=4, digest=trained_shops[1].digest)
    shops.store.publish("order_late", [target], reason="test", by="ann", expected_revision=0)
    return open_model("order_late", settings=shops.settings, views=shops.views)


def test_it_answers_what_batch_scoring_answers(shops: Shops, model: ModelHandle) -> None:
    score_window(shops.lake, shops.spec, shops.folder, shops.views, shops.store, START, START + timedelta(days=90))
    batch = shops.lake.read("predictions/order_late").select("id", "score", "prediction").collect()
    orders = shops.lake.read("raw/orders").collect()
    mine = model.predict(orders.select([*INPUTS, "late"]), explain=2)
    assert mine.columns[:7] == [*INPUTS, "late", "score"]
    both = mine.join(batch, left_on="order_id", right_on="id", suffix="_batch")
    assert both.height == orders.height == 6000
    assert both["score"].to_list() == pytest.approx(both["score_batch"].to_list(), abs=1e-12)
    assert (both["prediction"] == both["prediction_batch"]).all()
    assert set(mine["explanation"].list.len()) == {2}
    audit = b"".join(path.read_bytes() for path in shops.settings.audit_dir.glob("*.jsonl"))
    assert b"order_late version 4: 6000 rows, 0 refused" in audit


def test_rows_that_serving_would_refuse_are_told_in_their_place(shops: Shops, model: ModelHandle) -> None:
    orders = shops.lake.read("raw/orders").select(INPUTS).head(5).collect()
    odd = orders.with_columns(pl.when(pl.int_range(5) == 2).then(-1.0).otherwise("weight").alias("weight"))
    answers = model.predict(odd)
    assert answers["score"].is_null().to_list() == [False, False, True, False, False]
    assert answers["prediction"].is_null().to_list() == [False, False, True, False, False]
    assert answers["refused"].is_null().to_list() == [True, True, False, True, True]
    assert answers["refused"][2].startswith("weight: wanted ")
    assert answers["order_id"].to_list() == orders["order_id"].to_list()
    assert model.predict(orders.clear()).is_empty()
    as_pandas = model.predict(orders.to_pandas())
    assert as_pandas["score"].to_list() == pytest.approx(model.predict(orders)["score"].to_list())
    with pytest.raises(ValueError, match="order_late wants shop; the rows have order_id"):
        model.predict(orders.select("order_id", "ordered_at"))


def test_training_rows_and_their_scores(shops: Shops, model: ModelHandle) -> None:
    rows = model.training_set()
    assert rows.height == model.manifest.provenance.training_rows or rows.height > 0
    assert {"late", "ordered_at", *model.features["feature"]} <= set(rows.columns)
    scores = model.score_features(rows)
    assert scores.shape == (rows.height,)
    assert 0 <= scores.min() <= scores.max() <= 1
    assert model.features["importance"].sum() == pytest.approx(1)
    assert model.inputs.filter("required")["input"].to_list() == ["shop", "ordered_at"]


def test_intervals_and_their_level(shops: Shops, model: ModelHandle) -> None:
    orders = shops.lake.read("raw/orders").select(INPUTS).head(300).collect()
    sets = model.predict(orders, interval=0.9)["prediction_set"]
    assert set(sets.list.len()) <= {0, 1, 2}
    with pytest.raises(ValueError, match=r"interval: wanted a level from 0.5 to 0.99, found 1"):
        model.predict(orders, interval=1.0)


def test_what_is_recorded_is_empty_before_it_is(model: ModelHandle) -> None:
    assert model.performance().is_empty()
    assert model.drift().is_empty()
    assert model.versions()["version"].to_list() == [] or 4 in model.versions()["version"].to_list()


def test_models_that_there_are_not(shops: Shops) -> None:
    with pytest.raises(LookupError, match="no model 'order_lat'"):
        open_model("order_lat", settings=shops.settings, views=shops.views)
    with pytest.raises(ValueError, match="wanted a model, as in flight_delay"):
        open_model("order late", settings=shops.settings, views=shops.views)
