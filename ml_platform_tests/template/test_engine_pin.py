"""Where the engine of a project comes from: a wheel of its own version, or a commit of the URL that was cloned."""

import hashlib
import shutil
import subprocess
import sys
import threading
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from email import message_from_bytes
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ml_platform_tests.installed_engine import build_wheel
from ml_platform_tests.template.baking import engine_pin, git

# As cruft calls cookiecutter: it clones by itself, and does not say where to.
CRUFT = """
import sys
from cookiecutter.generate import generate_context, generate_files
from cookiecutter.prompt import prompt_for_config
url, commit, clone, output = sys.argv[1:]
context = generate_context(f"{clone}/cookiecutter.json")
context["cookiecutter"] = prompt_for_config(context, no_input=True) | {"_template": url, "_commit": commit}
generate_files(clone, context, output_dir=output)
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The template as a git server has it, by HTTP."""
    folder = tmp_path_factory.mktemp("served")
    git(folder, "clone", "--quiet", "--bare", str(template), "template.git")
    git(folder / "template.git", "update-server-info")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/template.git"
        server.shutdown()
        thread.join()


def head(template: Path) -> str:
    return git(template, "rev-parse", "HEAD").strip()


def wheel_of(project: Path) -> Path:
    [wheel] = (project / "vendor").iterdir()
    assert wheel.name == f"dagster_ml_platform-{engine_pin(project).removeprefix('==')}-py3-none-any.whl"
    return wheel


@pytest.fixture(scope="module")
def wheel(bake, tmp_path_factory) -> Path:
    """The wheel of a project made from a path."""
    output = tmp_path_factory.mktemp("wheel")
    assert bake(output, "example=none").returncode == 0
    return wheel_of(output / "prediction-lab")


def test_a_path_and_a_file_url_give_the_wheel_of_the_commit(bake, template, wheel, tmp_path):
    assert f"+g{head(template)[:12]}-" in wheel.name
    done = bake(tmp_path, source=f"git+file://{template}")
    assert done.returncode == 0, done.stderr
    assert wheel_of(tmp_path / "prediction-lab").read_bytes() == wheel.read_bytes()


def test_an_archive_and_a_changed_checkout_give_wheels_of_versions_of_their_own(bake, template, tmp_path):
    archive = tmp_path / "template.zip"
    git(template, "archive", "--format=zip", "--prefix=template/", f"--output={archive}", "HEAD")
    changed = tmp_path / "changed"
    shutil.copytree(template, changed)
    with (changed / "ml_platform" / "settings.py").open("a") as file:
        file.write("# changed\n")
    versions = set()
    for source in (archive, changed):
        done = bake(tmp_path / f"of-{source.stem}", source=str(source))
        assert done.returncode == 0, done.stderr
        versions.add(wheel_of(tmp_path / f"of-{source.stem}" / "prediction-lab").name)
    assert len(versions) == 2
    assert all("+d" in version for version in versions)


@pytest.mark.parametrize("prefix", ["", "git+"])
def test_a_url_is_pinned_with_its_commit_and_without_a_password(bake, template, url, tmp_path, prefix):
    source = f"{prefix}{url.replace('http://', 'http://ann:secret@')}"
    done = bake(tmp_path, source=source)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "prediction-lab"
    assert engine_pin(project) == f" @ git+{url}@{head(template)}"
    assert not (project / "vendor").exists()
    assert git(project, "grep", "-E", "ann:|secret@") == ""


def test_a_checkout_of_a_url_is_pinned_by_the_url_only_if_cookiecutter_cloned_it(bake, url, tmp_path):
    """The commit of a checkout of one's own may be nowhere else."""
    git(tmp_path, "clone", "--quiet", url, "checkout")
    done = bake(tmp_path, source=str(tmp_path / "checkout"))
    assert done.returncode == 0, done.stderr
    assert wheel_of(tmp_path / "prediction-lab").exists()


def test_a_project_made_as_cruft_does_it(template, url, tmp_path):
    git(tmp_path, "clone", "--quiet", url, "clone")
    arguments = [url, head(template), str(tmp_path / "clone"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", CRUFT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "prediction-lab"
    assert engine_pin(project) == f" @ git+{url}@{head(template)}"
    assert (project / "deploy" / "kubernetes" / "deployment.yaml").exists()
    assert not (project / ".git").exists()


def test_a_wheel_has_what_hatchling_would_put_into_it(wheel, tmp_path):
    def read(path: Path) -> tuple[set[str], dict[str, object]]:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            [info] = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
            names = {name.replace(info, "info") for name in archive.namelist() if not name.endswith("/")}
            fields = message_from_bytes(archive.read(f"{info}/METADATA"))
            points = archive.read(f"{info}/entry_points.txt").decode().split("\n\n")
            for line in archive.read(f"{info}/RECORD").decode().splitlines():
                name, digest, size = line.rsplit(",", 2)
                if name != f"{info}/RECORD":
                    content = archive.read(name)
                    assert (
                        digest == f"sha256={urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')}"
                    )
                    assert int(size) == len(content)
        required = {_normal(text) for text in fields.get_all("Requires-Dist", [])}
        return names, {
            "required": required,
            "points": {point.strip() for point in points},
            "python": SpecifierSet(fields["Requires-Python"]),
            **{name: fields[name] for name in ("Name", "Summary", "License-Expression")},
            "extras": set(fields.get_all("Provides-Extra", [])),
        }

    ours, theirs = read(wheel), read(build_wheel(tmp_path))
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert "ml_platform/docs/how-to/features/rolling.md" in ours[0]
    assert not [name for name in ours[0] if name.startswith(("ml_platform/defs", "serving", "ml_platform/definitions"))]


def _normal(text: str) -> tuple[str, frozenset[str], str, str]:
    requirement = Requirement(text)
    marker = str(requirement.marker or "").replace("(", "").replace(")", "")
    return requirement.name, frozenset(requirement.extras), str(requirement.specifier), marker


def test_a_project_gets_the_engine_of_another_checkout(bake, template, tmp_path):
    assert bake(tmp_path, "example=none").returncode == 0
    project, checkout = tmp_path / "prediction-lab", tmp_path / "checkout"
    before = wheel_of(project).name
    shutil.copytree(template, checkout)
    with (checkout / "ml_platform" / "settings.py").open("a") as file:
        file.write("# changed\n")
    command = [sys.executable, str(checkout / "hooks" / "engine_wheel.py")]
    done = subprocess.run([*command, str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert wheel_of(project).name != before
    assert engine_pin(project) in done.stdout.replace(" ", "==")
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the folder of a project made from this template" in done.stderr
