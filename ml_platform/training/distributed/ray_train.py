"""Runs a fit's workers by Ray Train, and takes what the last checkpoint holds."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from ml_platform.atomic_files import locked
from ml_platform.code_version import engine_code_version
from ml_platform.distribution import extra
from ml_platform.lake.storage.tables import Lake
from ml_platform.local_ray import ray_session
from ml_platform.training.distributed.fit_state import FitState
from ml_platform.training.distributed.plan import FitPlan
from ml_platform.training.distributed.worker import train_shard
from ml_platform.training.families.registry import get_family

T = TypeVar("T")
FOLDER: Final = "_training"  # of the lake: where workers on other machines keep and find checkpoints, too
_LOOK_UP: Final = 0.5  # seconds
RESTARTS: Final = 3  # of all workers, from the last checkpoint, after one died or failed
_TRAIN_SETTINGS: Final = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a busy machine takes longer than Ray's minute
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # asks the cluster every five seconds; a lost node fails its workers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # which is also how long each checkpoint waits
}


class WorkersFailed(RuntimeError):
    """A training over several workers came to nothing; the message says why, and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What the workers came to, and where they ran."""

    state: FitState
    executor: Literal["cluster", "local"]


def run_workers(plan: FitPlan) -> Outcome:
    """Have the workers train; after one dies, all go on from the last checkpoint.

    Checkpoints are below `_training` in the lake, and removed when the fit has ended. A process that was killed leaves
    them, and the next fit of the same goes on from there. Fits of one model wait for each other, in a local lake.

    Raises
    ------
    WorkersFailed
        When the cluster has too few cores, or the workers died or failed too often.
    """
    with extra("ray"):
        import ray
        import ray.train

    spec, lake, training = plan.stored.spec, plan.stored.lake, plan.stored.spec.training
    trainer_class = get_family(plan.family).shard_booster().trainer()
    with _kept_alone(lake, spec.name), _environment(_TRAIN_SETTINGS), _session(training.workers * plan.cpus, spec.name):
        name = f"{spec.name}-{fit_key(plan)}"
        remove_others(lake, spec.name, name)
        trainer = trainer_class(
            train_shard,
            train_loop_config={"plan": plan},
            scaling_config=ray.train.ScalingConfig(
                num_workers=training.workers, resources_per_worker={"CPU": plan.cpus}
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=f"{lake.uri}/{FOLDER}",
                failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            result = in_own_thread(trainer.fit)
        except ray.train.TrainingFailedError as error:
            ref = plan.stored.ref
            raise WorkersFailed(
                f"{spec.name}: the training on {training.workers} workers failed, after {RESTARTS} restarts: "
                f"{failure_reason(error)}. What was trained until then is kept: run it again on version "
                f"{ref.version} of {ref.table}, as a re-execution from the failed step does, and it goes on from "
                "there. A worker that dies without a message had too little memory: set more `training.workers`"
            ) from error
        with result.checkpoint.as_directory() as folder:
            state = FitState.read(Path(folder))
        _remove(lake, name)
        return Outcome(state, "cluster" if os.environ.get("RAY_ADDRESS") else "local")


def fit_key(plan: FitPlan) -> str:
    """Name a fit: another one for all that could change its model."""
    spec, ref = plan.stored.spec, plan.stored.ref
    parts = (
        spec.model_dump_json(),
        (ref.table, ref.version),
        (plan.family, sorted(plan.params.items()), plan.features, plan.classes),
        (plan.shards, plan.stop_on),
        engine_code_version(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def _session(cpus: int, model: str) -> Iterator[None]:
    """A session of Ray with enough cores: the one that is there, the cluster's, or one of this process's own."""
    import ray

    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        with _existing_session():
            there = int(ray.cluster_resources().get("CPU", 0))
            if there < cpus:
                raise WorkersFailed(
                    f"{model}: the workers take {cpus} cores (`training.workers` × `training.cpus_per_worker`), the "
                    f"Ray cluster has {there}; add machines to it, or set fewer workers"
                )
            yield
        return
    # More workers than cores are slow and not wrong: who sets two on a machine of one gets two.
    with ray_session(num_cpus=max(cpus, os.cpu_count() or 1), log_to_driver=False, logging_level="ERROR"):
        yield


@contextmanager
def _existing_session() -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    with ray_session(log_to_driver=False, logging_level="ERROR"):
        yield


@contextmanager
def _kept_alone(lake: Lake, model: str) -> Iterator[None]:
    if not lake.is_local:
        yield
        return
    with locked(Path(lake.uri) / FOLDER / f"{model}.lock"):
        yield


def remove_others(lake: Lake, model: str, own: str) -> None:
    """Remove what killed processes left of other fits of the model."""
    if lake.is_local:
        for path in (Path(lake.uri) / FOLDER).glob(f"{model}-*"):
            if path.name != own:
                shutil.rmtree(path, ignore_errors=True)


def _remove(lake: Lake, name: str) -> None:
    if lake.is_local:
        shutil.rmtree(Path(lake.uri) / FOLDER / name, ignore_errors=True)
    else:
        lake.store(FOLDER).delete_dir(name)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, for a while."""
    own = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def in_own_thread(fit: Callable[[], T]) -> T:
    """Fit in a thread of its own: in the main one Ray Train takes Ctrl-C for itself, and exits as if all were well."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(fit())
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="ray train", daemon=True).start()
    while not wait([outcome], timeout=_LOOK_UP).done:
        pass  # a signal that comes just before an endless wait would not end it
    return outcome.result()


def failure_reason(error: Exception) -> str:
    """What the workers raised, each reason once and in one line."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    return "; ".join(sorted({_in_short(failure) for failure in failures.values()}))


def _in_short(failure: Exception) -> str:
    if "worker process has died" in str(failure):  # and then half a page of what it may have been
        return "the process of a worker died"
    lines = str(failure).strip().splitlines()
    return lines[-1].rstrip(".")[:300] if lines else type(failure).__name__
