"""The server as a process: starting, ending, being killed, being several."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port
from ml_platform_tests.serving.conftest import Server, answering
from ml_platform_tests.serving.load import clients
from ml_platform_tests.serving.releases import ROW, fill_online_store, publish

PATH = "/predict/flight_delay"
ROOT = Path(__file__).parents[2]
Serve = Callable[..., Server]


@contextmanager
def asked(server: Server) -> Iterator[list[str]]:
    """Let clients ask until the block ends, whatever becomes of the server; the ids of what was answered."""
    answered: list[str] = []

    def ask(client: httpx.Client, request_id: str) -> None:
        headers = {"X-Request-ID": request_id, "Connection": "close"}  # so that every worker gets some
        try:
            answer = client.post(PATH, json=ROW, headers=headers)
        except httpx.TransportError:
            return  # cut off by a kill, so not answered
        assert answer.status_code == 200
        answered.append(answer.json()["request_id"])

    def load(worker: int, ended: threading.Event) -> None:
        number = 0
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not ended.wait(0.005):  # leaves the processor to the server and the ingest
                ask(client, f"{worker}-{number}")
                number += 1

    with clients(4, load):
        yield answered


def logged_once(lake: Lake, settings: Settings) -> set[str]:
    """Request ids in the lake's log, once the segments are taken up; each is there once."""
    ingest_log(lake, settings)
    ingest_log(lake, settings)
    logged = Counter(lake.read("inference_log/flight_delay").select("request_id").collect()["request_id"].to_list())
    assert max(logged.values()) == 1
    assert list(settings.inference_log_dir.glob("*/*.jsonl")) == []
    return set(logged)


def workers_of(server: Server) -> set[int]:
    """Process ids of the workers."""
    found = set()
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just been killed
            if "spawn_main" in str(child.cmdline()):
                found.add(child.pid)
    return found


def has_a_new_worker(server: Server, before: set[int], _client: httpx.Client) -> bool:
    return len(workers_of(server) - before) == 1


def both_workers_of(server: Server) -> set[int]:
    """Process ids of two workers, of which the first may answer before the second is started."""
    server.wait_until(lambda _: len(workers_of(server)) == 2)
    return workers_of(server)


def test_kill_9_loses_no_answered_prediction_and_the_lake_gets_each_once(
    settings: Settings, lake: Lake, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    with asked(server) as answered:
        server.wait_until(lambda _: len(answered) > 50)
        ingest_log(lake, settings)  # while the server writes
        count = len(answered)
        server.wait_until(lambda _: len(answered) > count + 50)
        server.stop(signal.SIGKILL)
    assert set(answered) <= logged_once(lake, settings)


@pytest.mark.slow
def test_workers_killed_one_by_one_are_replaced_and_lose_no_answered_prediction(
    settings: Settings, lake: Lake, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    first = both_workers_of(server)

    def have_answered(workers: set[int]) -> bool:
        return workers <= {int(path.name.split("-")[1]) for path in settings.inference_log_dir.glob("*/*.jsonl")}

    with asked(server) as answered:
        server.wait_until(lambda _: have_answered(first))
        for killed in first:
            before = workers_of(server)
            os.kill(killed, signal.SIGKILL)
            server.wait_until(partial(has_a_new_worker, server, before))
            server.wait_until(lambda _: len(workers_of(server)) == 2 and have_answered(workers_of(server)))
        assert not first & workers_of(server)
        count = len(answered)
        server.wait_until(lambda _: len(answered) > count + 20)
    total = httpx.get(server.url + "/metrics", timeout=60).text
    server.stop()
    assert len(answered) > 50
    assert set(answered) <= logged_once(lake, settings)
    [counted] = re.findall(r'ml_platform_requests_total\{model="flight_delay",status="200"\} (.*)', total)
    assert float(counted) >= len(answered)  # a sum does not fall with the worker that counted


def test_the_table_has_a_typed_column_for_every_feature_even_one_that_was_never_there(
    settings: Settings, lake: Lake, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    server.client.post(PATH, json={**ROW, "tailnum": None})
    ingest_log(lake, settings)
    schema = lake.schema("inference_log/flight_delay")
    assert (str(schema["carrier"]), str(schema["aircraft_rotation__legs_today"])) == ("String", "Float64")
    row = lake.read("inference_log/flight_delay").collect().row(0, named=True)
    assert (row["id"], row["model_version"], row["origin_weather__temp"]) == (ROW["flight_id"], 1, 17.0)


def test_two_workers_answer_swap_and_count_together(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    workers = both_workers_of(server)

    def answers(count: int) -> Counter[int]:
        found: Counter[int] = Counter()
        for _ in range(count):  # each on a connection of its own, so that both workers get some
            found[httpx.post(server.url + PATH, json=ROW, timeout=60).json()["version"]] += 1
        return found

    server.wait_until(lambda _: len(list(settings.inference_log_dir.glob("*/*.jsonl"))) == 2 or not answers(5))
    publish(settings, 2)
    server.wait_until(lambda _: answers(10) == {2: 10})
    total = 0
    for path in settings.inference_log_dir.glob("*/*.jsonl"):
        total += path.read_bytes().count(b"\n")
    for _ in range(3):  # whichever worker is asked
        assert f'ml_platform_requests_total{{model="flight_delay",status="200"}} {total}.0' in (
            httpx.get(server.url + "/metrics", timeout=60).text
        )
    server.stop()
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_a_taken_port_is_told_in_one_line(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "ml_platform.serving", "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    wanted = f"serving: port {port} on 127.0.0.1 is taken by another process; stop it, or choose another with --port\n"
    assert ended.stderr == wanted


def test_the_port_comes_from_the_environment_and_the_option_comes_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    with socket.socket() as taken, socket.socket() as other:
        for one in (taken, other):
            one.bind(("127.0.0.1", 0))
            one.listen()
        named, chosen = taken.getsockname()[1], other.getsockname()[1]
        monkeypatch.setenv("ML_PLATFORM_SERVING_PORT", str(named))
        command = [sys.executable, "-m", "ml_platform.serving"]
        for options, port in (([], named), (["--port", str(chosen)], chosen)):
            ended = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, check=False)
            assert f"port {port} on 127.0.0.1 is taken" in ended.stderr
    for wrong in ("eight", "70000", ""):
        monkeypatch.setenv("ML_PLATFORM_SERVING_PORT", wrong)
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert (ended.returncode, "--port" in ended.stderr) == (2, True), ended.stderr


def test_it_ends_when_told_to_and_has_logged_everything(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(120) in (0, -signal.SIGTERM)
    [segment] = settings.inference_log_dir.glob("*/*.jsonl")
    assert segment.read_bytes().count(b"\n") == 1


def test_uvicorn_finds_the_app_by_name(settings: Settings) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "serving.app:app", "--port", str(port)]
    environment = {**os.environ, "ML_PLATFORM_HOME": str(settings.home)}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert answering(f"http://127.0.0.1:{port}/health/live").json()["status"] == "live"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    "module", ["ml_platform.serving.app", "ml_platform.serving.__main__", "ml_platform.serving.ray_app"]
)
def test_serving_loads_none_of_the_heavy_libraries(module: str) -> None:
    heavy = (
        "dagster mlflow sklearn lightgbm pandas polars deltalake duckdb pyarrow matplotlib scipy optuna ray onnx torch"
    )
    code = f"""
import sys, tempfile
from pathlib import Path
import {module}
from ml_platform.serving.app import create_app
from ml_platform.settings import Settings
create_app(Settings(home=Path(tempfile.mkdtemp())))
print(sorted(set({heavy.split()!r}) & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_serving_worker_loads_them_neither_when_it_answers(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    server.client.post(PATH, json={"rows": [ROW] * 1000})
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    loaded = [name for name in ("polars", "pyarrow", "lightgbm", "sklearn", "duckdb", "deltalake") if name in mapped]
    assert loaded == []
    assert psutil.Process(server.process.pid).memory_info().rss < 150 * 2**20
