"""JupyterLab as `make notebook` starts it: answers on the loopback address with a token alone, and ends by itself."""

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from ml_platform.notebook_files.execute import kernel_environment
from ml_platform.notebooks.lab import lab_command, prepare_lab
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port


@pytest.mark.slow
def test_it_serves_the_project_to_whom_has_the_token_and_ends_when_idle(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.py").write_text("# %%\n1 + 1\n")
    prepare_lab(settings)
    command = lab_command(tmp_path / "project", settings, port=free_port(), idle_minutes=0.2, browser=False)
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**kernel_environment(), "HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"},
    ) as server:
        assert server.stderr is not None
        try:
            address = next(
                match for line in server.stderr if (match := re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)", line))
            )
            base, token = address.groups()
            refused = httpx.get(f"{base}/api/contents", timeout=60)
            assert refused.status_code == 403
            listed = httpx.get(f"{base}/api/contents", params={"token": token}, timeout=60).json()
            assert [one["name"] for one in listed["content"]] == ["a.py"]
            as_notebook = httpx.get(
                f"{base}/api/contents/a.py", params={"token": token, "type": "notebook"}, timeout=60
            ).json()
            assert as_notebook["content"]["cells"][0]["source"] == "1 + 1"  # text is opened as a notebook
            kernels = httpx.get(f"{base}/api/kernelspecs", params={"token": token}, timeout=60).json()
            assert "python3" in kernels["kernelspecs"]
            assert server.wait(600) == 0  # nobody uses it
        finally:
            if server.poll() is None:
                os.kill(server.pid, 9)
