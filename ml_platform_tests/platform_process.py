"""Dagster as `make dev` runs it, on a copy of the project with one small model: to start runs and to kill them."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.events import DagsterEventType

from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port

PATIENCE = 600  # seconds; a busy machine takes minutes, what hangs fails all the same
FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


@dataclass(frozen=True)
class RunningPlatform:
    """Code server, daemon and webserver over one home, and what a test asks and does there."""

    process: subprocess.Popen
    settings: Settings
    instance: dg.DagsterInstance
    port: int
    log: Path

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the condition's first value that is true; fail with the platform's last lines when none comes."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert self.process.poll() is None, f"the platform ended:\n{self.last_lines()}"
            assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}\n{self.last_lines()}"
            time.sleep(0.02)
        return value

    def last_lines(self) -> str:
        """The end of the platform's output, without the sensors that had nothing to do."""
        idle = ("Checking for new runs", " skipped: ")
        lines = [line for line in self.log.read_text().splitlines() if not any(words in line for words in idle)]
        return "\n".join(lines[-60:])

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask the webserver by GraphQL, as the UI does."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        address = f"http://127.0.0.1:{self.port}/graphql"
        with urllib.request.urlopen(
            urllib.request.Request(address, body, {"Content-Type": "application/json"}), timeout=120
        ) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def launch(self, job: str, config: dict[str, Any] | None = None) -> str:
        """Put a run of a job into the queue; return its id."""
        selector = {"repositoryLocationName": "ml_platform", "repositoryName": "__repository__", "jobName": job}
        data = self.ask(
            "mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename "
            "... on LaunchRunSuccess { run { runId } } ... on PythonError { message } "
            "... on RunConfigValidationInvalid { errors { message } } } }",
            params={"selector": selector, "runConfigData": config or {}},
        )["launchRun"]
        assert data["__typename"] == "LaunchRunSuccess", data
        return data["run"]["runId"]

    def events(self, run_id: str, kind: DagsterEventType) -> list[dg.DagsterEvent]:
        """What a run has reported of one kind, in order."""
        return [entry.get_dagster_event() for entry in self.instance.all_logs(run_id, of_type=kind)]

    def steps(self, run_id: str, kind: DagsterEventType) -> set[str]:
        """The steps of which a run has reported it."""
        return {event.step_key for event in self.events(run_id, kind) if event.step_key}

    def await_step(self, run_id: str, step: str, kind: DagsterEventType) -> None:
        """Wait until a run's log has the event of a step; a run that ends without it fails the test."""

        def reported() -> bool:
            ended = self.status(run_id) in FINISHED
            if step in self.steps(run_id, kind):
                return True
            assert not ended, f"run {run_id} ended as {self.status(run_id)} before {kind.value} of {step}"
            return False

        self.wait_until(reported, f"{kind.value} of {step} in run {run_id}")

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def await_end(self, run_id: str) -> dg.DagsterRunStatus:
        """Wait until a run has come to its end, and say to which."""
        self.wait_until(lambda: self.status(run_id) in FINISHED, f"the end of run {run_id}")
        return self.status(run_id)

    def worker(self, run_id: str) -> psutil.Process:
        """The process that executes a run, as the run itself reported it."""
        for event in self.events(run_id, DagsterEventType.ENGINE_EVENT):
            pid = event.engine_event_data.metadata.get("pid")
            if event.step_key is None and pid is not None and str(pid.value).isdigit():
                return psutil.Process(int(str(pid.value)))
        raise AssertionError(f"run {run_id} has not reported its process")

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts that were raised, oldest first."""
        file = self.settings.alerts_dir / "alerts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def copy_project(target: Path, models: dict[str, dict[str, str]]) -> Path:
    """Copy the project's own files; in place of its models and sources come these: folder → file → text."""
    for name in ("ml_platform", "serving"):
        shutil.copytree(PROJECT_ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "workspace.yaml", "README.md"):
        shutil.copy(PROJECT_ROOT / name, target)
    definitions = target.joinpath("ml_platform", "defs")
    for path in list(definitions.iterdir()):
        if path.is_dir() and path.name != "features":
            shutil.rmtree(path)
    for view in (definitions / "features").glob("*.sql"):
        view.unlink()
    for folder, files in models.items():
        (definitions / folder).mkdir()
        for name, text in files.items():
            (definitions / folder / name).write_text(text)
    return target


@contextmanager
def running_platform(project: Path, home: Path) -> Iterator[RunningPlatform]:
    """Run `make dev`'s Dagster on a copy of the project until the block ends."""
    settings, port, log = Settings(home=home), free_port(), home.with_suffix(".log")
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(settings.home),
        "PYTHONPATH": str(project),
        "ML_PLATFORM_ALERT_WEBHOOK_URL": "",
    }
    command = [sys.executable, "-m", "ml_platform.dev", "dagster", "--dagster-port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ctrl-C stops all of them." not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        with dg.DagsterInstance.from_config(str(settings.home / "dagster_home")) as instance:
            yield RunningPlatform(process, settings, instance, port, log)
    finally:
        process.terminate()
        process.wait(timeout=180)
