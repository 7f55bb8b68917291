"""Servers under load on the loopback: starting them, asking them over a few connections, and what that costs them."""

import asyncio
import itertools
import os
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import uvloop

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 8
_PATIENCE = 240  # seconds that a server may take to be ready
ECHO = """
from typing import Any
from fastapi import FastAPI
app = FastAPI()

@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    return body
"""  # the app that others are measured beside


class Cost(NamedTuple):
    """What requests took, in seconds."""

    cpu: float  # of the server's processes, per request
    p50: float
    p99: float
    elapsed: float  # per request, all connections together


@dataclass
class Server:
    """A running server with whatever processes it has started."""

    process: psutil.Process
    port: int
    ready: float  # seconds from its start to its first answer
    started_cpu: float  # seconds of CPU time that its start took

    def tree(self) -> list[psutil.Process]:
        """All of its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds, user and system, of all processes so far."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self.tree()))

    def memory(self) -> float:
        """MiB of all processes; a page that several share counts as a part in each."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 2**20

    def measure(self, messages: Sequence[bytes], requests: int) -> Cost:
        """Ask so often over a few connections that wait for each answer."""
        before, started = self.cpu(), time.perf_counter()
        latencies = sorted(uvloop.run(load(self.port, messages, requests)))
        elapsed = time.perf_counter() - started
        used, count = self.cpu() - before, len(latencies)
        return Cost(used / count, statistics.median(latencies), latencies[int(count * 0.99)], elapsed / count)


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    ready: str = "/health/ready",
    port: int | None = None,
) -> Iterator[Server]:
    """Run a server until the block ends; `{port}` in its command and environment becomes `port`, or a free one."""
    port = port or free_port()
    arguments = [part.replace("{port}", str(port)) for part in command]
    changed = {name: value.replace("{port}", str(port)) for name, value in (environment or {}).items()}
    started = time.perf_counter()
    quiet = {**os.environ, "DO_NOT_TRACK": "1", **changed}
    process = subprocess.Popen(arguments, cwd=ROOT, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process, ready)
        running = Server(psutil.Process(process.pid), port, time.perf_counter() - started, 0.0)
        running.started_cpu = running.cpu()
        yield running
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", page: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with code {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5).close()
        except OSError:  # an answer that is an error, too
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args}: it was not ready on port {port} after {_PATIENCE} s")


def message(path: str, body: bytes, headers: str = "") -> bytes:
    """Write a POST request; `headers` end in a line break each."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def load(port: int, messages: Sequence[bytes], requests: int, connections: int = CONNECTIONS) -> list[float]:
    """Latencies of all requests, sent by several connections at once."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(itertools.cycle(messages), max(requests // connections, 1)), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return [latency for client in clients for latency in client.latencies]


class Client(asyncio.Protocol):
    """Sends one request after another on one connection."""

    def __init__(self, messages: Iterator[bytes], count: int) -> None:
        self.messages = messages
        self.left = count
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Start."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the next request."""
        self.started = time.perf_counter()
        self.transport.write(next(self.messages))

    def data_received(self, data: bytes) -> None:
        """Collect an answer; when it is whole, go on."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        if not head.startswith(b"http/1.1 200"):
            self.done.set_exception(RuntimeError(self.buffer.decode()))
            self.transport.close()
            return
        self.buffer = b""
        self.latencies.append(time.perf_counter() - self.started)
        self.left -= 1
        if self.left:
            self.send()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """A server that hangs up before its answer has failed."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection before it answered"))
