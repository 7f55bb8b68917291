"""Dagster's webserver as a process of its own, with one small code location."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ml_platform.processes.runner import Process
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port

GREETING = """
import dagster as dg

@dg.asset
def greeting() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"said": "hello from the asset"})

defs = dg.Definitions(assets=[greeting], jobs=[dg.define_asset_job("hello", selection=[greeting])],
                      executor=dg.in_process_executor)
"""


@dataclass(frozen=True)
class Dagster:
    """A webserver with one small code location, and its instance."""

    port: int
    instance: dg.DagsterInstance

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def ask(self, query: str) -> dict[str, Any]:
        """Ask by GraphQL, as the UI does."""
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    @property
    def runs(self) -> int:
        return self.instance.get_runs_count()


def serve(
    folder: Path,
    command: str,
    *,
    runs_at_once: bool = False,
    code: str = GREETING,
    prefix: str = "",
    **variables: str,
) -> Iterator[Dagster]:
    """Start a webserver. There is no daemon, so runs stay in the queue unless they are launched at once."""
    config: dict[str, dict[str, object]] = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
    if runs_at_once:
        config["run_coordinator"] = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    (folder / "small.py").write_text(code)
    location = {"python_file": {"relative_path": "small.py", "location_name": "small"}}
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [location]}))
    port = free_port()
    program = [command, "-w", str(folder / "workspace.yaml"), "--port", str(port)]
    environment = {**os.environ, "DAGSTER_HOME": str(folder), "DO_NOT_TRACK": "1", **variables}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *program], cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            probe = Process("dagster", program, port=port, ready_path=f"{prefix}/server_info")
            while not probe.answers():
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            with dg.DagsterInstance.from_config(str(folder)) as instance:
                yield Dagster(port, instance)
        finally:
            server.terminate()
            server.wait(timeout=60)
