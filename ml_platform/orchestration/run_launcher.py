"""Launches runs on the project's code server and can tell whether their processes live, so that monitoring can act."""

import socket

from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun

from ml_platform.orchestration.run_workers import (
    HOST_TAG,
    IN_PROGRESS,
    WorkerState,
    end_orphaned_steps,
    mark_killed,
    run_worker,
)


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, which notes the host and looks after the process; named in `dagster.yaml`."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Note on which host the run is launched, then launch it, once no step of a killed run works on.

        The code server fails a run that was killed within a second, so its retry may be here before its steps ended.
        """
        end_orphaned_steps()
        self._instance.add_run_tags(context.dagster_run.run_id, {HOST_TAG: socket.gethostname()})
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes, unlike Dagster's own: a killed run is noticed within a poll of the monitoring."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look for the run's process; monitoring fails a run only when it is known to be gone."""
        worker = run_worker(self._instance, run)
        if worker.state is not WorkerState.GONE:
            return CheckRunHealthResult(WorkerStatus.RUNNING, worker.reason)
        end_orphaned_steps()
        current = self._instance.get_run_by_id(run.run_id)
        if current is not None and current.status in IN_PROGRESS:  # else it came to its end meanwhile, and then ended
            mark_killed(self._instance, current, worker)
        return CheckRunHealthResult(WorkerStatus.FAILED, worker.reason)
