"""A server as people run it: `python -m ml_platform.serving` on a free loopback port."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.serving.protocols.two_rows import ROWS
from ml_platform_tests.serving.releases import MODEL, fill_online_store, publish


@dataclass
class Server:
    """A running server process and a client for it."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client

    def stop(self, sign: int = signal.SIGTERM) -> str:
        """End it and give what it printed to stderr."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.communicate(timeout=120)[1]

    def wait_until(self, condition: Callable[[httpx.Client], bool], seconds: float = 120.0) -> None:
        """Wait until a condition holds, however busy the machine is; what never comes true fails."""
        deadline = time.monotonic() + seconds
        while not condition(self.client):
            assert time.monotonic() < deadline, f"the server did not get there within {seconds:g} s"
            time.sleep(0.02)


def client_of(url: str) -> httpx.Client:
    """A client that gives up an idle connection well before the server does, which would close it under a request."""
    return httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(keepalive_expiry=1))


def start_server(
    settings: Settings, *options: str, python: Path = Path(sys.executable), folder: Path = PROJECT_ROOT
) -> Server:
    """Start a server, with an environment's Python in a folder, and wait until it answers."""
    environment = {**os.environ, "ML_PLATFORM_HOME": str(settings.home)}
    command = [str(python), "-m", "ml_platform.serving", "--port", "0", "--log-level", "warning", *options]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving: http://"), process.communicate()[1]
    url = line.split()[1]
    server = Server(process, url, client_of(url))

    def live(client: httpx.Client) -> bool:
        try:
            return client.get("/health/live").status_code == 200
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[1]
            return False

    server.wait_until(live)
    return server


def answering(url: str) -> httpx.Response:
    """The first answer of a server that was just started."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return httpx.get(url, timeout=60)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)


def bearer(token: str) -> dict[str, str]:
    """The header that carries an API key or a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(settings: Settings, *options: str) -> Server:
        servers.append(start_server(settings, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings shared by the tests of one module."""
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    """A server that answers by version 3 of the tests' model, shared by the tests of one module."""
    fill_online_store(module_settings)
    publish(module_settings, 3)
    server = start_server(module_settings)
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> httpx.Client:
    """The client of the module's server."""
    return server.client


@pytest.fixture
def wanted(client: httpx.Client) -> list[dict[str, Any]]:
    """What our own route answers to the two rows."""
    found: list[dict[str, Any]] = client.post(f"/predict/{MODEL}", json={"rows": ROWS}).json()["predictions"]
    assert found[0]["probability"] != found[1]["probability"]
    return found
