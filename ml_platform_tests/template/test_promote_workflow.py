"""The workflow that brings a commit from environment to environment: every command, option and name in it exists."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from ml_platform.cli import app
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.template.baking import Bake


@pytest.fixture(scope="module")
def project(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without the example."""
    output = tmp_path_factory.mktemp("baked")
    done = bake(output, "project_name=Churn Lab", "owner_email=lab@example.org", "example=none")
    assert done.returncode == 0, done.stderr
    return output / "churn-lab"


@pytest.fixture(scope="module")
def jobs(project: Path) -> dict[str, Any]:
    workflow = yaml.safe_load((project / ".github" / "workflows" / "promote.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow[True]["workflow_dispatch"]["inputs"]) == {"model", "reason"}  # YAML 1.1 reads `on` as true
    return dict(workflow["jobs"])


def scripts(jobs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The shell code of each step, by its job."""
    yield from ((name, step["run"]) for name, job in jobs.items() for step in job["steps"] if "run" in step)


def test_a_job_for_each_environment_waits_for_the_one_before(jobs: dict[str, Any], project: Path) -> None:
    environments = yaml.safe_load((project / "environments.yaml").read_text())
    assert [name for name in environments if name != "dev"] == [name for name in jobs if name != "test"]
    before = "test"
    for name in ("staging", "prod"):
        assert jobs[name]["needs"] == before
        assert jobs[name]["environment"] == name  # whose reviewers approve
        assert jobs[name]["runs-on"] == ["self-hosted", name]
        assert jobs[name]["env"]["ML_PLATFORM_ENVIRONMENT"] == name
        before = name
    assert "make test" in [step.get("run") for step in jobs["test"]["steps"]]


def test_its_shell_code_is_sound_and_takes_inputs_as_variables_only(jobs: dict[str, Any]) -> None:
    for _, script in scripts(jobs):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "${{" not in script  # an input is text of anybody who may start it, never code
        assert not re.search(r"(?<!\")\$[A-Z]", script), script


def test_every_command_in_it_exists(jobs: dict[str, Any], project: Path) -> None:
    commands: click.Command = typer.main.get_command(app)
    targets = re.findall(r"^([a-z-]+):", (project / "Makefile").read_text(), re.MULTILINE)
    environments = yaml.safe_load((project / "environments.yaml").read_text())
    units = {path.stem for path in (PROJECT_ROOT / "deploy" / "systemd").glob("*.service")}
    seen = set()
    for _, script in scripts(jobs):
        for line in script.splitlines():
            match shlex.split(line):
                case [".venv/bin/ml-platform", *words]:
                    command = commands
                    while isinstance(command, click.Group):
                        command = command.commands[words.pop(0)]
                    options = {name for parameter in command.params for name in parameter.opts}
                    assert {word for word in words if word.startswith("--")} <= options
                    if "--to" in words:
                        assert words[words.index("--to") + 1] in environments
                    seen.add(command.name)
                case ["make", *words]:
                    assert words[-1] in targets
                    seen.add("make")
                case ["sudo", "systemctl", "restart", *names]:
                    assert set(names) <= units
                case ["export", assignment]:
                    assert assignment.removeprefix("ML_PLATFORM_ENVIRONMENT=") in environments
                case [word, *_]:
                    assert word in {"git", "cd"}
    assert seen == {"doctor", "promote", "make"}


def test_the_model_goes_from_the_environment_before(jobs: dict[str, Any]) -> None:
    ways = {
        (name, found[1], found[2])
        for name, script in scripts(jobs)
        if (found := re.search(r"export ML_PLATFORM_ENVIRONMENT=(\w+)\n.* --to (\w+) ", script))
    }
    assert ways == {("staging", "dev", "staging"), ("prod", "staging", "prod")}
