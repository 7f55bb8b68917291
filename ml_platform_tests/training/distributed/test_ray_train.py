"""Whole trainings over two workers of a Ray on this machine: quality, release, refit, a worker that is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from ml_platform.inference.batch import score_frame
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.local_ray import ray_session
from ml_platform.settings import Settings
from ml_platform.training.candidate_fit import fit_candidate
from ml_platform.training.distributed.fit import fit_stored
from ml_platform.training.distributed.ray_train import FOLDER, WorkersFailed
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.evaluation.rule import seed_noise
from ml_platform_tests.toy_world import Shops, build_shops, shop_spec
from ml_platform_tests.training.distributed.worlds import SPREAD

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Shops:
    folder = tmp_path_factory.mktemp("spread")
    spec = shop_spec(**SPREAD, tuning={"trials": 1, "sample_rows": 1000, "seed": 7}, split={"holdout": "14 days"})
    return build_shops(Settings(home=folder / "home"), folder / "defs", spec, rows=9000)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with ray_session(num_cpus=2, log_to_driver=False, logging_level="ERROR"):
        yield


def _auc(world: Shops, scores: np.ndarray, holdout: pl.DataFrame) -> float:
    y = encode_labels(holdout.get_column("late"), world.spec)
    return measure("binary", y, scores, threshold=0.5)["roc_auc"]


@pytest.mark.usefixtures("ray")
def test_a_model_that_two_workers_train_is_released_refitted_and_as_good(world: Shops) -> None:
    spread = world.respecified(**{**world.spec.model_dump(), "families": ["lightgbm"]})
    ref = spread.training_set()
    rows = spread.rows(ref)
    assert rows.parts.train.height == 1000
    trained = spread.fit(spread.candidates(ref))
    assert trained.distributed is not None
    assert trained.params["n_estimators"] == trained.distributed.rounds
    assert trained.trained.rows == rows.parts.bounds.train.rows + rows.parts.bounds.validation.rows
    assert sum(trained.distributed.rows) == trained.trained.rows
    assert min(trained.distributed.rows) > 0.4 * trained.trained.rows
    assert trained.parity.max_difference <= trained.parity.tolerance

    manifest = spread.store.load_manifest(trained.digest)
    assert manifest.provenance.workers is not None
    assert (manifest.provenance.workers.count, manifest.provenance.workers.executor) == (2, "local")
    run = spread.tracker.client.get_run(trained.run_id)
    assert run.data.params["workers"] == "2"
    assert run.data.params["n_estimators"] == str(trained.distributed.rounds)

    alone = spread.respecified(**{**spread.spec.model_dump(), "training": {}, "tuning": {"trials": 1, "seed": 7}})
    whole = alone.rows(ref)
    one = fit_candidate(
        alone.spec, ref.features, pl.concat([whole.parts.train, whole.parts.validation]), "lightgbm", trained.params
    )
    scorer = Scorer.load(spread.store.bundle_path(trained.digest))
    together = _auc(spread, score_frame(scorer, whole.parts.holdout), whole.parts.holdout)
    by_itself = _auc(spread, one.predict(whole.parts.holdout), whole.parts.holdout)
    assert abs(together - by_itself) < seed_noise("roc_auc", by_itself)

    evaluation = spread.evaluate(trained)
    assert evaluation.promote, evaluation.reasons
    refitted = spread.refit(trained, evaluation)
    assert refitted.refit is not None
    assert refitted.refit.refitted, refitted.refit.reasons
    assert refitted.trained.rows == ref.rows
    assert refitted.distributed is not None
    assert refitted.params == trained.params
    assert not [path for path in (Path(spread.lake.uri) / FOLDER).iterdir() if path.is_dir()]


@pytest.mark.usefixtures("ray")
def test_training_goes_on_from_the_last_checkpoint_after_kills_of_workers(
    world: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = world.training_set()
    rows = world.rows(ref)
    assert rows.stored is not None
    assert rows.cuts is not None
    params = {"learning_rate": 0.02, "max_depth": 4, "n_estimators": 400}
    ranges = [rows.cuts.train, rows.cuts.validation]
    with monkeypatch.context() as patched, _killing(world) as killed:
        patched.setattr("ml_platform.training.distributed.ray_train.RESTARTS", 0)
        with pytest.raises(
            WorkersFailed, match=r"failed, after 0 restarts: .*died.* run it again on version .* goes on"
        ):
            fit_stored(rows.stored, ranges, "xgboost", params, seeks_rounds=False)
    assert killed
    assert _checkpoints(world), "nothing is there to go on from"
    with _killing(world) as killed:
        fitted = fit_stored(rows.stored, ranges, "xgboost", params, seeks_rounds=False)
    assert killed
    assert not _checkpoints(world)
    assert fitted.distributed is not None
    assert fitted.distributed.rounds == fitted.estimator.get_booster().num_boosted_rounds() == 400
    onnx, parity = fitted.export()
    assert onnx
    assert parity.max_difference <= parity.tolerance
    before = world.lake.read(ref.table, version=ref.version).collect()
    learned = before.filter(rows.cuts.train.where(world.spec) | rows.cuts.validation.where(world.spec))
    one = fit_candidate(world.spec, ref.features, learned, "xgboost", params)
    assert one.encoder.features == fitted.encoder.features
    holdout = rows.parts.holdout
    by_itself = _auc(world, one.predict(holdout), holdout)
    assert abs(_auc(world, fitted.predict(holdout), holdout) - by_itself) < seed_noise("roc_auc", by_itself)


@pytest.mark.usefixtures("ray")
def test_more_cores_than_the_cluster_has_are_refused_before_anything_waits(world: Shops) -> None:
    training = {"workers": 2, "executor": "ray", "cpus_per_worker": 50}
    many = world.respecified(**{**world.spec.model_dump(), "training": training})
    rows = many.rows(many.training_set())
    assert rows.stored is not None
    assert rows.cuts is not None
    with pytest.raises(WorkersFailed, match=r"take 100 cores .* the Ray cluster has 2"):
        fit_stored(rows.stored, [rows.cuts.train], "lightgbm", {"n_estimators": 5}, seeks_rounds=False)


@contextmanager
def _killing(world: Shops) -> Iterator[list[int]]:
    """Kill a worker once, as soon as there is a checkpoint that was not there before; the list has its number then."""
    before, killed, ended = _checkpoints(world), list[int](), threading.Event()

    def watch() -> None:
        while not killed and not ended.wait(0.05):
            workers = [one.pid for one in psutil.process_iter(["cmdline"]) if _is_own_worker(one)]
            if len(workers) == 2 and _checkpoints(world) - before:
                os.kill(workers[1], signal.SIGKILL)
                killed.append(workers[1])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def _checkpoints(world: Shops) -> set[Path]:
    return set((Path(world.lake.uri) / FOLDER).glob("*/checkpoint_*/model"))


def _is_own_worker(process: psutil.Process) -> bool:
    """Whether it is a worker of Ray Train below this process."""
    try:
        return "RayTrainWorker" in " ".join(process.cmdline()) and os.getpid() in {
            parent.pid for parent in process.parents()
        }
    except psutil.NoSuchProcess:
        return False
