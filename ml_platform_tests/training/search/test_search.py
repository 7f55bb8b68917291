"""The search of a model: what MLflow shows of it, and what it goes on with."""

import getpass
import shutil
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.registry.tracking import Tracker
from ml_platform.training.search import search
from ml_platform.training.search.progress import Progress
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.toy_world import START, Shops
from ml_platform_tests.training.search import toy_families
from ml_platform_tests.training.search.toy_families import FAMILIES

AS_OF = START + timedelta(days=50)


def trial_runs(tracker: Tracker, run_id: str) -> list:
    """Runs under a search, in the order of their trials."""
    experiment = tracker.client.get_run(run_id).info.experiment_id
    runs = tracker.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(runs, key=lambda run: (int(run.data.tags["trial"]), run.info.start_time))


@pytest.fixture
def world(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> Shops:
    """The shops with two families that are tried in no time."""
    monkeypatch.setattr(toy_families, "before_fit", [])
    return shops.respecified(families=list(FAMILIES), tuning={"trials": 4})


def test_trials_are_in_mlflow_while_the_search_runs(world: Shops) -> None:
    ref, seen = world.training_set(AS_OF), []

    def look(progress: Progress) -> None:
        [parent] = world.tracker.client.search_runs(
            [world.tracker.experiment_id("order_late")], "tags.stage = 'search' and attributes.status = 'RUNNING'"
        )
        runs = trial_runs(world.tracker, parent.info.run_id)
        seen.append(([run.info.status for run in runs], progress.line))

    result = search(world.rows(ref), world.spec, tracker=world.tracker, on_progress=look)
    assert [statuses for statuses, _ in seen] == [["FINISHED"] * number for number in range(1, 9)]
    assert seen[0][1].startswith(f"trial 1 of 8: {FAMILIES[0]}, roc_auc 0.")
    assert "; best 0." in seen[0][1]
    client = world.tracker.client
    for trial, run in zip(result.candidates, trial_runs(world.tracker, result.run_id), strict=True):
        assert run.data.tags["mlflow.user"] == getpass.getuser()
        assert run.data.params == {"family": trial.family, **{name: str(value) for name, value in trial.params.items()}}
        assert run.data.metrics["validation_roc_auc"] == pytest.approx(trial.score)
        assert 0 < run.data.metrics["train_roc_auc"] <= 1
        losses = client.get_metric_history(run.info.run_id, "validation_loss_by_round")
        assert [(loss.step, loss.value) for loss in losses] == [(1, 0.7), (2, 0.6)]
        [data] = run.inputs.dataset_inputs
        assert data.dataset.name == f"training_sets/order_late v{ref.version}"
        assert data.dataset.digest
        assert data.dataset.source_type == "delta_table"
    assert set(world.tracker.read_plots(result.run_id)) == {
        "history.png",
        "parallel_coordinates.png",
        "parameter_importance.png",
    }


def test_a_search_that_was_interrupted_goes_on_in_its_run(world: Shops) -> None:
    ref = world.training_set(AS_OF)

    def interrupt(progress: Progress) -> None:
        if progress.ended == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(world.rows(ref), world.spec, tracker=world.tracker, on_progress=interrupt)
    result = search(world.rows(ref), world.spec, tracker=world.tracker)
    run = world.tracker.client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert [run.data.tags["trial"] for run in trial_runs(world.tracker, result.run_id)] == [str(n) for n in range(8)]
    searches = world.tracker.client.search_runs([run.info.experiment_id], "tags.stage = 'search'")
    assert len(searches) == 2, "the one of the fixture, and this one"
    assert search(world.rows(ref), world.spec, tracker=world.tracker) == result
    world.tracker.client.delete_run(result.run_id)
    again = search(world.rows(ref), world.spec, tracker=world.tracker)
    assert again.run_id != result.run_id
    assert again.candidates == result.candidates
    assert len(trial_runs(world.tracker, again.run_id)) == 8


def test_the_same_rows_in_another_version_go_on_with_the_search(world: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.ended == 3:
            raise KeyboardInterrupt

    def versions_of_data(run_id: str) -> set[str]:
        return {one.dataset.name for one in world.tracker.client.get_run(run_id).inputs.dataset_inputs}

    first = world.training_set(AS_OF)
    with pytest.raises(KeyboardInterrupt):
        search(world.rows(first), world.spec, tracker=world.tracker, on_progress=interrupt)
    second = world.training_set(AS_OF)
    shuffled = world.lake.read(second.table, version=second.version).collect().sample(fraction=1, shuffle=True, seed=1)
    third = second.model_copy(update={"version": world.lake.replace(second.table, shuffled)})
    assert len({first.version, second.version, third.version}) == 3
    monkeypatch.setattr(toy_families, "fits", [])
    result = world.candidates(second)
    assert len(toy_families.fits) == 5, "eight trials, of which three had ended"
    assert (result.training_set, len(result.candidates)) == (second, 8)
    assert world.candidates(third) == result.model_copy(update={"training_set": third})
    assert len(toy_families.fits) == 5, "the rows are the same in another order"
    assert len(list(world.settings.studies_dir.glob("order_late/*.journal"))) == 2, "the fixture's, and this one"
    assert versions_of_data(result.run_id) == {f"{one.table} v{one.version}" for one in (first, second, third)}


def test_other_rows_another_spec_and_another_seed_are_another_search(world: Shops) -> None:
    def searched(tuning: dict, ref: TrainingSetRef) -> str:
        return world.respecified(families=list(FAMILIES), tuning=tuning).candidates(ref).run_id

    ref = world.training_set(AS_OF)
    first = searched({"trials": 1}, ref)
    assert searched({"trials": 1}, ref) == first
    assert searched({"trials": 1, "executor": "local"}, ref) == first, "where trials run changes nothing"
    older = world.training_set(AS_OF - timedelta(days=1))
    others = [searched({"trials": 1}, older), searched({"trials": 2}, ref), searched({"trials": 1, "seed": 1}, ref)]
    assert len({first, *others}) == 4
    assert len(list(world.settings.studies_dir.glob("order_late/*.journal"))) == 3, "older ones are swept"


def test_a_failed_trial_is_in_the_result_and_in_mlflow(world: Shops) -> None:
    def fail(family: str, params: object) -> None:
        if family == "bent":
            raise MemoryError("no room")

    toy_families.before_fit.append(fail)
    result = world.candidates(world.training_set(AS_OF))
    assert {(one.family, one.state, one.reason) for one in result.stopped} == {
        (FAMILIES[1], "failed", "MemoryError: no room")
    }
    failed = [run for run in trial_runs(world.tracker, result.run_id) if run.info.status == "FAILED"]
    assert [run.data.tags["reason"] for run in failed] == ["MemoryError: no room"] * len(result.stopped)


def test_search_and_training_name_each_other(shops: Shops) -> None:
    result = shops.candidates(shops.training_set(AS_OF))
    trained = shops.fit(result)
    client = shops.tracker.client
    searched, fitted = client.get_run(result.run_id).data.tags, client.get_run(trained.run_id).data.tags
    assert (searched["training_run_id"], searched["training_run_url"]) == (trained.run_id, trained.run_url)
    assert (fitted["search_run_id"], fitted["search_run_url"]) == (result.run_id, result.run_url)
    [data] = client.get_run(trained.run_id).inputs.dataset_inputs
    searched_data = client.get_run(
        result.run_id
    ).inputs.dataset_inputs  # the fixture's version of the same rows as well
    assert data.dataset in [one.dataset for one in searched_data]


DRIVER = """
import os, signal, sys
from pathlib import Path
from ml_platform.features.training_sets.build import TrainingSetRef
from ml_platform.features.views.load import load_views
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import Shops, shop_spec
from ml_platform_tests.training.search import toy_families

def kill(family, params):
    if len(toy_families.fits) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

toy_families.before_fit.append(kill)
home, folder, ref = sys.argv[1:]
spec = shop_spec(families=list(toy_families.FAMILIES), tuning={"trials": 4})
shops = Shops(Settings(home=Path(home)), Path(folder), spec, load_views(Path(folder) / "views"))
shops.candidates(TrainingSetRef.model_validate_json(ref))
"""


@pytest.mark.slow
def test_after_a_kill_the_search_goes_on_in_its_run(world: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = world.training_set(AS_OF)
    command = [sys.executable, "-c", DRIVER, str(world.settings.home), str(world.folder), ref.model_dump_json()]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    experiment, under_way = world.tracker.experiment_id("order_late"), "attributes.status = 'RUNNING'"
    [searched] = world.tracker.client.search_runs([experiment], f"tags.stage = 'search' and {under_way}")
    monkeypatch.setattr(toy_families, "fits", [])
    result = world.candidates(ref)
    assert result.run_id == searched.info.run_id
    assert len(toy_families.fits) == 4, "eight trials, of which the dead process had finished four"
    assert [trial.number for trial in result.candidates] == list(range(8))
    states = [(run.data.tags["trial"], run.info.status) for run in trial_runs(world.tracker, result.run_id)]
    before, after = [(str(number), "FINISHED") for number in range(4)], [(str(n), "FINISHED") for n in range(4, 8)]
    assert states == [*before, ("4", "KILLED"), *after]
    shutil.rmtree(world.settings.studies_dir)
    again = world.candidates(ref)
    assert [trial.model_copy(update={"seconds": 0}) for trial in again.candidates] == [
        trial.model_copy(update={"seconds": 0}) for trial in result.candidates
    ]
