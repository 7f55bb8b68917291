"""MLflow's server as the platform starts it: by its own names only, and with no secret in its arguments."""

import http.client
import os
import subprocess
import sys
import time

import pytest

from ml_platform.processes import table
from ml_platform.processes.runner import Process
from ml_platform.registry.ui import server_environment
from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port


def test_names_of_ones_own_are_kept():
    given = {"MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.com"}
    found = server_environment(Settings(), 5000, given)
    assert found["MLFLOW_SERVER_ALLOWED_HOSTS"] == "mlflow.example.com"
    assert "http://localhost:5000" in found["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


@pytest.mark.slow
def test_the_server_answers_to_its_own_names_only(tmp_path):
    port = free_port()
    uri = f"sqlite:///{tmp_path / 'secret.db'}"  # stands for an address with a password
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(tmp_path),
        "ML_PLATFORM_TRACKING_URI": uri,
        "TEST_UI": str(port),
    }
    command = [sys.executable, "-m", "ml_platform.registry.ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL)

    def ask(host: str, method: str = "GET", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        path = "/api/2.0/mlflow/experiments/" + ("search?max_results=1" if method == "GET" else "create")
        body = None if method == "GET" else b'{"name": "evil"}'
        connection.request(method, path, body, {"Host": host, "Content-Type": "application/json", **headers})
        return connection.getresponse().status

    try:
        probe = Process("mlflow", command, port=port, ready_path="/health")
        while not probe.answers():
            assert server.poll() is None
            time.sleep(0.2)
        assert ask(f"127.0.0.1:{port}") == ask(f"localhost:{port}") == 200
        for foreign in ("10.evil.example", "192.168.evil.example", "evil.example", f"evil.example:{port}", "0.0.0.0"):
            assert ask(foreign) == 403
        assert ask(f"127.0.0.1:{port}", "POST", Origin="http://evil.example") == 403
        commands = [table.command(pid) for pid in table.marked({"TEST_UI": str(port)})]
        assert commands
        assert not [line for line in commands if "secret" in line]
    finally:
        table.end_marked({"TEST_UI": str(port)})
        server.wait()
