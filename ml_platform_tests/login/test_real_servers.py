"""The login before a real Dagster, MLflow and prediction server, with a real browser and real clients."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ml_platform.governance.keys import KeyStore
from ml_platform.login.accounts import AccountStore
from ml_platform.login.people import People
from ml_platform.login.settings import LoginSettings
from ml_platform.settings import Settings
from ml_platform_tests.chromium import browser as browser  # noqa: PLC0414 - a fixture
from ml_platform_tests.login.gateway_world import PASSWORD, PEOPLE
from ml_platform_tests.orchestration.webserver_process import Dagster, serve
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
HELLO = {
    "params": {
        "selector": {"repositoryLocationName": "small", "repositoryName": "__repository__", "jobName": "hello"},
        "runConfigData": {},
    }
}


@dataclass(frozen=True)
class Running:
    """All four servers, over one home."""

    settings: Settings
    url: str
    dagster: Dagster
    mlflow: str
    serving: str

    def signed_in(self, name: str) -> httpx.Client:
        client = httpx.Client(base_url=self.url, trust_env=False, timeout=120, headers={"origin": self.url})
        token = re.search(r'name="form" value="([^"]+)"', client.get("/-/login").text)
        assert token is not None
        answer = client.post("/-/login", data={"form": token[1], "name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        return client


@contextmanager
def process(log: Path, ready: str, *command: str, **variables: str) -> Iterator[None]:
    """A server of ours, up when an address answers."""
    with log.open("w") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=PROJECT_ROOT,
            env={**os.environ, **variables},
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + 600
            while True:
                with suppress(httpx.HTTPError):
                    if httpx.get(ready, trust_env=False, timeout=10).status_code == 200:
                        break
                assert started.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            started.terminate()
            started.wait(timeout=120)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("real")
    settings = Settings(home=folder / "home")
    for name in PEOPLE:
        AccountStore(settings).add(name, PASSWORD, roles=[name])
    (folder / "dagster").mkdir()
    names = ("MLFLOW", "SERVING", "LOGIN")
    ports = {name: free_port() for name in names}
    variables = {f"ML_PLATFORM_{name}_PORT": str(port) for name, port in ports.items()}
    variables["ML_PLATFORM_HOME"] = str(settings.home)
    mlflow, serving, login = (f"http://127.0.0.1:{ports[name]}" for name in names)
    with ExitStack() as stack:
        command = "ml_platform.orchestration.webserver"
        opened = serve(folder / "dagster", command, runs_at_once=True, prefix="/dagster", **variables)
        dagster = next(opened)
        stack.callback(next, opened, None)
        variables["ML_PLATFORM_DAGSTER_PORT"] = str(dagster.port)
        for name, port, ready, module in (
            ("mlflow", ports["MLFLOW"], f"{mlflow}/health", "ml_platform.registry.ui"),
            ("serving", ports["SERVING"], f"{serving}/health/live", "ml_platform.serving"),
            ("login", ports["LOGIN"], f"{login}/-/health", "ml_platform.login"),
        ):
            stack.enter_context(process(folder / f"{name}.log", ready, module, "--port", str(port), **variables))
        yield Running(settings, login, dagster, mlflow, serving)


def test_the_servers_behind_answer_nobody_but_the_login(running):
    for address in (
        f"http://127.0.0.1:{running.dagster.port}/dagster/",
        f"http://127.0.0.1:{running.dagster.port}/dagster/graphql",
        f"{running.mlflow}/",
        f"{running.mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=5",
        f"{running.serving}/",
        f"{running.serving}/models",
    ):
        for headers in ({}, {"authorization": "Gateway a.b"}, {"x-forwarded-user": "admin"}):
            assert httpx.get(address, headers=headers, trust_env=False).status_code in {401, 405}, address


def test_nobody_below_their_role_moves_a_real_dagster(running):
    before = running.dagster.runs
    with closing(running.signed_in("viewer")) as viewer:
        assert viewer.post("/dagster/graphql", json={"query": "{ version }"}).json()["data"]["version"]
        attempts = [
            viewer.post("/dagster/graphql", json={"query": LAUNCH, "variables": HELLO}),
            viewer.get("/dagster/graphql", params={"query": LAUNCH, "variables": json.dumps(HELLO)}),
            viewer.post("/dagster/graphql", params={"query": LAUNCH, "variables": json.dumps(HELLO)}, content=b""),
            viewer.post("/dagster/report_asset_materialization/greeting", json={}),
        ]
        assert all(400 <= answer.status_code < 500 for answer in attempts)
        permissions = viewer.post("/dagster/graphql", json={"query": "{ permissions { permission value } }"}).json()
        assert not any(one["value"] for one in permissions["data"]["permissions"])
    assert running.dagster.runs == before
    with closing(running.signed_in("launcher")) as launcher:
        launched = launcher.post("/dagster/graphql", json={"query": LAUNCH, "variables": HELLO}).json()
        run = launched["data"]["launchRun"]["run"]["runId"]
        delete = {"query": f'mutation {{ deleteRun(runId: "{run}") {{ __typename }} }}'}
        assert launcher.post("/dagster/graphql", json=delete).status_code == 403
    assert running.dagster.runs == before + 1


def test_a_real_client_of_mlflow_tracks_through_the_login_by_a_key(running, tmp_path):
    _, token = KeyStore(running.settings.keys_dir).create("trainer", roles=["promote"])
    program = """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("auc", 0.75)
print(mlflow.MlflowClient().get_run(run.info.run_id).data.metrics["auc"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"{running.url}/mlflow",
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ML_PLATFORM_HOME": str(running.settings.home),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["0.75"], done.stderr[-3000:]
    with closing(running.signed_in("viewer")) as viewer:
        found = viewer.post("/mlflow/ajax-api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}).json()
        [run] = found["runs"]
        refused = viewer.post("/mlflow/api/2.0/mlflow/runs/delete", json={"run_id": run["info"]["run_id"]})
        assert refused.status_code == 403


def test_nobody_below_admin_says_where_a_real_mlflow_keeps_files(running, tmp_path):
    create = "/mlflow/api/2.0/mlflow/experiments/create"
    with closing(running.signed_in("launcher")) as launcher, closing(running.signed_in("admin")) as admin:
        for name, content in (
            ("a", json.dumps({"name": "a", "artifact_location": str(tmp_path)})),
            ("b", json.dumps({"name": "b", "artifactLocation": tmp_path.as_uri()})),
            ("c", json.dumps(json.dumps({"name": "c", "artifact_location": str(tmp_path)}))),
            ("d", f'{{"name": "d", "artifact_location": "{tmp_path}", "artifactLocation": ""}}'),
        ):
            answer = launcher.post(create, content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 403, name
        experiment = launcher.post(create, json={"name": "mine"}).json()["experiment_id"]
        run = launcher.post("/mlflow/api/2.0/mlflow/runs/create", json={"experiment_id": experiment}).json()["run"]
        upload = {"run_uuid": run["info"]["run_id"], "path": "notes.txt"}
        stored = launcher.post("/mlflow/ajax-api/2.0/mlflow/upload-artifact", params=upload, content=b"noted")
        assert stored.status_code == 200, stored.text
        read = launcher.get("/mlflow/get-artifact", params={"run_uuid": upload["run_uuid"], "path": "notes.txt"})
        assert read.text == "noted"
        kept = list(running.settings.home.rglob("notes.txt"))
        assert [path.is_relative_to(running.settings.home / "mlflow_artifacts") for path in kept] == [True]
        proxied = launcher.put("/mlflow/api/2.0/mlflow-artifacts/artifacts/big.bin", content=b"x")
        assert proxied.status_code == 503  # this store of files is off
        assert not (PROJECT_ROOT / "mlartifacts").exists()
        chosen = admin.post(create, json={"name": "elsewhere", "artifact_location": str(tmp_path)})
        assert chosen.status_code == 200, chosen.text


def test_the_console_knows_the_person(running):
    with closing(running.signed_in("viewer")) as viewer, closing(running.signed_in("admin")) as admin:
        assert viewer.get("/models").json()["models"] == []
        assert viewer.post("/predict/none", json={}).status_code == 403
        assert admin.post("/predict/none", json={}).status_code in {404, 503}  # nothing is released
    deadline = time.monotonic() + 120  # the server writes its lines a moment after it has answered
    while not any(line.get("key") == "user:admin" and line.get("path") == "/predict/none" for line in noted(running)):
        assert time.monotonic() < deadline, noted(running)
        time.sleep(0.05)


def noted(running) -> list[dict]:
    """All whole lines of the audit log."""
    files = running.settings.audit_dir.glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line.endswith("}")]


def test_a_person_sees_a_live_run_and_is_told_when_the_session_ends(running, browser):
    """The run's log comes by WebSocket; then the session ends: the page says what to do, and keeps what it shows."""
    context = browser.new_context()
    page = context.new_page()
    frames: list[str] = []
    page.on("websocket", lambda opened: opened.on("framereceived", lambda frame: frames.append(str(frame))))
    with closing(running.signed_in("launcher")) as launcher:
        launched = launcher.post("/dagster/graphql", json={"query": LAUNCH, "variables": HELLO}).json()
    run = launched["data"]["launchRun"]["run"]["runId"]
    page.goto(f"{running.url}/dagster/runs/{run}")
    assert page.url == f"{running.url}/-/login?next=%2Fdagster%2Fruns%2F{run}"
    page.fill("#name", "viewer")
    page.fill("#password", PASSWORD)
    page.click("button")
    page.wait_for_url(f"{running.url}/dagster/runs/{run}*", timeout=300_000)
    page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=300_000)
    assert any("RunSuccessEvent" in frame or "RUN_SUCCESS" in frame for frame in frames)
    People(running.settings, LoginSettings()).sessions.end_all("viewer")
    page.locator("#ml-platform-login-notice").wait_for(timeout=300_000)
    assert "was not carried out" in page.locator("#ml-platform-login-notice").inner_text()
    assert page.get_by_text("RUN_SUCCESS").first.is_visible()
    context.close()


@pytest.mark.parametrize(
    "module",
    ["ml_platform.orchestration.webserver", "ml_platform.registry.ui", "ml_platform.serving", "ml_platform.login"],
)
def test_no_server_listens_for_others_while_nobody_signs_in(module, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", module, "--host", "0.0.0.0", "--port", str(free_port())],
        cwd=PROJECT_ROOT,
        env={**os.environ, "ML_PLATFORM_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "ml-platform" in done.stderr or "https://" in done.stderr
