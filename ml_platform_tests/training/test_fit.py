import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.code_version import NOT_VERSIONED, code_version
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.batch import score_frame, score_window
from ml_platform.inference.scorer import Scorer
from ml_platform.project import Project
from ml_platform.promotion.versions import describe
from ml_platform.registry.manifest import Target
from ml_platform.spec.model import CLASSIFICATION_METRICS
from ml_platform.training.candidate_fit import NotExportable, fit_candidate
from ml_platform.training.data.split import Parts, TrainingRows, read_rows, split_by_time
from ml_platform.training.documents import SearchResult, TrainedModel
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform.training.families.registry import get_family
from ml_platform.training.fit import fit_model
from ml_platform.training.search import search
from ml_platform_tests.toy_world import START, Shops, multiclass_spec, regression_spec

AS_OF = START + timedelta(days=50)


def facts(found: SearchResult) -> list[tuple[object, ...]]:
    return [(c.number, c.family, c.params, c.score, c.metrics, c.threshold) for c in found.candidates]


def test_same_inputs_give_the_same_model_digest(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    first = trained_shops[1]
    second = shops.train(AS_OF)
    assert second.model_digest == first.model_digest
    assert second.run_id != first.run_id
    assert second.digest != first.digest  # the bundle says when and by which run it was made


@pytest.mark.parametrize("family", ["lightgbm"])
def test_trees_are_repeatable_too(shops: Shops, family: str) -> None:
    trees = shops.respecified(families=[family])
    found = trees.candidates(trees.training_set(AS_OF))
    shutil.rmtree(shops.settings.studies_dir)  # else it would be read, not repeated
    assert facts(found) == facts(trees.candidates(found.training_set))
    assert trees.fit(found).model_digest == trees.fit(found).model_digest
    run = trees.fit(found).run_id
    assert "model.lgb" in {item.path for item in trees.tracker.client.list_artifacts(run)}


def test_other_seed_gives_other_parameters(shops: Shops) -> None:
    ref = shops.training_set(AS_OF)
    seeds = [
        shops.respecified(families=["logistic_regression"], tuning={"trials": 3, "seed": seed}).candidates(ref)
        for seed in (1, 2)
    ]
    assert facts(seeds[0])[0] == facts(seeds[1])[0]  # the first trial has the default parameters
    assert facts(seeds[0])[1:] != facts(seeds[1])[1:]


def test_holdout_rows_change_neither_search_nor_model(shops: Shops) -> None:
    """Turn every holdout label around: the same candidates, thresholds and model come out."""
    ref = shops.training_set(AS_OF)
    rows = read_rows(shops.lake, shops.spec, ref)
    held_out = split_by_time(rows, shops.spec).holdout["order_id"].to_list()
    turned = rows.with_columns(
        pl.when(pl.col("order_id").is_in(held_out)).then(~pl.col("late")).otherwise(pl.col("late")).alias("late")
    )
    before = search(shops.rows(ref), shops.spec, tracker=shops.tracker)
    after = search(TrainingRows(ref, split_by_time(turned, shops.spec)), shops.spec, tracker=shops.tracker)
    assert facts(before) == facts(after)
    version = shops.lake.replace(ref.table, turned)
    moved = before.model_copy(update={"training_set": ref.model_copy(update={"version": version})})
    assert shops.fit(moved).model_digest == shops.fit(before).model_digest
    assert shops.fit(moved).metrics["roc_auc"] < 0.5 < shops.fit(before).metrics["roc_auc"]


def test_best_candidate_is_trained_on_training_and_validation(trained_shops: tuple[Shops, TrainedModel]) -> None:
    _, trained = trained_shops
    assert trained.trained.rows == trained.bounds.train.rows + trained.bounds.validation.rows
    assert trained.trained.last < trained.bounds.holdout.first
    assert trained.metrics["roc_auc"] > 0.8
    assert sum(trained.importance.values()) == pytest.approx(1.0)
    assert list(trained.importance.values()) == sorted(trained.importance.values(), reverse=True)
    assert next(iter(trained.importance)) == "shop_load__load"
    assert 0 < (trained.threshold or 0) < 1
    assert TrainedModel.model_validate_json(trained.model_dump_json()) == trained


def test_manifest_says_how_to_ask_and_where_it_comes_from(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, trained = trained_shops
    manifest = shops.store.load_manifest(trained.digest)
    assert (manifest.id, manifest.as_of, manifest.task) == ("order_id", "ordered_at", "binary")
    assert all(field.example is not None for field in manifest.inputs)
    assert [feature.name for feature in manifest.derived] == ["weekday", "heavy"]
    (lookup,) = manifest.lookups
    assert (lookup.view, lookup.keys, lookup.ttl_seconds) == ("shop_load", {"shop": "shop"}, 3 * 86400.0)
    assert lookup.features == ("shop_load__load", "shop_load__mood")
    names = [feature.name for feature in manifest.features]
    assert names == ["shop", "channel", "weight", "weekday", "heavy", "shop_load__load", "shop_load__mood"]
    provenance = manifest.provenance
    assert provenance.tables == {"features/shop_load": 0, "raw/orders": 0}
    assert provenance.training_set_version == trained.training_set.version
    assert provenance.mlflow_run_id == trained.run_id
    assert provenance.trained_until < trained.bounds.holdout.first.isoformat()


@pytest.mark.parametrize("spec", [regression_spec(), multiclass_spec()], ids=lambda spec: spec.task)
def test_other_tasks_train_and_export(shops: Shops, spec) -> None:
    world = Shops(shops.settings, shops.folder, spec, shops.views)
    trained = world.train(AS_OF)
    manifest = world.store.load_manifest(trained.digest)
    assert manifest.classes == (("early", "late", "on time") if spec.task == "multiclass" else ())
    assert trained.threshold is None
    assert trained.metrics["r2" if spec.task == "regression" else "accuracy"] > 0.5
    plots = set(world.tracker.read_plots(trained.run_id))
    assert plots >= ({"predicted_actual.png", "residuals.png"} if spec.task == "regression" else {"confusion.png"})


def test_the_next_candidate_is_taken_where_the_best_cannot_be_exported(
    shops: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shops.candidates(shops.training_set(AS_OF))
    ranked = found.ranked
    refused = {ranked[0].number, ranked[1].number}
    logistic, fits = get_family("logistic_regression"), []
    own_export = logistic.export

    def exporter(own: Any) -> Any:
        def export(estimator: Any, task: Any, features: Any) -> bytes:
            fits.append(estimator)
            if len(fits) == 1:
                raise ValueError("its objective has no exact export")
            if len(fits) == 2:
                return own_export(found_other, task, features)
            return own(estimator, task, features)

        return export

    params = {"C": 1e-4}
    rows = shops.rows(found.training_set).parts.train
    found_other = fit_candidate(shops.spec, found.training_set.features, rows, "logistic_regression", params).estimator
    for family in map(get_family, shops.spec.families):
        monkeypatch.setattr(family, "export", exporter(family.export))
    trained = shops.fit(found)
    assert {item.number for item in trained.passed_over} == refused
    assert trained.params == ranked[2].params
    first, second = trained.passed_over
    assert first.reason == "ValueError: its objective has no exact export"
    assert second.reason.startswith("ParityError: export: the graph answers")
    tags = shops.tracker.client.get_run(trained.run_id).data.tags
    assert "its objective has no exact export; candidate" in tags["passed_over"]
    described = describe(shops.spec, trained, shops.evaluate(trained))
    assert "Better on the validation rows, but not to be released: candidate" in described
    fits.clear()
    only = found.model_copy(update={"candidates": (ranked[0],)})
    with pytest.raises(NotExportable, match=r"none of the 1 candidates .* its objective has no exact export"):
        shops.fit(only)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (0.3, "as `threshold` in defs.yaml says"),
        ({"cost": {"false_positive": 1, "false_negative": 20}}, "a false positive costs 1 and a false negative 20"),
    ],
)
def test_threshold_is_the_one_that_the_yaml_asks_for(shops: Shops, rule: Any, said: str) -> None:
    world = shops.respecified(threshold=rule, families=["logistic_regression"], promotion={"metric": "f1"})
    ref = world.training_set(AS_OF)
    found = world.candidates(ref)
    trained = world.fit(found)
    manifest = world.store.load_manifest(trained.digest)
    assert manifest.threshold == trained.threshold == found.best.threshold
    assert said in manifest.threshold_choice
    assert manifest.metric == "f1"
    if rule == 0.3:
        assert trained.threshold == 0.3
    else:
        usual = shops.respecified(families=["logistic_regression"]).candidates(ref).candidates[0].threshold
        assert trained.threshold is not None
        assert usual is not None
        assert trained.threshold < usual  # misses are dear
    evaluation = world.evaluate(trained)
    assert said in describe(world.spec, trained, evaluation)
    rows = world.rows(ref).parts.holdout
    scores = score_frame(Scorer.load(world.store.bundle_path(trained.digest)), rows)
    y = rows["late"].cast(pl.Float64).to_numpy()
    assert evaluation.challenger["f1"] == pytest.approx(measure("binary", y, scores, threshold=trained.threshold)["f1"])


def test_whole_numbers_as_classes_stay_whole_numbers(shops: Shops, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shops.folder, tmp_path / "defs"))
    spine = (folder / "outcome.sql").read_text()
    number = "CASE outcome WHEN 'early' THEN 2 WHEN 'late' THEN 10 ELSE 30 END AS outcome"
    (folder / "outcome.sql").write_text(spine.replace("outcome FROM", f"{number} FROM"))
    world = Shops(shops.settings, folder, multiclass_spec(families=("logistic_regression",)), shops.views)
    trained = world.train(AS_OF)
    scorer = Scorer.load(world.store.bundle_path(trained.digest))
    assert scorer.manifest.classes == (2, 10, 30)
    assert scorer.prediction([0.1, 0.7, 0.2]) == 10
    assert trained.metrics["accuracy"] > 0.5
    assert world.evaluate(trained).challenger == pytest.approx(trained.metrics)
    world.store.publish(world.spec.name, [Target(version=1, digest=trained.digest)], reason="test", by="ann")
    start = START + timedelta(days=60)
    report = score_window(world.lake, world.spec, folder, world.views, world.store, start, start + timedelta(days=2))
    predicted = world.lake.read(report.table).collect()["prediction"]
    assert predicted.dtype == pl.String, "classes are text in tables"
    assert set(predicted) <= {"2", "10", "30"}


def test_classes_that_come_and_go(shops: Shops) -> None:
    """Training lacks a class that validation has, validation one of training's, the holdout has one that nobody had."""
    world = Shops(shops.settings, shops.folder, multiclass_spec(), shops.views)
    ref = world.training_set(AS_OF)
    parts = world.rows(ref).parts

    def renamed(part: pl.DataFrame, old: str, new: str) -> pl.DataFrame:
        return part.with_columns(pl.col("outcome").replace(old, new))

    changed = Parts(
        renamed(parts.train, "late", "early"),
        renamed(parts.validation, "early", "late"),
        renamed(parts.holdout, "on time", "lost"),
        parts.bounds,
    )
    rows = TrainingRows(ref, changed)
    found = search(rows, world.spec, tracker=world.tracker)
    assert set(found.best.metrics) == set(CLASSIFICATION_METRICS)
    trained = fit_model(
        rows, world.spec, found, folder=world.folder, views=world.views, store=world.store, tracker=world.tracker
    )
    assert world.store.load_manifest(trained.digest).classes == ("early", "late", "on time")
    lost = (changed.holdout["outcome"] == "lost").sum() / changed.holdout.height
    assert trained.metrics["log_loss"] > 30 * lost
    assert trained.metrics["accuracy"] < 1 - lost
    source = VersionRows(world.lake, world.spec, world.folder, world.views)
    assert evaluate(rows, world.spec, trained, world.store, source).challenger == pytest.approx(trained.metrics)


def test_changed_view_is_refused(shops: Shops) -> None:
    found = shops.candidates(shops.training_set(AS_OF))
    view = shops.views["shop_load"]
    shops.views = {"shop_load": FeatureView(**{**view.model_dump(), "sql": view.sql + " WHERE load > 0"})}
    with pytest.raises(ValueError, match="view 'shop_load' changed since the training set"):
        shops.fit(found)


def test_one_class_is_refused_in_words(shops: Shops) -> None:
    ref = shops.training_set(AS_OF)
    rows = read_rows(shops.lake, shops.spec, ref).with_columns(late=pl.lit(True))
    with pytest.raises(ValueError, match=r"all \d+ training rows have the same label"):
        search(TrainingRows(ref, split_by_time(rows, shops.spec)), shops.spec, tracker=shops.tracker)


def test_code_version(tmp_path) -> None:
    import subprocess

    project = Project(tmp_path, "own", "own.definitions", "own")
    assert code_version(project) == NOT_VERSIONED

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "model.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = code_version(project)
    assert len(clean) == 40
    (tmp_path / "notes.ipynb").write_text("{}")
    assert code_version(project) == clean
    (project.root / project.package / "defs" / "my_model").mkdir(parents=True)
    (project.root / project.package / "defs" / "my_model" / "defs.yaml").write_text("type: x")
    assert code_version(project) == f"{clean}-dirty"
    git("add", project.package)
    git("commit", "-qm", "two")
    committed = code_version(project)
    assert (committed != clean, len(committed)) == (True, 40)
    (tmp_path / "model.py").write_text("2")
    assert code_version(project) == f"{committed}-dirty"
