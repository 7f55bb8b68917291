"""A Ray Serve of the tests' own, as `python -m ml_platform.serving.ray_app` runs the delivered configuration."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from ml_platform.serving.ray_app import default_config
from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port
from ml_platform_tests.process_tree import the_descendant
from ml_platform_tests.serving.conftest import Server, client_of

Config = dict[str, Any]


@dataclass
class RayServer(Server):
    """A Ray Serve of our own and a client for it."""

    config_file: Path
    states_file: Path

    def replicas(self) -> dict[str, int]:
        """How many replicas are in which state."""
        assert self.process.poll() is None, "Ray has ended; what it said is in the test's output"
        return json.loads(self.states_file.read_text()) if self.states_file.exists() else {}

    def replica(self) -> psutil.Process:
        """The process of the one replica."""
        return the_descendant(self.process.pid, "ServeReplica")

    def wait_for_replicas(self, count: int) -> None:
        self.wait_until(lambda _: self.replicas() == {"RUNNING": count}, 600)


def deployment_of(config: Config) -> Config:
    """The part of a configuration about the replicas."""
    [deployment] = config["applications"][0]["deployments"]
    return deployment


@contextmanager
def ray_server(
    settings: Settings, change: Callable[[Config], object], environment: Mapping[str, str] | None = None
) -> Iterator[RayServer]:
    """Run the delivered configuration, changed for a test and on another port, until one replica is there."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets need a short path
    config = yaml.safe_load(default_config().read_text())
    port = config["http_options"]["port"] = free_port()
    deployment_of(config)["ray_actor_options"]["num_cpus"] = 0.1
    change(config)
    config_file, states_file = folder / "config.yaml", folder / "states.json"
    config_file.write_text(yaml.safe_dump(config))
    own = {
        **os.environ,
        "ML_PLATFORM_HOME": str(settings.home),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        "TMPDIR": str(folder),
        **(environment or {}),
    }
    own.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "ml_platform_tests.serving.ray_server", str(config_file), str(states_file)]
    process = subprocess.Popen(command, env=own, cwd=PROJECT_ROOT, text=True)
    url = f"http://127.0.0.1:{port}"
    server = RayServer(process, url, client_of(url), config_file, states_file)
    try:
        server.wait_for_replicas(1)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
