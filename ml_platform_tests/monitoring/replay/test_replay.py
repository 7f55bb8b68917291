"""A challenger over logged requests: what it would have answered, and whether that is better."""

import shutil
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.inference.batch import score_frame
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import InferenceLogPolicy, Manifest
from ml_platform_tests.monitoring.replay.conftest import Served
from ml_platform_tests.toy_world import START


def test_a_challenger_without_the_lookups_is_worse_and_answers_as_offline(served: Served) -> None:
    report = served.replay(2)
    orders = served.orders()
    scores = [score_frame(Scorer.load(served.shops.store.bundle_path(served.digests[v])), orders) for v in (1, 2)]
    assert report.verdict == "worse", report.reasons
    assert report.comparison is not None
    assert report.comparison.upper < 0
    assert report.comparison.days == 7
    assert report.comparison.rows == orders.height == report.logged == report.labelled == report.answered
    found = report.difference
    assert found is not None
    assert found.mean == pytest.approx(float((scores[1] - scores[0]).mean()), abs=1e-12)
    assert found.largest == pytest.approx(float(np.abs(scores[1] - scores[0]).max()), abs=1e-12)
    assert found.correlation == pytest.approx(float(np.corrcoef(scores[0], scores[1])[0, 1]), abs=1e-9)
    assert found.quantiles["p50"] == pytest.approx(float(np.median(scores[1] - scores[0])), abs=0.01)
    cuts = [served.shops.store.load_manifest(served.digests[v]).threshold for v in (1, 2)]
    decided = [score >= cut for score, cut in zip(scores, cuts, strict=True)]
    assert found.changed == pytest.approx(float((decided[0] != decided[1]).mean()))
    assert found.to_true == pytest.approx(float((~decided[0] & decided[1]).mean()))
    assert report.refusals == {}
    assert report.missing == ()
    assert report.latency_ms is not None
    assert report.latency_ms > 0


def test_lookups_that_were_not_served_are_made_as_of_each_request(own: Served) -> None:
    shutil.rmtree(own.shops.settings.inference_log_dir)
    shutil.rmtree(own.shops.lake.location("inference_log/order_late"))
    own.serve(2)
    own.answer(2, own.orders())
    report = own.replay(1)
    assert report.verdict == "better", report.reasons
    assert any("shop_load__load" in note and "as of each request's instant" in note for note in report.notes)
    forward = report.difference
    assert forward is not None
    assert forward.mean_absolute > 0.01
    scores = [score_frame(Scorer.load(own.shops.store.bundle_path(own.digests[v])), own.orders()) for v in (1, 2)]
    assert forward.mean == pytest.approx(float((scores[0] - scores[1]).mean()), abs=1e-12)
    shutil.rmtree(own.shops.lake.location("features/shop_load"))
    report = own.replay(1)
    assert report.verdict == "insufficient data"
    assert "shop_load__load" in report.missing[0]
    assert "not served, and cannot be looked up" in report.missing[0]


def test_rows_that_another_version_answered_are_answered_by_both(own: Served) -> None:
    own.serve(2)
    report = own.replay(1)  # what version 1 answered itself, now challenged by it again
    assert report.verdict == "better"
    assert report.logged == report.answered


def test_a_contract_of_its_own_refuses_and_flags(own: Served) -> None:
    store = own.shops.store
    files = store.read_bundle(own.digests[1])
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    inputs = tuple(
        msgspec.structs.replace(field, maximum=20.0)
        if field.name == "weight"
        else msgspec.structs.replace(field, required=True, flagged=("null",))
        if field.name == "channel"
        else field
        for field in manifest.inputs
    )
    strict = msgspec.structs.replace(manifest, inputs=inputs)
    strict = msgspec.structs.replace(strict, model_digest=model_digest(files["model.onnx"], strict))
    own.digests[3] = store.put_bundle({**files, "manifest.json": msgspec.json.encode(strict)})
    report = own.replay(3)
    orders = own.orders()
    heavy = orders.filter(pl.col("weight") > 20).height
    assert report.refused == heavy == report.refusals["weight: range"] > 0
    assert report.answered == orders.height - heavy
    silent = orders.filter(pl.col("channel").is_null() & ~(pl.col("weight").fill_null(0) > 20)).height
    assert report.flagged == {"channel: null": silent}
    assert report.difference is not None
    assert report.difference.largest < 1e-15  # it is the same model


def test_what_is_missing_is_told(own: Served) -> None:
    lake = own.shops.lake
    late = own.orders().get_column("order_id").to_list()
    orders = lake.read("raw/orders").collect()
    unlabelled = orders.with_columns(late=pl.when(pl.col("order_id").is_in(late)).then(None).otherwise(pl.col("late")))
    lake.replace("raw/orders", unlabelled)
    report = own.replay(2)
    assert report.verdict == "insufficient data"
    assert "labels: none of " in report.missing[0]
    assert report.difference is not None
    few = orders.with_columns(late=pl.when(pl.col("order_id").is_in(late[50:])).then(None).otherwise(pl.col("late")))
    lake.replace("raw/orders", few)
    assert "wanted are 200 (`monitoring.min_rows`) of 3 days" in own.replay(2).missing[0]
    with pytest.raises(ValueError, match="version 1 is the champion itself"):
        own.replay(1)
    with pytest.raises(ValueError, match="wanted a number from 1 on, found 0"):
        own.replay(2, days=0)
    shutil.rmtree(lake.location("inference_log/order_late"))
    report = own.replay(2)
    assert report.verdict == "insufficient data"
    assert "`inference_log/order_late` has none" in report.missing[0]


def test_rows_that_one_has_learned_from_judge_nothing(own: Served) -> None:
    shutil.rmtree(own.shops.settings.inference_log_dir)
    shutil.rmtree(own.shops.lake.location("inference_log/order_late"))
    own.answer(1, own.orders(20, 7))
    report = own.replay(2)
    assert report.verdict == "insufficient data"
    assert "rows that are new to both" in report.missing[0]


def test_a_sampled_log_counts_for_what_it_stands_and_hidden_inputs_refuse(own: Served) -> None:
    own.answer(1, own.orders(58, 3), weight=10.0)
    report = own.replay(2)
    assert report.weight > report.logged * 3
    assert any("the log is a sample" in note for note in report.notes)
    files = own.shops.store.read_bundle(own.digests[1])
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    hides = msgspec.structs.replace(manifest, inference_log=InferenceLogPolicy(redact=("weight",)))
    own.digests[1] = own.shops.store.put_bundle({**files, "manifest.json": msgspec.json.encode(hides)})
    shutil.rmtree(own.shops.settings.inference_log_dir)
    shutil.rmtree(own.shops.lake.location("inference_log/order_late"))
    own.serve(1)
    own.answer(1, own.orders(58, 3))
    report = own.replay(2)
    assert report.verdict == "insufficient data"
    assert "the inference log hides" in report.missing[0]
    assert "weight" in report.missing[0]


def test_requests_asked_again_are_labelled_once(own: Served) -> None:
    own.answer(1, own.orders().head(100))
    report = own.replay(2)
    assert report.comparison is not None
    assert report.logged == report.comparison.rows + 100


def test_a_shadow_is_compared_by_what_it_answered(own: Served) -> None:
    orders = own.orders()
    report = own.replay(2, shadow=True)
    assert report.verdict == "insufficient data"
    own.answer(2, orders.head(400), shadow=True)
    report, again = own.replay(2, shadow=True), own.replay(2)
    assert report.source == "shadow"
    assert report.answered == 400
    [(reason, lost)] = report.incomparable.items()
    assert "the shadow did not answer" in reason
    assert lost == orders.height - 400
    assert report.difference is not None
    assert again.difference is not None
    assert report.difference.rows == 400
    assert report.verdict == "worse", report.reasons
    first = START + timedelta(days=51)
    assert report.since is not None
    assert report.since >= first - timedelta(days=1)
