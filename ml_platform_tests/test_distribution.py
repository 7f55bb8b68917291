"""What the wheel contains, and that each extra brings what the code it is for imports."""

import importlib
import importlib.metadata
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from ml_platform.distribution import DISTRIBUTION, ExtraMissing, engine_version, extra
from ml_platform.settings import Settings
from ml_platform_tests.installed_engine import build_wheel, make_environment, required_by, run
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.serving.conftest import start_server
from ml_platform_tests.serving.releases import ROW, fill_online_store, publish
from ml_platform_tests.test_imports import imported_names

DESCRIBED = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(package.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def serving_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel and its extra `serving`, which has no editable install of anything."""
    return make_environment(tmp_path_factory.mktemp("serving"), wheel, "serving")


def test_the_wheel_has_the_engine_without_the_example_and_without_the_projects_app(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    stem = f"dagster_ml_platform-{DESCRIBED['version']}"
    assert wheel.name == f"{stem}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {"ml_platform", f"{stem}.dist-info"}
    assert "ml_platform/py.typed" in names
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "ml_platform", "docs/*.md", "README.md"],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    left_out = re.compile(r"ml_platform/(defs/.*|definitions\.py|bootstrap\.py)")
    packed = {name.removeprefix("ml_platform/") for name in names if name.startswith("ml_platform/")}
    wanted = {name for name in tracked if not left_out.fullmatch(name)}
    assert packed == {f"docs/{name}" if name == "README.md" else name.removeprefix("ml_platform/") for name in wanted}


def test_the_extra_serving_brings_all_that_the_server_imports(serving_python: Path, tmp_path: Path) -> None:
    done = run(serving_python, ["-c", IMPORT_ALL, "ml_platform.serving"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(serving_python.parents[1])
    version = run(serving_python, ["-c", "from ml_platform.distribution import *; print(engine_version())"], tmp_path)
    assert version.stdout.strip() == DESCRIBED["version"] == engine_version()


def test_the_extra_serving_is_enough_to_answer(serving_python: Path, settings: Settings, tmp_path: Path) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    shutil.copytree(PROJECT_ROOT / "serving", tmp_path / "serving")  # the project's app, as in the image
    server = start_server(settings, python=serving_python, folder=tmp_path)
    try:
        answer = server.client.post("/predict/flight_delay", json=ROW)
        assert answer.status_code == 200, answer.text
        assert server.client.get("/version").text == DESCRIBED["version"]
        assert server.client.get("/docs").status_code == server.client.get("/").status_code == 200
    finally:
        server.stop()


@pytest.mark.slow
def test_the_extra_platform_brings_all_that_the_engine_imports(wheel: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "platform", wheel, "platform")
    done = run(python, ["-c", IMPORT_ALL, "ml_platform"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert "No module named 'ml_platform.defs'" in run(python, ["-c", "import ml_platform.defs"], tmp_path).stderr


def undeclared(*extras: str, below: str = "ml_platform") -> set[str]:
    """Libraries that the code below a folder names in any import, also inside functions, and that no extra brings."""
    brings = required_by(*extras)
    names = set[str]()
    for path in (PROJECT_ROOT / below).rglob("*.py"):
        if "defs" not in path.relative_to(PROJECT_ROOT).parts:
            names |= imported_names(path)
    providers = importlib.metadata.packages_distributions()
    return {
        name
        for name in names & set(providers) - {"ml_platform"}
        if brings.isdisjoint(map(canonicalize_name, providers[name]))
    }


def test_every_library_that_is_imported_is_declared_where_it_is_needed() -> None:
    frameworks = {"keras", "tensorflow", "torch"}  # not always installed
    assert (
        undeclared("platform", "postgres", "ray", "otel", "catboost", "xgboost", "notebooks", "streaming") <= frameworks
    )
    notebooks = {"IPython", "ipykernel", "jupyter_client", "jupytext", "nbclient", "nbconvert", "nbformat", "shap"}
    brokers = {"confluent_kafka", "nats"}
    optional = {"opentelemetry", "psycopg", "ray", "catboost", "xgboost"} | notebooks | brokers
    assert undeclared("platform") <= optional | frameworks
    assert undeclared("serving", below="ml_platform/serving") <= {"opentelemetry", "ray"}
    assert undeclared(below="ml_platform/spec") == set()


def test_the_servers_command_line_names_the_extra_that_it_lacks(serving_python: Path, tmp_path: Path) -> None:
    done = run(serving_python, ["-m", "ml_platform", "status"], tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        r"ml-platform: \w+ is not installed; it belongs to the extra 'platform': "
        r"pip install 'dagster-ml-platform\[platform\]'\n",
        done.stderr,
    )


def test_ray_serve_names_the_extra_that_it_lacks(serving_python: Path, tmp_path: Path) -> None:
    done = run(serving_python, ["-m", "ml_platform.serving.ray_app", "ray_serve.yaml"], tmp_path)
    assert done.returncode == 1
    assert "pip install 'dagster-ml-platform[ray-serve]'" in done.stderr


def test_a_module_of_the_engine_that_is_missing_is_not_taken_for_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, extra("platform"):
        importlib.import_module("ml_platform.no_such_module")
    assert not isinstance(caught.value, ExtraMissing)


def test_every_extra_that_is_named_is_declared_and_documented() -> None:
    declared = set(DESCRIBED["optional-dependencies"])
    named = set()
    for path in [
        *PROJECT_ROOT.glob("ml_platform/**/*.py"),
        *PROJECT_ROOT.glob("*.md"),
        *PROJECT_ROOT.glob("docs/**/*.md"),
    ]:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'\bextra\("([\w-]+)"\)', text))
        for distribution, extras in re.findall(r"([\w-]*ml-platform)\[([\w,-]+)\]", text):
            assert distribution == DISTRIBUTION, path
            named |= set(extras.split(","))
    assert {"platform", "postgres", "ray", "ray-serve", "otel"} <= named <= declared
    page = (PROJECT_ROOT / "docs" / "operations" / "installation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == declared
