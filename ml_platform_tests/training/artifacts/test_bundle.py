"""What goes into a bundle beside the graph: the signature, its examples, and the rows that are replayed."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.spec.model import ModelSpec
from ml_platform.training.artifacts.bundle import GOLDEN_ROWS, UNSEEN, _golden, _golden_frame, build_signature, iso
from ml_platform_tests.toy_world import REQUEST_FEATURES, shop_spec

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
VIEW = FeatureView(
    name="shop_load", description="Load.", owner="shops@example.com", entity=("shop",), ttl=timedelta(hours=2),
    columns={"waiting": FeatureColumn(type="integer", description="Orders."),
             "staff": FeatureColumn(type="integer", description="People.")},
    sql="SELECT 1",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "request_features.py").write_text(REQUEST_FEATURES)
    return tmp_path


def ref(**changes: Any) -> TrainingSetRef:
    known: dict[str, Any] = {
        "model": "order_late", "table": "training_sets/order_late", "version": 3, "rows": 1, "as_of": NOON,
        "first": NOON, "last": NOON, "tables": {}, "features": (), "view_hashes": {VIEW.name: VIEW.hash},
        "label_summary": {},
    }  # fmt: skip
    return TrainingSetRef(**{**known, **changes})


def orders(rows: int = 5, **changes: Any) -> pl.DataFrame:
    """So many orders, as a training set has them."""
    number = pl.int_range(rows)
    return pl.select(
        order_id=pl.format("o{}", number),
        shop=pl.format("shop-{}", number % 3),
        channel=pl.lit("web"),
        weight=number.cast(pl.Float64),
        ordered_at=pl.lit(NOON) + pl.duration(minutes=number),
        shop_load__waiting=number,
        shop_load__staff=pl.lit(2),
    ).with_columns(**changes)


def examples(spec: ModelSpec, folder: Path, rows: pl.DataFrame) -> dict[str, Any]:
    return {field.name: field.example for field in build_signature(spec, folder, {VIEW.name: VIEW}, ref(), rows).inputs}


def declared(**changes: dict[str, Any]) -> ModelSpec:
    """The model, some of whose inputs have other keys."""
    inputs = [field.model_dump(exclude_unset=True) for field in shop_spec().inputs]
    return shop_spec(inputs=[{**one, **changes.get(one["name"], {})} for one in inputs])


def test_a_signature_says_how_a_request_becomes_a_row(folder: Path) -> None:
    signature = build_signature(shop_spec(), folder, {VIEW.name: VIEW}, ref(), orders())
    assert [field.name for field in signature.inputs] == ["order_id", "shop", "channel", "weight", "ordered_at"]
    assert [(one.name, one.type) for one in signature.derived] == [("weekday", "integer"), ("heavy", "boolean")]
    [lookup] = signature.lookups
    assert (lookup.view, lookup.view_hash, lookup.keys, lookup.ttl_seconds) == (
        "shop_load",
        VIEW.hash,
        {"shop": "shop"},
        7200,
    )
    assert lookup.features == ("shop_load__waiting", "shop_load__staff")


def test_chosen_features_keys_and_name_of_a_look_up(folder: Path) -> None:
    chosen = {"view": "shop_load", "name": "sender", "features": ["staff"], "keys": {"shop": "channel"}}
    forever = VIEW.model_copy(update={"ttl": None})
    made = ref(view_hashes={VIEW.name: forever.hash})
    [lookup] = build_signature(shop_spec(lookups=[chosen]), folder, {VIEW.name: forever}, made, orders()).lookups
    assert (lookup.features, lookup.keys, lookup.ttl_seconds) == (("sender__staff",), {"shop": "channel"}, None)


def test_a_view_that_changed_since_the_training_set_is_refused(folder: Path) -> None:
    stale = ref(view_hashes={VIEW.name: "other"})
    with pytest.raises(ValueError, match=r"'shop_load' changed since the training set \(version 3\) was made"):
        build_signature(shop_spec(), folder, {VIEW.name: VIEW}, stale, orders())


def test_examples_are_of_the_newest_row_that_keeps_the_contract(folder: Path) -> None:
    assert examples(shop_spec(), folder, orders())["order_id"] == "o4"
    last_lacks = orders(channel=pl.when(pl.int_range(5) < 4).then(pl.lit("web")))
    assert examples(shop_spec(), folder, last_lacks)["order_id"] == "o3", "of the last without nulls"
    heavy = declared(weight={"maximum": 1.0, "minimum": None})
    assert examples(heavy, folder, orders())["order_id"] == "o1", "of the last that keeps the rules"
    none_keeps = declared(weight={"maximum": -1.0, "minimum": None})
    assert examples(none_keeps, folder, orders())["order_id"] == "o4"
    shown = examples(shop_spec(), folder, orders(channel=pl.lit(None, dtype=pl.String)))
    assert (shown["order_id"], shown["channel"]) == ("o4", None), "every row lacks something"


def test_examples_of_the_spec_come_first_and_hidden_inputs_get_none(folder: Path) -> None:
    spec = declared(shop={"example": "shop-9"}).model_copy(
        update={"inference_log": shop_spec(inference_log={"redact": ["channel"], "hash": ["order_id"]}).inference_log}
    )
    assert examples(spec, folder, orders()) == {
        "order_id": None,
        "shop": "shop-9",
        "channel": None,
        "weight": 4.0,
        "ordered_at": "2024-05-01T12:04:00Z",
    }


def test_flags_and_rules_of_an_input_are_in_the_signature(folder: Path) -> None:
    spec = declared(weight={"on_violation": "flag", "nulls": "flag"}, channel={"default": "web"})
    inputs = {field.name: field for field in build_signature(spec, folder, {VIEW.name: VIEW}, ref(), orders()).inputs}
    weight = inputs["weight"]
    assert (weight.flagged, weight.minimum, weight.required) == (("null", "range"), 0, False)
    assert (inputs["channel"].default, inputs["channel"].flagged) == ("web", ())
    assert inputs["shop"].required


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_golden_rows_are_spread_with_the_emptiest_and_one_of_unseen_texts(folder: Path, rows: int) -> None:
    number = pl.int_range(rows)
    empty = number == rows // 2
    frame = orders(
        rows,
        weight=pl.when(~empty).then(pl.when(number == 0).then(pl.lit(float("nan"))).otherwise(pl.lit(30.0))),
        channel=pl.when(~empty).then(pl.lit("web")),
    )
    signature = build_signature(shop_spec(), folder, {VIEW.name: VIEW}, ref(), frame)
    golden = _golden_frame(frame, shop_spec(), signature)
    assert min(rows, GOLDEN_ROWS // 2) < golden.height <= GOLDEN_ROWS
    assert f"o{rows // 2}" in golden["order_id"].to_list(), "the emptiest row"
    assert golden["order_id"][0] == "o0"
    unseen = golden.row(-1, named=True)
    assert (unseen["shop"], unseen["channel"], unseen["order_id"]) == (UNSEEN, UNSEEN, "o0")
    assert golden["weekday"].to_list() == golden["ordered_at"].dt.weekday().to_list(), "derived anew"
    assert not golden["weight"].is_nan().any(), "NaN is null, as in a request"


def test_a_golden_row_is_as_json_has_it(folder: Path) -> None:
    frame = orders(1)
    signature = build_signature(shop_spec(), folder, {VIEW.name: VIEW}, ref(), frame)
    golden = _golden(frame, signature, np.array([[1.5, np.nan]]), np.array([0.25]))
    assert golden.inputs[0]["ordered_at"] == "2024-05-01T12:00:00Z"
    assert golden.looked_up == ({"shop_load__waiting": 0, "shop_load__staff": 2},)
    assert (golden.matrix, golden.scores) == (((1.5, None),), (0.25,))
    alone = build_signature(shop_spec(lookups=[]), folder, {}, ref(), frame)
    assert _golden(frame, alone, np.array([[1.0]]), np.array([0.5])).looked_up == ({},)


def test_instants_of_manifests_are_utc() -> None:
    assert iso(datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2023-12-31T23:00:00Z"
