"""Monitoring of a model that logs a share of its answers, or hides some inputs, sees what it would have seen of all."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import polars as pl
import pytest

from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.monitoring.drift.detect import detect_drift
from ml_platform.monitoring.performance.measure import measure_performance
from ml_platform.monitoring.scored_rows import scored_rows
from ml_platform.registry.manifest import InferenceLogPolicy, Manifest, Target
from ml_platform_tests.monitoring.conftest import SPEC, World, draw

Labels = Callable[[pl.DataFrame], None]


def performance(world: World) -> dict[str, float]:
    return measure_performance(world.lake, SPEC, world.folder, world.store).metrics


def test_performance_of_a_sample_is_that_of_all_rows(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    calm, shaking = rows.filter(pl.col("vibration") < 0), rows.filter(pl.col("vibration") >= 0)
    world.score(calm)
    world.score(shaking.gather_every(4), online=True, weight=4.0)
    sampled = performance(world)
    world.score(shaking, online=True, delay=timedelta(minutes=1), weight=1.0)  # the same once more, all of it
    whole = performance(world)
    for metric in ("roc_auc", "log_loss", "mean_score", "mean_target"):
        assert sampled[metric] == pytest.approx(whole[metric], abs=0.03), metric
    logged = scored_rows(world.lake, SPEC.name, id_column=SPEC.id).collect()
    assert logged["sample_weight"].unique().to_list() == [1.0]  # what is there for certain stands for itself
    unweighted = float(pl.concat([calm, shaking.gather_every(4)])["fault"].cast(pl.Float64).to_numpy().mean())
    assert abs(unweighted - whole["mean_target"]) > 0.1


def test_a_row_scored_in_batch_too_stands_for_itself(world: World) -> None:
    day = draw(60, 1)
    world.score(day)
    world.score(day.head(10), online=True, delay=timedelta(minutes=1), weight=10.0)
    world.score(draw(61, 1).head(5), online=True, weight=10.0)
    rows = scored_rows(world.lake, SPEC.name, id_column=SPEC.id).collect()
    assert rows.group_by("source").agg(pl.col("sample_weight").unique().sort()).sort("source").rows() == [
        ("batch", [1.0]),
        ("online", [1.0, 10.0]),
    ]
    assert rows["sample_weight"].sum() == 100 + 50


def test_drift_compares_rows_that_stand_for_as_many(world: World) -> None:
    usual = draw(60, 7)
    world.score(usual)
    quiet = detect_drift(world.lake, SPEC, world.store, world.settings)
    shifted = draw(60, 7, seed=1).with_columns(pl.col("vibration") + 3, pl.col("row_id") + "-online")
    world.score(shifted.gather_every(10), online=True, weight=10.0)  # half of all that was asked
    report = detect_drift(world.lake, SPEC, world.store, world.settings)
    assert (quiet.verdict, quiet.rows) == ("no drift", 700)
    assert report.rows < 200  # too few are left to be judged: 70 of each
    assert report.verdict == "not judged"


def test_inputs_that_the_log_hides_are_no_drift(world: World) -> None:
    files = {path.name: path.read_bytes() for path in world.store.bundle_path(world.digest).iterdir()}
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    policy = InferenceLogPolicy(redact=("vibration",), hash=("maker",))
    files["manifest.json"] = msgspec.json.encode(msgspec.structs.replace(manifest, inference_log=policy))
    digest = world.store.put_bundle(files)
    world.store.publish(SPEC.name, [Target(version=1, digest=digest)], reason="hides", by="test")
    rows = draw(60, 7)
    matrix = FeatureEncoder(manifest.features).transform(rows)
    hidden = rows.with_columns(vibration=pl.lit(None, pl.Float64), maker=pl.lit("0123abcd"))
    world.score(hidden, online=True, scores=world.scorer_scores(matrix).tolist(), weight=1.0)
    report = detect_drift(world.lake, SPEC, world.store, world.settings)
    assert report.verdict == "no drift", report.reasons
    assert [one.column for one in report.columns] == ["wind"]
    assert report.prediction is not None
    assert report.skewed_share is None  # no score can be computed again
    assert "not compared, since the inference log hides them: maker, vibration" in report.reasons
