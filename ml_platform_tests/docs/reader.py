"""Somebody who does what a page says, block by block as it stands, in a fresh project and on fresh state."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port
from ml_platform_tests.template.baking import GIT

BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE)
SECOND_TERMINAL = "a second terminal"
ANSWERS = ("project_name=Order Lab", "example=none")


@dataclass(frozen=True)
class Block:
    """A block of code of the page: commands, or a file if it has the title of one."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """A page's blocks, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["title"] or "", match["text"]) for match in found]


class Reader:
    """Somebody who does what the page says in a project of their own, with the environment that runs the tests."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ML_PLATFORM", "DAGSTER"))},
            "ML_PLATFORM_PROJECT": str(project),
            "ML_PLATFORM_SERVING_PORT": str(self.port),
            "PYTHONPATH": str(project),
            "PYTHONWARNINGS": "ignore",
        }
        self.second: list[subprocess.Popen[str]] = []

    def _script(self, commands: str) -> list[str]:
        opened = f'eval "$({Path(sys.executable).parent}/ml-platform env)"'
        return ["bash", "-euo", "pipefail", "-c", f"{opened}\n{commands.replace('localhost:8000', self.address)}"]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def write(self, block: Block) -> None:
        path = self.project / block.title
        assert path.parent == self.project or path.parent.is_dir(), f"{block.title}: no earlier step made its folder"
        path.write_text(block.text, encoding="utf-8")

    def run(self, block: Block) -> str:
        done = subprocess.run(
            self._script(block.text),
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def start(self, block: Block) -> None:
        self.second.append(
            subprocess.Popen(self._script(f"exec {block.text}"), cwd=self.project, env=self.environment, text=True)
        )
        deadline = time.monotonic() + 300
        while True:
            assert self.second[-1].poll() is None, f"{block.text} ended"
            assert time.monotonic() < deadline, f"{block.text} does not answer"
            try:
                if httpx.get(f"http://{self.address}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    command = [sys.executable, "-m", "cookiecutter", str(PROJECT_ROOT), "--no-input", "-o", str(tmp_path), *ANSWERS]
    made = subprocess.run(
        command, env={**os.environ, **GIT, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    someone = Reader(tmp_path / "order-lab")
    yield someone
    for process in someone.second:
        process.terminate()
        process.wait(timeout=60)
