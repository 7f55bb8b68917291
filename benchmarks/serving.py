"""What a prediction costs: CPU time per request of the real server beside a bare FastAPI echo on the same uvicorn.

    python benchmarks/serving.py [--rounds 5] [--requests 4000] [--only many]

Both servers run as `uvicorn` with uvloop and httptools, one worker each, one after the other in alternating rounds
under the same load: eight connections that wait for each answer. The echo takes a JSON object as a `dict` and gives it
back. Ours does what users get: an API key that is checked and a line in the audit log, validation, derived features,
three online look-ups in SQLite, 300 LightGBM trees, metrics, and a logged record per answer; a second model takes 30
features of the request and looks nothing up. The figure is the server process' CPU time (user and system) per request,
so a busy machine disturbs it little.

Requests of many rows are set beside the sum of what they cannot do without: an echo of the same body, and ONNX Runtime
alone on the same matrix, on one thread of a process of its own in the same turns.

Two workers are set against one under `wrk` (`apt install wrk`). On two cores the generator takes a share of them, so
two ratios are told: that of the requests per second as they came, and that of the requests that the workers could
answer if each had a core of its own, which is their number divided by the CPU time that they took for a request.
"""

import argparse
import base64
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import _wrk
import msgspec
import numpy as np
from _load import ECHO, Cost, Server, message, server
from _plain_model import boosted_graph, plain_rows, publish_plain
from _results import write_section

from ml_platform.governance.keys import KeyStore
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving import releases

PARTS = {"10 rows": 10, "100 rows": 100, "1,000 rows": 1_000, "10,000 rows": 10_000}
MANY = {10: 2, 100: 8, 1_000: 40, 10_000: 160}  # rows of a request, and how many times fewer requests are sent
WANTED = {"30 features": 1.0, "one row": 1.6, "100 rows of 30 features": 2.0}
WANTED_PARTS = 1.4  # times echo and ONNX Runtime
WANTED_MIB, WANTED_SECONDS, WANTED_WORKERS = 150, 2, 1.8
WARM_SECONDS, LOAD_SECONDS = 2, 6


BARE_ONNX = """
import sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
run = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"]).run
matrix = numpy.load(sys.stdin.readline().strip())
print(flush=True)
for line in sys.stdin:
    rows, requests = map(int, line.split())
    some = matrix[:rows].copy()
    before = time.process_time()
    for _ in range(requests):
        run(["score"], {"X": some})
    print(time.process_time() - before, flush=True)
"""


class Workers(NamedTuple):
    """What some workers did under `wrk`."""

    speed: float  # requests per second
    cpu: float  # of the workers, seconds per request
    generator: float  # its CPU seconds per request


def main() -> None:
    """Measure, print, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="per round and server")
    parser.add_argument("--only", choices=["many"], help="measure only requests of many rows")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    _wrk.find()  # before minutes are spent on what comes first
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        releases.fill_online_store(settings)
        releases.publish(settings, 1, graph=boosted_graph(), family="lightgbm")
        publish_plain(settings)
        (settings.home / "echo_app.py").write_text(ECHO)
        _, token = KeyStore(settings.keys_dir).create("benchmark", roles=["predict"])
        lines = one_worker(settings, token, options)
        if options.only is None:
            lines += ["", *two_workers(settings, token)]
        lines += ["", f"The load average was {os.getloadavg()[0]:.0f} at the end, on {os.cpu_count()} cores."]
    print("\n".join(lines))
    if not options.no_write and options.only is None:
        packages = ("fastapi", "uvicorn", "uvloop", "msgspec", "onnxruntime")
        write_section("Serving one row", "python benchmarks/serving.py", lines, packages=packages)


def one_worker(settings: Settings, token: str, options: argparse.Namespace) -> list[str]:
    """Beside the echo, in turns."""
    rows = flight_rows()
    plain, fewer = plain_rows(), MANY[100]
    bodies = {
        "30 features": ("plain", [msgspec.json.encode(row) for row in plain], options.requests),
        "100 rows of 30 features": ("plain", [msgspec.json.encode({"rows": plain[:100]})], options.requests // fewer),
        "one row": (releases.MODEL, [msgspec.json.encode(row) for row in rows[:200]], options.requests),
    }
    for count, fewer in MANY.items():
        body = msgspec.json.encode({"rows": rows[:count]})
        bodies[f"{count:,} rows"] = (releases.MODEL, [body], options.requests // fewer)
    if options.only == "many":
        bodies = {name: bodies[name] for name in ("100 rows", "1,000 rows")}
    headers = f"Authorization: Bearer {token}\r\n"
    uvicorn = [sys.executable, "-m", "uvicorn", "echo_app:app", "--app-dir", str(settings.home), "--no-access-log"]
    environment = {"ML_PLATFORM_HOME": str(settings.home)}
    echo_server = server([*uvicorn, "--port", "{port}"], ready="/docs")
    with echo_server as echo, server(our_command(1), environment) as ours, BareOnnx(settings) as onnx:
        most = msgspec.json.encode({"rows": rows[: max(PARTS.values())]})
        onnx.take(logged_matrix(settings, ours, message(f"/predict/{releases.MODEL}", most, headers)))
        rounds = []
        for _ in range(options.rounds + 1):
            found: dict[str, Cost] = {}
            for name, (model, sent, requests) in bodies.items():
                found[f"echo, {name}"] = echo.measure([message("/echo", body) for body in sent], requests)
                messages = [message(f"/predict/{model}", body, headers) for body in sent]
                if name in PARTS:
                    found[f"ONNX Runtime, {name}"] = onnx.measure(PARTS[name], requests)
                found[f"ours, {name}"] = ours.measure(messages, requests)
            rounds.append(found)
        memory = ours.memory()
    return [
        *table(rounds[1:]),  # the first one warms up
        "",
        f"Memory of the worker after the run: {memory:.0f} MiB ({verdict(memory, WANTED_MIB, most=True)}). Ready "
        f"{ours.ready:.1f} s after its start, of which {ours.started_cpu:.1f} s on the CPU "
        f"({verdict(ours.ready, WANTED_SECONDS, most=True)}).",
    ]


def two_workers(settings: Settings, token: str) -> list[str]:
    """Two workers against one, three times in turns."""
    bodies = [msgspec.json.encode(row) for row in flight_rows()[:200]]
    pairs = [[load_workers(count, settings, token, bodies) for count in (1, 2)] for _ in range(3)]
    one, two = (
        Workers(*(statistics.median(pair[side][unit] for pair in pairs) for unit in range(3))) for side in (0, 1)
    )
    capacity = statistics.median(2 * alone.cpu / both.cpu for alone, both in pairs)
    speed = statistics.median(both.speed / alone.speed for alone, both in pairs)
    return [
        f"One row with 3 views under wrk: {one.speed:,.0f} requests a second with one worker, {two.speed:,.0f} with "
        f"two ({speed:.2f} times), the generator on the same two cores, of which it takes {two.generator * 1e6:.0f} µs "
        f"a request beside the workers' {two.cpu * 1e6:.0f} (one worker: {one.cpu * 1e6:.0f}). By that CPU time two "
        f"workers with a core each answer {capacity:.2f} times as much as one ({verdict(capacity, WANTED_WORKERS)}).",
    ]


def load_workers(count: int, settings: Settings, token: str, bodies: Sequence[bytes]) -> Workers:
    """Start so many workers and load them."""
    with server(our_command(count), {"ML_PLATFORM_HOME": str(settings.home)}) as running:
        url = f"http://127.0.0.1:{running.port}/predict/{releases.MODEL}"
        _wrk.blast(url, bodies, token, WARM_SECONDS)
        before = running.cpu()
        done = _wrk.blast(url, bodies, token, LOAD_SECONDS)
        used = running.cpu() - before
    return Workers(done.requests / done.seconds, used / done.requests, done.cpu / done.requests)


def our_command(workers: int) -> list[str]:
    """The server as people run it."""
    return [sys.executable, "-m", "ml_platform.serving", "--workers", str(workers), "--port", "{port}"]


def table(rounds: Sequence[dict[str, Cost]]) -> list[str]:
    """Markdown table of medians, ratios taken within each round."""
    lines = ["| request | CPU µs per request | times the echo | times echo and ONNX Runtime | wanted | p50 ms | p99 |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name in rounds[0]:
        cpu, p50, p99, _ = (statistics.median(found[name][unit] for found in rounds) for unit in range(4))
        kind = name.partition(", ")[2]
        ratio = statistics.median(found[name].cpu / found[f"echo, {kind}"].cpu for found in rounds)
        aim = verdict(ratio, WANTED[kind], most=True) if name.startswith("ours") and kind in WANTED else ""
        beside, latency = "", f"{p50 * 1e3:.2f} | {p99 * 1e3:.2f}"
        if name.startswith("ours") and kind in PARTS:
            parts = statistics.median(
                found[name].cpu / (found[f"echo, {kind}"].cpu + found[f"ONNX Runtime, {kind}"].cpu) for found in rounds
            )
            beside = f"{parts:.2f}"
            aim = verdict(parts, WANTED_PARTS, most=True) if kind in ("100 rows", "1,000 rows") else ""
        if name.startswith("ONNX"):
            latency = " | "
        lines.append(f"| {name} | {cpu * 1e6:,.0f} | {ratio:.2f} | {beside} | {aim} | {latency} |")
    return lines


class BareOnnx:
    """ONNX Runtime alone, in a process of its own, on the matrix that the server makes of the flights."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> "BareOnnx":
        [target] = ReleaseStore(self._settings.releases_dir).endpoint(releases.MODEL).targets
        graph = self._settings.releases_dir / "bundles" / target.digest / "model.onnx"
        assert graph.is_file()
        self._process = subprocess.Popen(
            [sys.executable, "-c", BARE_ONNX, graph], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def take(self, matrix: np.ndarray) -> None:
        """Give the process its rows."""
        path = self._settings.home / "matrix.npy"
        np.save(path, matrix)
        self._say(path)

    def measure(self, rows: int, requests: int) -> Cost:
        """Score the first rows so often."""
        return Cost(*[float(self._say(f"{rows} {requests}")) / requests] * 4)

    def _say(self, line: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def logged_matrix(settings: Settings, server: Server, request: bytes) -> np.ndarray:
    """Send a request of many rows, and read from the log what the model saw."""
    server.measure([request], 1)
    lines = [
        line
        for file in (settings.inference_log_dir / releases.MODEL).glob("*.jsonl")
        for line in file.read_bytes().splitlines()
        if line.startswith(b'{"batch"')
    ]
    batch = msgspec.json.decode(lines[-1])
    return np.frombuffer(base64.b64decode(batch["matrix"]), "<f8").reshape(batch["batch"], -1)


def verdict(found: float, wanted: float, *, most: bool = False) -> str:
    """What was wanted, at least or at most, and whether it was missed."""
    missed = found > wanted if most else found < wanted
    return f"{'≤' if most else '≥'} {wanted:g}" + (", missed" if missed else "")


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


if __name__ == "__main__":
    main()
