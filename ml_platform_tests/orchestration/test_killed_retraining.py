"""A retraining that is killed by SIGKILL ends as one new version: Dagster's own daemon, queue, launcher, processes.

The runs train as of instants four weeks apart, so that each makes a version of its own. Every four weeks brings new
amounts, of which the champion knows nothing yet and its challenger half: the gate lets every challenger pass.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import psutil
import pytest
from dagster import DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.events import DagsterEventType
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from ml_platform.orchestration.dropped_retries import DROPPED
from ml_platform.processes import table
from ml_platform.processes.child import NAME_MARK
from ml_platform.promotion.reconcile import versions_of
from ml_platform.promotion.sweep import sweep_bundles
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform_tests.platform_process import RunningPlatform, copy_project, running_platform

pytestmark = pytest.mark.slow

MODEL = "toy"
Moment = Callable[[RunningPlatform, str], None]
Kill = Callable[[psutil.Process], None]
JOB, POOL = f"{MODEL}_retrain", f"{MODEL}_training"

DEFS = """
type: ml_platform.orchestration.TabularModel
attributes:
  name: toy
  description: Whether a number is large.
  owner: team@example.com
  task: binary
  target: label
  spine: spine.sql
  id: row_id
  timestamp: event_time
  label_available_at: label_available_at
  inputs:
    - {name: row_id, type: string, feature: false, required: false, description: Id of the row.}
    - {name: event_time, type: timestamp, feature: false, description: When it is predicted.}
    - {name: amount, type: number, description: The number.}
  lookups: []
  families: [logistic_regression, lightgbm]
  tuning: {trials: 2}
  scoring: {start: 2024-01-01}
  promotion: {max_latency_ms: 1000, min_agreement: 0} # the refit alone knows the newest amounts
"""
SPINE = """
SELECT
    'row-' || i AS row_id,
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(30 * i) AS event_time,
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(30 * i + 60) AS label_available_at,
    (10 * (i // (28 * 48)) + hash(i) % 20)::DOUBLE AS amount,
    CASE WHEN hash(amount) % 2 = 0 THEN hash(i, 'label') % 100 < 80 ELSE hash(i, 'label') % 100 < 20 END AS label
FROM range(17000) AS t(i)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """The running platform with a first released version."""
    folder = tmp_path_factory.mktemp("killed")
    project = copy_project(folder / "project", {MODEL: {"defs.yaml": DEFS, "spine.sql": SPINE}})
    with running_platform(project, folder / "home") as running:
        run_id = running.launch(JOB, trained_as_of("2024-04-01"))
        assert running.await_end(run_id) is DagsterRunStatus.SUCCESS, running.log.read_text()[-4000:]
        yield running


def versions(platform: RunningPlatform) -> set[int]:
    return {int(entry.version) for entry in versions_of(Tracker(platform.settings), MODEL)}


def trained_as_of(day: str) -> dict:
    return {"ops": {f"{MODEL}__training_set": {"config": {"as_of": f"{day}T00:00:00+00:00"}}}}


def kill_worker(worker: psutil.Process) -> None:
    """The run's process alone: a step that is under way outlives it."""
    worker.kill()


def kill_tree(worker: psutil.Process) -> None:
    """The run's process and all that it started; a step that has just ended may be gone before its turn comes."""
    for process in [worker, *worker.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def step_starts(step: str) -> Moment:
    return lambda platform, run_id: platform.await_step(run_id, f"{MODEL}__{step}", DagsterEventType.STEP_START)


def step_succeeds(step: str) -> Moment:
    return lambda platform, run_id: platform.await_step(run_id, f"{MODEL}__{step}", DagsterEventType.STEP_SUCCESS)


def training_is_logged(platform: RunningPlatform, run_id: str) -> None:
    """MLflow has an open run of the training, which nobody ends any more."""
    client = Tracker(platform.settings).client
    wanted = f"attributes.status = 'RUNNING' and tags.dagster_run_id = '{run_id}'"
    experiment = client.get_experiment_by_name(MODEL).experiment_id
    platform.wait_until(lambda: client.search_runs([experiment], wanted), f"an MLflow run of run {run_id}")


def version_is_registered(platform: RunningPlatform, run_id: str) -> None:
    """MLflow has the version; the step that made it has yet to hand it on."""
    before = versions(platform)
    platform.wait_until(lambda: versions(platform) > before, f"a version of run {run_id}")


def revision_of(store: ReleaseStore) -> int:
    endpoint = store.endpoint(MODEL)
    assert endpoint is not None
    return endpoint.revision


def version_is_published(platform: RunningPlatform, run_id: str) -> None:
    """The version serves; ledger and aliases are still behind."""
    store = ReleaseStore(platform.settings.releases_dir)
    before = revision_of(store)
    platform.wait_until(lambda: revision_of(store) > before, f"a release of run {run_id}")


@pytest.mark.parametrize(
    ("day", "moment", "kill"),
    [
        ("2024-04-29", step_starts("trained_model"), kill_worker),
        ("2024-05-27", training_is_logged, kill_tree),
        ("2024-06-24", version_is_registered, kill_tree),
        ("2024-07-22", step_succeeds("registered_version"), kill_tree),
        ("2024-08-19", version_is_published, kill_tree),
    ],
    ids=["training, its steps live on", "training", "registration", "between registration and release", "release"],
)
def test_a_killed_retraining_ends_as_one_new_version(platform: RunningPlatform, day: str, moment: Moment, kill: Kill):
    tracker, store = Tracker(platform.settings), ReleaseStore(platform.settings.releases_dir)
    before, revision = versions(platform), revision_of(store)
    killed = platform.launch(JOB, trained_as_of(day))
    moment(platform, killed)
    kill(platform.worker(killed))

    # The monitoring fails the orphaned run, and a retry goes on where it stopped.
    assert platform.await_end(killed) is DagsterRunStatus.FAILURE
    done = platform.steps(killed, DagsterEventType.STEP_SUCCESS)
    retry = platform.wait_until(lambda: retry_of(platform, killed), f"a retry of {killed}")
    assert platform.await_end(retry.run_id) is DagsterRunStatus.SUCCESS
    again = platform.steps(retry.run_id, DagsterEventType.STEP_START)
    assert again
    assert not again & done, "what had succeeded was made again"
    chain = platform.instance.get_execution_plan_snapshot(retry.execution_plan_snapshot_id).step_keys_to_execute
    assert again == set(chain)

    # The queue is free.
    open_runs = platform.instance.get_runs(RunsFilter(job_name=JOB, statuses=NOT_FINISHED_STATUSES))
    assert not open_runs
    slots = platform.instance.event_log_storage.get_concurrency_info(POOL)
    assert (slots.active_slot_count, slots.pending_step_count) == (0, 0)

    # One new version, which serves, by one change of what serves.
    after = versions(platform)
    assert len(after - before) == 1
    endpoint = store.endpoint(MODEL)
    assert endpoint is not None
    assert [target.version for target in endpoint.targets] == sorted(after - before), endpoint.reason
    assert endpoint.revision == revision + 1
    aliases = tracker.client.get_registered_model(MODEL).aliases
    assert int(aliases["champion"]) == max(after)

    # Nothing is left behind: no open run in MLflow, and of bundles at most what the killed attempt had stored already.
    experiment = tracker.experiment_id(MODEL)
    assert not tracker.client.search_runs([experiment], "attributes.status = 'RUNNING'")
    stored = [path.name for path in (store.folder / "bundles").iterdir() if not path.name.startswith(".")]
    origins = {digest: store.load_manifest(digest).provenance.dagster_run_id for digest in stored}
    assert {origins[digest] for digest in sweep_bundles(store, grace=timedelta(0)).bundles} <= {killed}

    # Somebody was told, once, that it was killed.
    alert = platform.wait_until(lambda: alert_of(platform, killed), f"an alert of run {killed}")
    assert (alert["model"], alert["kind"], alert["severity"]) == (MODEL, "run_failed", "warning")
    assert alert["title"] == f"run {killed[:8]} of {JOB} was killed and is retried"
    assert alert["body"].startswith("Its process ")
    assert alert_of(platform, retry.run_id) is None


def test_runs_that_fall_with_the_code_server_are_retried_once_it_is_back(platform: RunningPlatform):
    """One that is under way, and one that waits in the queue and cannot be launched; Dagster gives up both retries."""
    running = platform.launch(JOB, trained_as_of("2024-09-16"))
    platform.await_step(running, f"{MODEL}__training_set", DagsterEventType.STEP_SUCCESS)
    waiting = platform.launch(JOB, trained_as_of("2024-10-14"))
    marks = {NAME_MARK: "dagster-code", "ML_PLATFORM_HOME": str(platform.settings.home)}
    fallen = set(table.marked(marks))
    assert platform.worker(running).pid in fallen
    for pid in fallen:
        os.kill(pid, signal.SIGKILL)
    # The server that is started in its place does not come to answer before Dagster has tried.
    [server] = platform.wait_until(lambda: set(table.marked(marks)) - fallen, "a new code server")
    os.kill(server, signal.SIGSTOP)
    try:
        for run_id in (running, waiting):
            assert platform.await_end(run_id) is DagsterRunStatus.FAILURE
            platform.wait_until(partial(was_dropped, platform, run_id), f"the lost retry of {run_id}")
            assert retry_of(platform, run_id) is None
    finally:
        os.kill(server, signal.SIGCONT)

    for run_id in (running, waiting):
        retry = platform.wait_until(partial(retry_of, platform, run_id), f"a retry of {run_id}")
        assert platform.await_end(retry.run_id) is DagsterRunStatus.SUCCESS
        alert = platform.wait_until(partial(alert_of, platform, run_id), f"an alert of run {run_id}")
        assert (alert["severity"], alert["title"].endswith(" and is retried")) == ("warning", True)


def was_dropped(platform: RunningPlatform, run_id: str) -> bool:
    return any(event.message == DROPPED for event in platform.events(run_id, DagsterEventType.ENGINE_EVENT))


def retry_of(platform: RunningPlatform, run_id: str) -> DagsterRun | None:
    retries = platform.instance.get_runs(RunsFilter(tags={"dagster/parent_run_id": run_id}))
    assert len(retries) <= 1
    return retries[0] if retries else None


def alert_of(platform: RunningPlatform, run_id: str) -> dict | None:
    found = [alert for alert in platform.alerts() if alert["facts"].get("run") == run_id]
    assert len(found) <= 1
    return found[0] if found else None
