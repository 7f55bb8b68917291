"""`make upgrade` merges what the template has changed into what its user has changed, and moves the engine along."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.upgrade import UpgradeError, destination, read_record
from ml_platform_tests.template.baking import GIT, Bake, engine_pin, git

SLUG, TESTS = "{{cookiecutter.project_slug}}", "{{cookiecutter.package_name}}_tests"
# What a user writes at the end of files: of the template, and of this repository.
EDITED = {
    "README.md": "Our own words.\n",
    ".gitignore": "/ours\n",
    ".pre-commit-config.yaml": "# ours\n",
    ".github/workflows/ci.yml": "# ours\n",
    "workspace.yaml": "# ours\n",
    "deploy/Dockerfile": "# ours\n",
    "deploy/kubernetes/deployment.yaml": "# ours\n",
    "serving/app.py": "# ours\n",
    "prediction_lab/definitions.py": "# ours\n",
    "prediction_lab_tests/test_project.py": "# ours\n",
    "Makefile": "\nours: ## a target of our own\n\t@true\n",
}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), "utf-8")


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture(scope="module")
def source(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's repository with two versions after the first: tags v1, v2 and v3."""
    folder = tmp_path_factory.mktemp("source") / "engine"
    git(template.parent, "clone", "--quiet", str(template), str(folder))
    git(folder, "tag", "v1")
    files = folder / SLUG
    edit(files / "Makefile", "## formatting, lint, types", "## form, lint and types")
    git(folder, "mv", f"{SLUG}/{TESTS}/test_project.py", f"{SLUG}/{TESTS}/test_definitions.py")
    (files / "NOTES.md").write_text("New in {{ cookiecutter.project_name }}.\n")
    edit(folder / "CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n### Added\n- Notes, said the second version.\n")
    with (folder / "requirements.lock").open("a") as lock:
        lock.write("of-the-second-version==2.0\n")
    commit(folder, "second")
    git(folder, "tag", "v2")
    edit(files / "NOTES.md", "New in", "Since the second version in")
    edit(files / "README.md", "You need Python 3.11 to 3.13", "You need Python 3.11 to 3.13 still")
    commit(folder, "third")
    git(folder, "tag", "v3")
    git(folder, "checkout", "--quiet", "v1")
    return folder


@pytest.fixture(scope="module")
def baked(bake: Bake, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the first version, as it was made."""
    output = tmp_path_factory.mktemp("baked")
    done = bake(output, "owner_email=lab@example.org", "example=none", source=str(source))
    assert done.returncode == 0, done.stderr
    return output / "prediction-lab"


@pytest.fixture
def project(baked: Path, tmp_path: Path) -> Path:
    """A copy of the project that a test may change."""
    return Path(shutil.copytree(baked, tmp_path / "prediction-lab"))


def upgrade(project: Path, *variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `make upgrade` with this environment's Python instead of one that is installed for the project."""
    return subprocess.run(
        ["make", "--no-print-directory", "upgrade", f"RUN={sys.executable}", "SETUP=@true", *variables],
        cwd=project,
        env={**os.environ, **GIT},
        capture_output=True,
        text=True,
        check=False,
    )


def status(project: Path) -> str:
    return git(project, "status", "--porcelain")


def test_a_project_records_its_template(project, source):
    assert json.loads((project / ".template.json").read_text()) == {
        "source": str(source),
        "commit": git(source, "rev-parse", "v1").strip(),
        "answers": {
            "project_name": "Prediction Lab",
            "project_slug": "prediction-lab",
            "package_name": "prediction_lab",
            "description": "Machine learning on our own machines, from table to served prediction.",
            "owner_email": "lab@example.org",
            "example": "none",
        },
    }


@pytest.mark.slow
def test_it_says_what_of_the_state_the_new_engine_would_not_read(project, source):
    bundle = project / "data" / "releases" / "bundles" / ("0" * 64)
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text('{"format": 1}')
    git(source, "checkout", "--quiet", "-b", "newer-format", "v2")
    edit(
        source / "ml_platform" / "formats.py",
        '    "release manifest",\n    (1,),',
        '    "release manifest",\n    (2,),',
    )
    edit(source / "requirements.lock", "of-the-second-version==2.0\n", "of-the-second-version==2.1\n")
    lock = source / "requirements.lock"
    lock.write_text(re.sub(r"^mlflow==.*$", "mlflow==99.1", lock.read_text(), flags=re.MULTILINE))
    commit(source, "another format")
    git(source, "checkout", "--quiet", "v1")

    done = upgrade(project, "TO=newer-format", "DRY=1")

    assert done.returncode != 0
    assert (
        "would not be read any more: release manifest: format 1 is stored, 2 can be read; of an older one: train"
        in (done.stdout)
    )
    assert "wrong already: releases: bundle 000000000000" in done.stdout
    assert "→ 99.1: after `make setup`, `ml-platform doctor` says whether MLflow's database" in done.stdout
    assert "Nothing was changed" in done.stdout
    assert status(project) == ""
    assert "State: none in data/." not in done.stdout


def test_what_the_user_has_changed_stays_and_what_the_template_has_changed_comes(project, source):
    for name, line in EDITED.items():
        with (project / name).open("a") as file:
            file.write(line)
    edit(project / "pyproject.toml", "[platform]", "[platform,postgres]")
    with (project / "requirements.lock").open("a") as lock:
        lock.write("ours-alone==1.5 ; python_version < '4'\n    # via prediction-lab\n")
    (project / "prediction_lab" / "own.py").write_text("own = 1\n")
    commit(project, "ours")

    done = upgrade(project, "TO=v2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "- Notes, said the second version." in done.stdout
    assert "State: none in data/." in done.stdout
    assert "`make test`, then `git commit`" in done.stdout
    new = git(source, "rev-parse", "v2").strip()[:12]
    lines = (project / "requirements.lock").read_text().splitlines()
    assert {"of-the-second-version==2.0", "ours-alone==1.5 ; python_version < '4'"} <= set(lines)
    [wheel] = (project / "vendor").iterdir()
    assert new in wheel.name
    assert f'"dagster-ml-platform[platform,postgres]==0.2.0+g{new}"' in (project / "pyproject.toml").read_text()
    assert f"dagster-ml-platform==0.2.0+g{new}" in lines
    renamed = {"prediction_lab_tests/test_project.py": "prediction_lab_tests/test_definitions.py"}
    for name, line in EDITED.items():
        assert (project / renamed.get(name, name)).read_text().endswith(line), name
    assert not (project / "prediction_lab_tests" / "test_project.py").exists()
    assert "## form, lint and types" in (project / "Makefile").read_text()
    assert (project / "NOTES.md").read_text() == "New in Prediction Lab.\n"
    assert (project / "prediction_lab" / "own.py").exists()
    assert git(project, "diff") == ""  # all of it is staged
    git(project, "commit", "--quiet", "--no-edit")
    assert git(project, "log", "-1", "--format=%s").startswith("Upgrade dagster-ml-platform from 0.2.0+g")

    again = upgrade(project, "TO=v2")
    assert again.returncode == 0
    assert "Nothing to do" in again.stdout
    assert status(project) == ""


@pytest.mark.parametrize("steps", [["v3"], ["v2", "v3"]])
def test_two_versions_are_as_one_after_the_other_and_as_made_anew(project, source, bake, tmp_path, steps):
    for step in steps:
        done = upgrade(project, f"TO={step}")
        assert done.returncode == 0, done.stdout + done.stderr
        git(project, "commit", "--quiet", "--no-edit")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "v3", str(source), str(clone))
    assert bake(tmp_path / "new", "owner_email=lab@example.org", "example=none", source=str(clone)).returncode == 0
    new = tmp_path / "new" / "prediction-lab"
    edit(new / ".template.json", str(clone), str(source))
    names = git(new, "ls-files").splitlines()
    assert git(project, "ls-files").splitlines() == names
    for name in names:
        assert (project / name).read_bytes() == (new / name).read_bytes(), name


def test_a_conflict_is_gits_and_ends_with_its_resolution(project):
    edit(project / "Makefile", "## formatting, lint, types", "## our checks")
    ours = commit(project, "ours")

    done = upgrade(project, "TO=v2")

    assert done.returncode == 2  # make's
    assert "conflict: Makefile\n" in done.stdout
    assert "`git merge --abort` instead takes all of it back" in done.stdout
    assert "<<<<<<< HEAD" in (project / "Makefile").read_text()
    assert [line for line in status(project).splitlines() if line.startswith("UU")] == ["UU Makefile"]
    git(project, "merge", "--abort")
    assert (status(project), git(project, "rev-parse", "HEAD").strip()) == ("", ours)

    assert upgrade(project, "TO=v2").returncode == 2
    git(project, "checkout", "--ours", "Makefile")
    commit(project, "resolved")
    assert status(project) == ""
    assert (project / "NOTES.md").exists()
    done = upgrade(project, "TO=v3")  # the conflict does not come again
    assert done.returncode == 0, done.stdout + done.stderr
    assert "## our checks" in (project / "Makefile").read_text()


def test_a_conflict_in_pyproject_leaves_the_new_pin_there(project, source, tmp_path):
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", "--branch", "v2", str(source), str(fork))
    edit(fork / SLUG / "pyproject.toml", 'target-version = "py311"', 'target-version = "py312"')
    new = commit(fork, "fourth")
    edit(project / "pyproject.toml", 'target-version = "py311"', 'target-version = "py313"')
    commit(project, "ours")

    done = upgrade(project, f"TO={fork}")

    assert done.returncode == 2
    assert "conflict: pyproject.toml\n" in done.stdout
    assert engine_pin(project).endswith(new[:12])
    assert "UU pyproject.toml" in status(project)
    git(project, "merge", "--abort")
    assert status(project) == ""


def test_a_dry_run_changes_nothing(project):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = upgrade(project, "TO=v2", "DRY=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOTES.md" in done.stdout
    assert "- Notes, said the second version." in done.stdout
    assert "Nothing was changed" in done.stdout
    del before[project / ".git" / "index"]  # `git status` refreshes its times
    assert status(project) == ""
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}.items() >= before.items()


@pytest.mark.slow
def test_an_upgrade_whose_commits_were_squashed_is_the_base_of_the_next_all_the_same(project):
    assert upgrade(project, "TO=v2").returncode == 0
    (project / "NOTES.md").write_text("New in Prediction Lab.\nOurs.\n")
    git(project, "add", "--all")
    tree = git(project, "write-tree").strip()
    squashed = git(project, "commit-tree", tree, "-p", "HEAD", "-m", f"Squashed\n\nTemplate-Tree: {'0' * 40}").strip()
    git(project, "merge", "--abort")
    git(project, "reset", "--quiet", "--hard", squashed)

    done = upgrade(project, "TO=v3")

    assert "conflict: NOTES.md" in done.stdout  # the line above ours, which only the third version changes
    assert git(project, "replace", "--list") == ""
    (project / "NOTES.md").write_text("Since the second version in Prediction Lab.\nOurs.\n")
    commit(project, "upgraded")
    assert git(project, "log", "-1", "--format=%P").split()[0] == squashed
    assert "still" in (project / "README.md").read_text()
    assert "Nothing to do" in upgrade(project, "TO=v3").stdout


def test_without_the_recorded_version_anywhere_it_says_where_to_take_it_from(project):
    edit(project / ".template.json", json.loads((project / ".template.json").read_text())["commit"], "0" * 40)
    commit(project, "another record")
    done = upgrade(project, "TO=v2")
    assert done.returncode == 2
    assert "nor the template's commit 000000" in done.stderr
    assert status(project) == ""


def test_uncommitted_changes_are_refused(project):
    (project / "new.txt").write_text("mine")
    done = upgrade(project, "TO=v2")
    assert done.returncode == 2
    assert "working tree without changes" in done.stderr
    assert "?? new.txt" in done.stderr
    assert status(project) == "?? new.txt\n"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v9", "wanted the version 'v9', found no tag, branch or commit of that name"),
        ("./nowhere", "nowhere' does not exist"),
        ("it's", 'wanted the version "it\'s"'),
    ],
)
def test_a_version_that_is_not_there_is_refused(project, version, said):
    done = upgrade(project, f"TO={version}")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert status(project) == ""


def test_a_repository_that_is_not_the_template_is_refused(project, baked):
    done = upgrade(project, f"TO={baked}")
    assert done.returncode == 2
    assert "wanted a version of the template that can upgrade a project" in done.stderr


def test_projects_that_it_cannot_upgrade_are_told_why(project):
    above = project.parent
    (above / ".template.json").write_text('{"source": "x"}')
    with pytest.raises(UpgradeError, match="answers, commit missing"):
        read_record(above)
    (above / ".template.json").write_text("{")
    with pytest.raises(UpgradeError, match="is not JSON"):
        read_record(above)
    with pytest.raises(UpgradeError, match="was not made by a template that can upgrade it"):
        read_record(project / "serving")
    shutil.copy2(project / ".template.json", project / "serving")
    with pytest.raises(UpgradeError, match="wanted the top folder of a git repository"):
        read_record(project / "serving")
    (project / ".cruft.json").write_text("{}")
    with pytest.raises(UpgradeError, match="`cruft update`"):
        read_record(project)


def test_a_pin_that_is_not_there_is_said_before_anything_changes(project):
    pin = engine_pin(project)
    for extra in ("platform", "lab"):
        edit(project / "pyproject.toml", f"[{extra}]{pin}", f"[{extra}]>=0.1")
    commit(project, "ours")
    done = upgrade(project, "TO=v2")
    assert "wanted a dependency on dagster-ml-platform with its version" in done.stderr
    assert status(project) == ""


def test_what_TO_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert destination("", "git+file:///engine") == ("file:///engine", "HEAD")
    assert destination("feature/x", "/engine") == ("/engine", "feature/x")
    assert destination("./engine", "/other") == (str(tmp_path.resolve() / "engine"), "HEAD")
    assert destination("ssh://git@example.com/ml/engine#v2", "/other") == ("ssh://git@example.com/ml/engine", "v2")
