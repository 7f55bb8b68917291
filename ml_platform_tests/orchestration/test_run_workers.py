"""Runs whose process is gone are ended, and no other: real processes, a real SQLite instance."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from ml_platform.orchestration.run_launcher import LocalRunLauncher
from ml_platform.orchestration.run_workers import HOST_TAG, WorkerState, reap_orphans, run_worker
from ml_platform.processes.table import started

HERE = {HOST_TAG: socket.gethostname()}


@pytest.fixture(scope="module")
def instance(tmp_path_factory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as local:
        yield local


@pytest.fixture
def process() -> Iterator[subprocess.Popen]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as sleeper:
        yield sleeper
        sleeper.kill()


@pytest.fixture
def start(instance):
    """Record a run in a status, with the pid that its process reported, if any."""

    def _start(
        pid: int | None, tags: dict[str, str] = HERE, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED
    ) -> dg.DagsterRun:
        run = dg.DagsterRun(job_name="toy", status=status, tags=tags)
        instance.add_run(run)
        if pid is not None:
            instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
        return run

    yield _start
    for run in instance.get_runs():
        instance.delete_run(run.run_id)


def ended(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.pid


@pytest.mark.parametrize("tags", [HERE, {}], ids=["by the launcher", "in a terminal"])
def test_a_run_whose_process_was_killed_is_failed(instance, start, process, tags):
    run = start(process.pid, tags)
    assert run_worker(instance, run).state is WorkerState.ALIVE
    assert reap_orphans(instance) == []
    ended(process)
    ((reaped, reason),) = reap_orphans(instance)
    assert reaped.run_id == run.run_id
    assert reason == f"its process on {socket.gethostname()} (pid {process.pid}) is gone"
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert reap_orphans(instance) == []


def test_a_killed_run_counts_as_one_to_retry(instance, start, process):
    """Only what failed by itself would fail again."""
    run = start(ended(process))
    reap_orphans(instance)
    assert instance.get_run_by_id(run.run_id).tags["dagster/failure_reason"] == "UNEXPECTED_TERMINATION"


def test_a_run_of_another_host_is_left_alone(instance, start, process):
    run = start(ended(process), {HOST_TAG: "another-machine"})
    worker = run_worker(instance, run)
    assert worker.state is WorkerState.UNKNOWN
    assert worker.reason.startswith("it was launched on another-machine, this is ")
    assert reap_orphans(instance) == []


def test_a_run_of_an_unknown_host_is_left_alone_where_storage_is_shared(process):
    with dg.DagsterInstance.ephemeral() as shared:
        run = dg.DagsterRun(job_name="toy", status=dg.DagsterRunStatus.STARTED)
        shared.add_run(run)
        pid = ended(process)
        shared.report_engine_event("Started process", run, EngineEventData.in_process(pid))
        assert run_worker(shared, run).state is WorkerState.UNKNOWN
        assert reap_orphans(shared) == []


def test_a_process_that_began_after_the_report_is_another_one(instance, start, process, monkeypatch):
    """Pids are used again."""
    run = start(process.pid)
    monkeypatch.setattr("ml_platform.processes.table.started_at", lambda pid: time.time() + 60)
    assert run_worker(instance, run).state is WorkerState.GONE


def test_a_run_that_is_just_being_started_is_left_alone(instance, start, tmp_path, monkeypatch):
    """Its process is there and has not reported: a code server spawns it so."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    run = start(None, status=dg.DagsterRunStatus.STARTING)
    spawn = [sys.executable, "-c", "import time; time.sleep(300)", "--multiprocessing-fork"]
    with subprocess.Popen(spawn) as starting:
        while "--multiprocessing-fork" not in _command(starting.pid):
            time.sleep(0.02)
        assert run_worker(instance, run).state is WorkerState.UNKNOWN
        assert reap_orphans(instance) == []
        starting.kill()
    assert [reaped.run_id for reaped, _ in reap_orphans(instance)] == [run.run_id]


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def test_a_run_that_was_being_canceled_is_canceled(instance, start, process):
    run = start(ended(process), status=dg.DagsterRunStatus.CANCELING)
    assert len(reap_orphans(instance)) == 1
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED


def test_steps_that_outlived_their_run_are_ended_before_its_retry(instance, start, process, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    start(ended(process))
    # A step of a fork server whose parent has ended: it belongs to no process of this home any more.
    program = "import time; time.sleep(300)  # from multiprocessing.forkserver import main"
    # It must not hold our pipes: who waits for their end would wait for the step.
    start_it = "subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    code = f"import subprocess, sys; program = {program!r}; print({start_it}.pid)"
    step = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert started(step) is not None
    assert len(reap_orphans(instance)) == 1
    assert started(step) is None


def test_monitoring_asks_the_launcher_about_the_process(instance, start, process):
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    run = start(process.pid)
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    ended(process)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.FAILED
    elsewhere = start(os.getpid(), {HOST_TAG: "another-machine"})
    assert launcher.check_run_worker_health(elsewhere).status is WorkerStatus.RUNNING
