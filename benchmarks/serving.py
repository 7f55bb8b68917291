"""What a prediction costs: CPU time per request of the real server beside a bare FastAPI echo on the same uvicorn.

    python benchmarks/serving.py [--rounds 5] [--requests 4000]

Both servers run as `uvicorn` with uvloop and httptools, one worker each, one after the other in alternating rounds
under the same load: eight connections that wait for each answer. The echo takes a JSON object as a `dict` and gives it
back. Ours does what users get: validation, derived features, three online look-ups in SQLite, 300 LightGBM trees,
metrics, and a logged record per answer; a second model takes 30 features of the request and looks nothing up. The
figure is the server process' CPU time (user and system) per request, so a busy machine disturbs it little. Two workers
are set against one by requests per second under a load of 32 connections, whose generator runs on the same cores.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import uvloop
from _results import write_section

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.inference.scorer import Scorer  # noqa: E402
from ml_platform.registry.digests import model_digest  # noqa: E402
from ml_platform.registry.manifest import Feature, Golden, Input, Manifest, Target  # noqa: E402
from ml_platform.registry.releases import ReleaseStore  # noqa: E402
from ml_platform.settings import Settings  # noqa: E402
from ml_platform_tests.serving import releases  # noqa: E402

CONNECTIONS = 8
MANY = {10: 2, 100: 8, 1_000: 40, 10_000: 160}  # rows of a request, and how many times fewer requests are sent
NUMBERS, STRINGS = 25, 5
ECHO = """
from typing import Any
from fastapi import FastAPI
app = FastAPI()

@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    return body
"""


def main() -> None:
    """Measure, print, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="per round and server")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(home=home)
        releases.fill_online_store(settings)
        releases.publish(settings, 1, graph=boosted_graph(), family="lightgbm")
        (home / "echo_app.py").write_text(ECHO)
        publish_plain(settings)
        (home / "echo_app.py").write_text(ECHO)
        rows = flight_rows()
        one = [msgspec.json.encode(row) for row in rows[:200]]
        plain = [msgspec.json.encode(row) for row in plain_rows()]
        loads = {"30 features": ("/predict/plain", plain, 1), "one row": ("/predict/flight_delay", one, 1)}
        for count, fewer in MANY.items():
            body = msgspec.json.encode({"rows": rows[:count]})
            loads[f"{count:,} rows"] = ("/predict/flight_delay", [body], fewer)
        ours = [sys.executable, "-m", "serving", "--port"]
        echo = [sys.executable, "-m", "uvicorn", "echo_app:app", "--app-dir", folder, "--no-access-log", "--port"]
        with server(echo, 8391, home) as (echo_process, _), server(ours, 8392, home) as (our_process, ready):
            rounds = [
                {
                    f"{kind}, {name}": measure(process, port, path, bodies, options.requests // fewer)
                    for name, (ours_at, bodies, fewer) in loads.items()
                    for kind, process, port, path in (
                        ("echo", echo_process, 8391, "/echo"),
                        ("ours", our_process, 8392, ours_at),
                    )
                }
                for _ in range(options.rounds + 1)
            ][1:]  # the first one warms up
            memory = our_process.memory_info().rss / 2**20
        speed = workers(ours, home, one, options.requests * 4)
    gain = statistics.median(two / alone for alone, two in speed)
    lines = [
        *table(rounds),
        "",
        f"Memory of the worker after the run: {memory:.0f} MiB. Ready {ready:.1f} s after its start.",
        f"Requests per second, one row with 3 views: {statistics.median(alone for alone, _ in speed):,.0f} with one "
        f"worker, {statistics.median(two for _, two in speed):,.0f} with two ({gain:.2f} times), the load generator on "
        "the same two cores.",
    ]
    print("\n".join(lines))
    if not options.no_write:
        packages = ("fastapi", "uvicorn", "uvloop", "msgspec", "onnxruntime")
        write_section("Serving one row", "python benchmarks/serving.py", lines, packages=packages)


def table(rounds: list[dict[str, tuple[float, list[float]]]]) -> list[str]:
    """Markdown table of medians, ratios taken within each round, latencies of all rounds together."""
    lines = [
        "| request | CPU µs per request | times the echo | p50 ms under load | p99 ms |",
        "|---|---|---|---|---|",
    ]
    for name in rounds[0]:
        cpu = statistics.median(found[name][0] for found in rounds)
        p50, p99 = np.percentile([latency for found in rounds for latency in found[name][1]], (50, 99)) * 1e3
        base = "echo, " + name.partition(", ")[2]
        ratio = statistics.median(found[name][0] / found[base][0] for found in rounds)
        lines.append(f"| {name} | {cpu * 1e6:,.0f} | {ratio:.2f} | {p50:.2f} | {p99:.2f} |")
    return lines


def flight_rows() -> list[dict[str, Any]]:
    """Rows of flights that leave at different times from two airports with three carriers."""
    start = datetime(2013, 7, 1, 10, 30, tzinfo=UTC)
    pairs = itertools.cycle(itertools.product(("EWR", "JFK"), releases.CARRIERS))
    return [
        {
            **releases.ROW,
            "flight_id": str(number),
            "origin": origin,
            "carrier": carrier,
            "distance": 200 + number % 5_000,
            "scheduled_departure": (start + timedelta(minutes=number)).isoformat(),
            "scheduled_arrival": (start + timedelta(minutes=number + 210)).isoformat(),
        }
        for number, (origin, carrier) in zip(range(max(MANY)), pairs, strict=False)
    ]


def plain_rows() -> list[dict[str, Any]]:
    """Rows of 25 numbers and 5 strings."""
    random = np.random.default_rng(1)
    numbers = random.normal(size=(200, NUMBERS)).round(4).tolist()
    return [
        {
            **{f"number_{position}": value for position, value in enumerate(row)},
            **{f"category_{position}": f"value {random.integers(20)}" for position in range(STRINGS)},
        }
        for row in numbers
    ]


def publish_plain(settings: Settings) -> None:
    """Release a model `plain` of 300 trees over 30 features that all come with the request."""
    names = [f"number_{position}" for position in range(NUMBERS)]
    strings = [f"category_{position}" for position in range(STRINGS)]
    categories = tuple(f"value {number}" for number in range(20))
    features = [Feature(name=name, kind="numeric", source="input") for name in names]
    features += [Feature(name=name, kind="categorical", source="input", categories=categories) for name in strings]
    graph = boosted_graph(NUMBERS + STRINGS)
    manifest = msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest)
    manifest = msgspec.structs.replace(
        manifest,
        model="plain",
        id=None,
        as_of=None,
        inputs=tuple(
            [Input(name=name, type="number") for name in names] + [Input(name=name, type="string") for name in strings]
        ),
        derived=(),
        lookups=(),
        features=tuple(features),
    )
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(graph, manifest))
    scorer = Scorer(manifest, graph)
    row = plain_rows()[0]
    golden = Golden(
        inputs=(row,),
        looked_up=({},),
        matrix=(tuple(scorer.matrix_row(row)),),
        scores=(scorer.score_row(row),),
    )
    store = ReleaseStore(settings.releases_dir)
    files = {"manifest.json": msgspec.json.encode(manifest), "model.onnx": graph}
    digest = store.put_bundle({**files, "golden.json": msgspec.json.encode(golden)})
    store.publish("plain", [Target(version=1, digest=digest)], reason="benchmark", by="benchmark")


def workers(command: list[str], home: Path, bodies: Sequence[bytes], requests: int) -> list[tuple[float, float]]:
    """Requests per second with one worker and with two, three times each, in turns."""
    found = []
    for _ in range(3):
        pair = []
        for count in (1, 2):
            with server([*command[:-1], "--workers", str(count), "--port"], 8393, home):
                for measured in (False, True):  # the first run warms up
                    started = time.perf_counter()
                    uvloop.run(load(8393, "/predict/flight_delay", bodies, requests if measured else 2000, 32))
                pair.append(requests / (time.perf_counter() - started))
        found.append((pair[0], pair[1]))
    return found


def boosted_graph(width: int = len(releases.features())) -> bytes:
    """300 LightGBM trees over the columns of the tests' model, or so many others, as training exports them."""
    from lightgbm import LGBMClassifier
    from sklearn.pipeline import Pipeline

    from ml_platform.training.export import export_onnx

    random = np.random.default_rng(0)
    X = random.normal(size=(20_000, width)) * 20
    y = (X[:, 1] + X[:, 5] * X[:, 9] / 20 + random.normal(size=len(X)) * 10) > 0
    model = LGBMClassifier(n_estimators=300, num_leaves=31, verbosity=-1, random_state=0).fit(X, y)
    return export_onnx(Pipeline([("model", model)]), "binary", width)


@contextmanager
def server(command: list[str], port: int, home: Path) -> Iterator[tuple[psutil.Process, float]]:
    """Run a server until the block ends; also gives the seconds it took to listen and be ready."""
    started = time.perf_counter()
    environment = {**os.environ, "ML_PLATFORM_HOME": str(home)}
    process = subprocess.Popen([*command, str(port)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield psutil.Process(process.pid), time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a port answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with code {process.returncode}: is port {port} taken?")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).close()
        except urllib.error.HTTPError:
            return  # the echo has no such page, but answers
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"no server on port {port} after 30 seconds")


def measure(
    process: psutil.Process, port: int, path: str, bodies: Sequence[bytes], requests: int
) -> tuple[float, list[float]]:
    """CPU seconds per request of a server, and all latencies in seconds."""
    before = process.cpu_times()
    latencies = uvloop.run(load(port, path, bodies, requests))
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / len(latencies), latencies


async def load(
    port: int, path: str, bodies: Sequence[bytes], requests: int, connections: int = CONNECTIONS
) -> list[float]:
    """Latencies of all requests, sent by several connections at once."""
    loop = asyncio.get_running_loop()
    messages = [_message(path, body) for body in bodies]
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(itertools.cycle(messages), max(requests // connections, 1)), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return [latency for client in clients for latency in client.latencies]


def _message(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


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


if __name__ == "__main__":
    main()
