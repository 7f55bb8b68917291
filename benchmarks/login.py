"""What the login adds to a query of Dagster's page, in CPU: `python benchmarks/login.py`.

Dagster's webserver and the gateway are processes of their own; the CPU time of each over the same queries is compared.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
from _results import ROOT, write_section

sys.path.insert(0, str(ROOT))

from ml_platform.login.accounts import AccountStore
from ml_platform.settings import Settings
from ml_platform_tests.orchestration.webserver_process import serve
from ml_platform_tests.ports import free_port

QUERIES = 300
PASSWORD = "correct horse battery"
QUERY = """
query Runs { runsOrError(limit: 25) { ... on Runs { results { runId status tags { key value } } } }
  workspaceOrError { ... on Workspace { locationEntries { id name loadStatus } } } }
"""


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process."""
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Ask the same through the gateway, and write each side's CPU time and their ratio."""
    folder = Path(tempfile.mkdtemp(prefix="ml-platform-login-"))
    settings = Settings(home=folder / "home")
    AccountStore(settings).add("ada", PASSWORD, roles=["viewer"])
    (folder / "dagster").mkdir()
    variables = {"ML_PLATFORM_HOME": str(settings.home)}
    webserver = serve(folder / "dagster", "ml_platform.orchestration.webserver", prefix="/dagster", **variables)
    dagster = next(webserver)
    port = free_port()
    environment = {**os.environ, **variables, "ML_PLATFORM_DAGSTER_PORT": str(dagster.port)}
    login = subprocess.Popen([sys.executable, "-m", "ml_platform.login", "--port", str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=120, headers={"origin": url}) as client:
            while True:
                with suppress(httpx.ConnectError):
                    page = client.get("/-/login").text
                    break
                time.sleep(0.1)
            form = re.findall(r'name="form" value="([^"]+)"', page)[0]
            client.post("/-/login", data={"form": form, "name": "ada", "password": PASSWORD})
            [server] = [
                one
                for one in psutil.Process().children(recursive=True)
                if "ml_platform.orchestration.webserver" in one.cmdline()
            ]
            gateway = psutil.Process(login.pid)
            for count in (20, QUERIES):  # the first to warm up
                before = cpu(server), cpu(gateway)
                for _ in range(count):
                    client.post("/dagster/graphql", json={"query": QUERY}).raise_for_status()
            behind, added = cpu(server) - before[0], cpu(gateway) - before[1]
    finally:
        login.terminate()
        login.wait(60)
        webserver.close()
    lines = [
        f"CPU over {QUERIES} GraphQL queries of Dagster by one client; session, role, document checked each time.",
        "",
        "| process | ms of CPU a query |",
        "|---|---|",
        f"| Dagster's webserver | {behind / QUERIES * 1000:.2f} |",
        f"| the login | {added / QUERIES * 1000:.2f} |",
        f"| the login to the webserver | {added / behind:.2f} |",
    ]
    packages = ["dagster", "uvicorn", "httpx", "graphql-core"]
    print(write_section("Login: what it adds", "python benchmarks/login.py", lines, packages=packages))


if __name__ == "__main__":
    main()
