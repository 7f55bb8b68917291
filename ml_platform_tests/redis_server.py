"""A real Redis server for the tests and benchmarks that need one."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ml_platform_tests.needs import program
from ml_platform_tests.ports import free_port


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis of this session's own, in memory, on a free port of the loopback."""
    program("redis-server", package="redis-server")
    with running_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """Run a Redis in memory on a free port of the loopback until the block ends; gives its address."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait_until_up(port, folder / "log")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@pytest.fixture
def redis_uri(redis_server: str) -> str:
    """The server's address; it is empty when the test begins.

    On a busy machine it may take longer to answer than the second that a store allows for a read.
    """
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return f"{redis_server}?socket_timeout=60"


def _wait_until_up(port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
        except redis.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"redis-server did not answer within 120 s; its log: {log.read_text()}")
