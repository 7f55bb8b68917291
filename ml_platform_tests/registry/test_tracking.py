import subprocess
import sys

import pytest

from ml_platform.code_version import engine_code_version
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

OPEN = """
import sys
from pathlib import Path
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
print(Tracker(Settings(home=Path(sys.argv[1]))).experiment_id("order_late"))
"""


@pytest.mark.slow
def test_two_processes_may_create_the_store_at_once(tmp_path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "home")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1


def test_training_run_holds_what_a_reader_asks_for(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, trained = trained_shops
    run = shops.tracker.client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["family"] == trained.family
    assert run.data.metrics["holdout_roc_auc"] == pytest.approx(trained.metrics["roc_auc"])
    assert run.data.metrics["validation_roc_auc"] == pytest.approx(trained.validation_metrics["roc_auc"])
    assert run.data.tags["code_version"] == "test"
    assert run.data.tags["engine_version"] == engine_code_version()
    assert run.data.tags["delta_version.raw/orders"] == "0"
    assert run.data.tags["delta_version.training_sets/order_late"] == str(trained.training_set.version)
    assert trained.run_url.startswith(shops.settings.mlflow_ui_url)
    assert trained.run_id in trained.run_url
    plots = shops.tracker.read_plots(trained.run_id)
    assert set(plots) == {"importance.png", "calibration.png", "precision_recall.png", "confusion.png"}
    assert all(image.startswith(b"\x89PNG") for image in plots.values())
    names = {item.path for item in shops.tracker.client.list_artifacts(trained.run_id)}
    assert {"features.json", "training_set.json"} <= names


def test_every_trial_is_a_child_run(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, _ = trained_shops
    client = shops.tracker.client
    runs = client.search_runs([shops.tracker.experiment_id("order_late")])
    parents = {run.info.run_id for run in runs if run.data.tags.get("stage") == "search"}
    children = [run for run in runs if run.data.tags.get("stage") == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= parents
    assert {run.data.params["family"] for run in children} == {"logistic_regression", "lightgbm"}
    assert all("validation_roc_auc" in run.data.metrics for run in children)


def test_failed_run_says_why(shops: Shops) -> None:
    with pytest.raises(ZeroDivisionError), shops.tracker.run("order_late", "broken") as run_id:
        _ = 1 / 0
    run = shops.tracker.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"].startswith("ZeroDivisionError")


def test_run_without_files_has_none(shops: Shops) -> None:
    with shops.tracker.run("order_late", "empty") as run_id:
        pass
    assert shops.tracker.read_plots(run_id) == {}


def test_tracker_is_lazy(tmp_path) -> None:
    Tracker(Settings(home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()
