"""Drift of a released model's scored rows, found through Evidently and recorded in the lake."""

import re
import sys
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.monitoring.drift import column_plots, detect
from ml_platform.monitoring.drift.comparison import DriftColumn, compare
from ml_platform.monitoring.drift.detect import detect_drift
from ml_platform.monitoring.drift.report import DriftReport, judge
from ml_platform.monitoring.drift.report_html import KEPT_REPORTS
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Target
from ml_platform.registry.origins import Origin, note_origin
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform_tests.monitoring.conftest import MODEL, SPEC, START, World, draw


def drift_of(world: World, spec: ModelSpec = SPEC) -> DriftReport:
    return detect_drift(world.lake, spec, world.store, world.settings)


def column(report: DriftReport, name: str):
    return next(one for one in report.columns if one.column == name)


def test_rows_like_the_training_rows_do_not_drift(world: World) -> None:
    world.score(draw(60, 7))
    report = drift_of(world)
    assert report.verdict == "no drift", report.reasons
    assert report.drifted == ()
    assert (report.rows, report.reference_rows, report.version) == (700, 6000, 1)
    assert report.skewed_share == 0.0
    assert [one.column for one in report.columns] == ["vibration", "wind", "maker"]  # by importance


def test_a_model_of_another_environment_is_held_against_the_copy_of_its_rows(world: World) -> None:
    [target] = world.store.endpoints()[MODEL].targets
    learned = world.store.load_manifest(target.digest).provenance
    rows = world.lake.read(learned.training_set, version=learned.training_set_version).collect()
    copied = world.lake.replace(f"promoted_training_sets/{MODEL}", rows.with_columns(pl.col("vibration") + 0.8))
    origin = Origin(environment="dev", version=4, by="ann", at="2026-01-01T00:00:00Z")
    note_origin(world.store, target.digest, origin)
    world.score(draw(60, 7))
    assert drift_of(world).verdict == "no drift"  # of one lake: its own rows
    table = f"promoted_training_sets/{MODEL}"
    note_origin(
        world.store,
        target.digest,
        msgspec.structs.replace(origin, training_set=table, training_set_version=copied),
    )
    assert drift_of(world).drifted == ("vibration",)


def test_shift_of_an_important_feature_is_drift_of_the_prediction_too(world: World) -> None:
    world.score(draw(60, 7).with_columns(pl.col("vibration") + 0.8))
    report = drift_of(world)
    assert report.verdict == "drift"
    assert report.drifted == ("vibration",)
    assert report.drifted_importance == pytest.approx(0.7)
    vibration = column(report, "vibration")
    assert vibration.method == "ks"
    assert vibration.distance == pytest.approx(0.31, abs=0.05)
    assert vibration.shift == pytest.approx(0.8, abs=0.15)  # in standard deviations
    assert vibration.p_value is not None
    assert vibration.p_value < vibration.p_threshold < 0.05
    assert report.prediction is not None
    assert report.prediction.drifted
    assert re.search(r"vibration \(70% of importance\): median .* → .* \(ks: distance 0\.\d", "\n".join(report.reasons))


def test_drift_of_an_unimportant_feature_is_told_but_no_alarm(world: World) -> None:
    makers = pl.Series("maker", np.random.default_rng(1).choice(["ACME", "Borea", "Cirrus"], 700, p=[0.1, 0.1, 0.8]))
    world.score(draw(60, 7).with_columns(makers))
    quiet = SPEC.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"prediction_drift": False})})
    report = drift_of(world, quiet)
    assert report.drifted == ("maker",)
    assert report.verdict == "no drift"
    assert "10% of the model's importance, less than the 15%" in report.reasons[0]


def test_new_category_is_seen(world: World) -> None:
    rows = draw(60, 7)
    few = pl.when(pl.int_range(pl.len()) == 100).then(pl.lit("Dynamo")).otherwise("maker").alias("maker")
    world.score(rows.with_columns(few))
    report = drift_of(world)
    assert column(report, "maker").new_categories == "Dynamo (0.1%)"
    assert not column(report, "maker").drifted
    assert any(reason.startswith("maker: not drifted, but new categories Dynamo") for reason in report.reasons)

    many = pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("Dynamo")).otherwise("maker").alias("maker")
    world.score(draw(70, 7).with_columns(many))
    assert column(drift_of(world), "maker").drifted


def test_missing_values_are_seen(world: World) -> None:
    silent = pl.when(pl.int_range(pl.len()) % 2 == 0).then("wind").alias("wind")
    world.score(draw(60, 7).with_columns(silent))
    report = drift_of(world)
    wind = column(report, "wind")
    assert wind.drifted
    assert wind.missing_share == pytest.approx(0.5, abs=0.05)
    assert wind.reference_missing_share == pytest.approx(0.02, abs=0.01)
    assert "missing 1.82% → 50.86%" in wind.reason
    assert report.verdict == "drift"  # 20 % of the importance


def test_feature_without_any_value_has_drifted(world: World) -> None:
    world.score(draw(60, 7).with_columns(wind=pl.lit(None, pl.Float64)))
    report = drift_of(world)
    wind = column(report, "wind")
    assert (wind.drifted, wind.method, wind.missing_share) == (True, "two proportions", 1.0)
    assert "wind: only its missing values are judged, no values in the window" in report.reasons


def test_a_stuck_column_with_float_noise_is_drift(world: World) -> None:
    noisy = pl.when(pl.int_range(pl.len()) % 5 == 0).then(0.1 + 0.2).otherwise(0.3)
    world.score(draw(60, 7).with_columns(wind=noisy))
    assert "wind" in drift_of(world).drifted


def test_infinite_values_are_no_missing_ones(world: World) -> None:
    broken = pl.when(pl.int_range(pl.len()) % 20 == 0).then(float("inf")).otherwise("wind").alias("wind")
    world.score(draw(60, 7).with_columns(broken))
    wind = column(drift_of(world), "wind")
    assert wind.drifted
    assert "infinite 0.00% → 5.00%" in wind.reason
    assert wind.missing_share < 0.03


def test_a_plot_that_cannot_be_drawn_stops_no_verdict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = column_plots._run

    def fails(sides, columns):
        if "wind" in sides:
            raise ValueError("Too many bins for data range")
        return run(sides, columns)

    monkeypatch.setattr(column_plots, "_run", fails)
    world.score(draw(60, 7).with_columns(pl.col("vibration") + 0.8))
    report = drift_of(world)
    assert report.verdict == "drift"
    assert report.html is not None
    page = report.html.read_text()
    assert "not drawn: wind (ValueError: Too many bins for data range)" in page
    assert "Drift in column &#39;vibration&#39;" in page or "Drift in column 'vibration'" in page


def test_a_feature_of_another_type_is_not_judged_and_told(world: World) -> None:
    """As when a feature turns from a number to a category between two versions."""
    reference = draw(0, 20)
    columns = [DriftColumn("wind", "numeric", 0.8), DriftColumn("maker", "categorical", 0.2)]
    found, _ = compare(reference, draw(60, 7).with_columns(wind=pl.lit("calm")), columns, SPEC.monitoring)
    verdict, share, reasons = judge(SPEC.monitoring, found, None)
    assert (verdict, share) == ("no drift", 0.0)
    told = "not judged, with 80% of the importance: wind (in the window its values are String and not all numbers)"
    assert told in reasons


def test_a_large_window_is_read_as_a_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.score(draw(60, 7))
    monkeypatch.setattr(detect, "MAX_READ_ROWS", 500)
    monkeypatch.setattr(detect, "MAX_COMPARED_ROWS", 350)
    report = drift_of(world)
    assert (report.rows, report.reference_rows) == (700, 6000)
    assert 300 < report.compared_rows < 420
    assert 300 < report.compared_reference_rows < 420
    assert report.verdict == "no drift"


def test_few_rows_are_not_judged_and_not_recorded(world: World) -> None:
    world.score(draw(60, 2).with_columns(pl.col("vibration") + 5))
    report = drift_of(world)
    assert (report.verdict, report.rows, report.html) == ("not judged", 200, None)
    assert "200 rows were scored" in report.reasons[0]
    assert "min_rows = 300" in report.reasons[0]
    assert not world.lake.exists("monitoring/drift")


def test_nothing_scored_is_not_judged(world: World) -> None:
    assert drift_of(world).verdict == "not judged"


def test_without_release_the_error_says_what_to_do(world: World, tmp_path) -> None:
    with pytest.raises(LookupError, match=r"released version of 'turbine_fault'.*Materialise its `release`"):
        detect_drift(world.lake, SPEC, ReleaseStore(tmp_path / "empty"), world.settings)


def test_until_moves_the_window(world: World) -> None:
    world.score(draw(60, 7))
    world.score(draw(67, 7).with_columns(pl.col("vibration") + 2))
    assert drift_of(world).verdict == "drift"
    earlier = detect_drift(world.lake, SPEC, world.store, world.settings, until=START + timedelta(days=67))
    assert earlier.verdict == "no drift"


def test_batch_and_online_rows_are_judged_together(world: World) -> None:
    world.score(draw(60, 4))
    world.score(draw(64, 3), online=True)
    assert drift_of(world).rows == 700


def test_scores_that_the_bundle_does_not_give_are_skew(world: World) -> None:
    rows = draw(60, 7)
    world.score(rows, scores=[0.5] * rows.height)
    report = drift_of(world)
    assert report.skewed_share == 1.0
    assert any("serving and this bundle disagree" in reason for reason in report.reasons)


def test_numbers_are_recorded_a_row_per_column(world: World) -> None:
    world.score(draw(60, 7).with_columns(pl.col("vibration") + 0.8))
    report = drift_of(world)
    rows = world.lake.read("monitoring/drift").collect()
    assert rows["column"].to_list() == ["(prediction)", "vibration", "wind", "maker"]
    assert rows["drifted"].to_list() == [True, True, False, False]
    assert rows["model"].unique().to_list() == [MODEL]
    assert rows["window_until"].unique().to_list() == [report.window_until]
    assert rows.filter(pl.col("column") == "vibration")["distance"].item() == column(report, "vibration").distance
    assert report.plots(world.lake)["drift_over_time"].startswith(b"\x89PNG")


def test_html_report_has_the_verdict_and_old_ones_go(world: World) -> None:
    world.score(draw(60, 7).with_columns(pl.col("vibration") + 0.8))
    folder = world.settings.reports_dir / MODEL
    folder.mkdir(parents=True)
    for day in range(KEPT_REPORTS + 3):
        (folder / f"201201{day:02d}T000000Z.html").write_text("old")
    report = drift_of(world)
    assert report.html is not None
    page = report.html.read_text()
    assert "turbine_fault version 1: drift" in page
    assert "Drift in column &#39;vibration&#39;" in page or "Drift in column 'vibration'" in page
    kept = sorted(path.name for path in folder.glob("*.html"))
    assert len(kept) == KEPT_REPORTS
    assert kept[-1] == report.html.name


def test_the_same_rows_give_the_same_report(world: World) -> None:
    world.score(draw(60, 7).with_columns(pl.col("vibration") + 0.1))
    assert drift_of(world) == drift_of(world)


def test_report_has_nothing_that_phones_home(world: World) -> None:
    world.score(draw(60, 7))
    drift_of(world)
    assert "evidently.metrics" in sys.modules
    assert "evidently.telemetry" not in sys.modules


def test_only_versions_with_all_features_are_compared(world: World) -> None:
    """Rows of an older model that did not know `wind` yet have nulls there: that is no drift."""
    older = world.store.load_manifest(world.digest)
    features = tuple(one for one in older.features if one.name != "wind")
    older = msgspec.structs.replace(older, features=features, inputs=tuple(i for i in older.inputs if i.name != "wind"))
    files = world.store.read_bundle(world.digest)
    older = msgspec.structs.replace(older, model_digest=model_digest(files["model.onnx"], older))
    digest = world.store.put_bundle({**files, "manifest.json": msgspec.json.encode(older)})
    world.store.publish(MODEL, [Target(version=2, digest=digest)], reason="experiment", by="test")
    world.store.publish(MODEL, [Target(version=1, digest=world.digest)], reason="back", by="test")
    world.score(draw(60, 4).with_columns(wind=pl.lit(None, pl.Float64)), version=2)
    world.score(draw(64, 4))
    report = drift_of(world)
    assert (report.rows, report.verdict) == (400, "no drift")
