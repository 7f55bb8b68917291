"""The server as a process: it answers, ends queries whose client has gone, and stops when it is told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import polars as pl
import pytest

from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.sql_server.answers import ARROW
from ml_platform_tests.paths import PROJECT_ROOT

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range % 7 = 3"


@pytest.fixture
def server(tmp_path):
    settings = Settings(home=tmp_path)
    Lake(settings.lake_uri).append("raw/numbers", pl.DataFrame({"n": range(300_000)}))
    environment = {**os.environ, "ML_PLATFORM_HOME": str(tmp_path), "ML_PLATFORM_PROJECT": str(PROJECT_ROOT)}
    command = [sys.executable, "-m", "ml_platform", "sql-server", "--port", "0", "--queries", "1", "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("sql-server: http://127.0.0.1:"), line
            yield line.split()[-1], process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_query_ends_with_its_client(server):
    url, process = server
    for accept in ("application/json", ARROW):
        body = json.dumps({"sql": ENDLESS})
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            head = f"POST /sql HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: {accept}\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            time.sleep(0.2)  # else the server may see that nobody waits before it begins, which is as well
        # There is one turn, which the query had: this one gets it once that one has ended.
        answer = httpx.post(f"{url}/sql", json={"sql": "SELECT count(*) FROM raw.numbers"}, timeout=120)
        assert answer.json()["rows"] == [[300_000]]
    with httpx.stream(
        "POST", f"{url}/sql", json={"sql": "FROM raw.numbers"}, headers={"accept": ARROW}, timeout=120
    ) as one:
        assert pl.read_ipc_stream(one.read()).height == 300_000
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) in (0, -signal.SIGTERM)
