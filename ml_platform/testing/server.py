"""The project's own serving app as a process on a free port of this machine, over a home of the tests."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.project import VARIABLE as PROJECT
from ml_platform.project import current_project
from ml_platform.settings import Settings

PATIENCE = 180  # seconds until it answers: a busy machine needs more than one, what hangs fails all the same
_APP = "ML_PLATFORM_SERVING_APP"
_ELSEWHERE = ("ML_PLATFORM_SERVING_", "ML_PLATFORM_ALERT_", "OTEL_")  # keys, hosts, alerts, traces: not for a test
_LAST_LINES = 20


@dataclass(frozen=True)
class RunningServer:
    """A server that answers."""

    url: str
    log: Path

    def predict(self, model: str, rows: Sequence[Mapping[str, Any]], *, one: bool = False) -> list[dict[str, Any]]:
        """Ask for predictions with the features that they were made from: in one request, or one request per row.

        Raises
        ------
        AssertionError
            If the server refuses the request, with its answer.
        """
        bodies = [dict(row) for row in rows] if one else [{"rows": [dict(row) for row in rows]}]
        return [answer for body in bodies for answer in self._ask(model, body)]

    def _ask(self, model: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"{self.url}/predict/{model}?features=true", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _open(request) as response:
                predictions: list[dict[str, Any]] = json.load(response)["predictions"]
                return predictions
        except urllib.error.HTTPError as error:
            raise AssertionError(
                f"model '{model}': wanted the server to answer rows that batch scoring scores, found {error.code}: "
                f"{error.read().decode()}\n{_tail(self.log)}"
            ) from error


@contextmanager
def running_server(settings: Settings) -> Iterator[RunningServer]:
    """Run `python -m ml_platform.serving` with the project's app until the block ends.

    Raises
    ------
    AssertionError
        If it ends by itself or does not get ready, with its last lines.
    """
    project, log = current_project(), settings.home / "server.log"
    environment = {name: value for name, value in os.environ.items() if name == _APP or not name.startswith(_ELSEWHERE)}
    for name in Settings.model_fields:
        environment.pop(f"ML_PLATFORM_{name.upper()}", None)
    environment |= {PROJECT: str(project.root), "ML_PLATFORM_HOME": str(settings.home)}
    command = [sys.executable, "-m", "ml_platform.serving", "--port", "0", "--log-level", "warning"]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        url = _address(process, log)
        _await_ready(process, url, log)
        yield RunningServer(url, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("serving: http://"):
        process.wait(timeout=60)
        raise AssertionError(f"wanted the serving app to start, found that it ended: {line}\n{_tail(log)}")
    return line.split()[1]


def _await_ready(process: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline, answer = time.monotonic() + PATIENCE, "none"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"wanted the serving app to answer, found that it ended\n{_tail(log)}")
        try:
            with _open(f"{url}/health/ready"):
                return
        except urllib.error.HTTPError as error:
            answer = error.read().decode()
        except OSError as error:
            answer = str(error)
        time.sleep(0.05)
    raise AssertionError(
        f"wanted the serving app to be ready within {PATIENCE} s, found its last answer: {answer}\n{_tail(log)}"
    )


def _open(request: str | urllib.request.Request) -> Any:
    """Open a URL of this machine, past any proxy that the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return "\n".join(["The server's last lines:", *lines]) if lines else "The server wrote nothing."
