"""`ml-platform reproduce`, as people and scripts call it: also on one processor, with other hashes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.promotion.versions import register
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.promotion.reproduction.test_reproduce import project
from ml_platform_tests.toy_world import Shops

ONE_PROCESSOR = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from ml_platform.cli import main
main()
"""


@pytest.fixture(scope="module")
def home(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project `shop` with one registered version in `home`. Read only, but for reports."""
    first, trained = trained_shops
    root = tmp_path_factory.mktemp("reproduce_cli")
    shops = Shops(
        Settings(home=shutil.copytree(first.settings.home, root / "home")), first.folder, first.spec, first.views
    )
    register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    (root / "shop").mkdir()
    project(root / "shop" / "defs", shops)
    (root / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    return root


def test_equal_on_another_number_of_processors_with_other_hashes(home: Path) -> None:
    variables = {
        "ML_PLATFORM_HOME": str(home / "home"),
        "ML_PLATFORM_PROJECT": str(home),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "PYTHONHASHSEED": "4242",
        "TZ": "Asia/Tokyo",
    }
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESSOR, "reproduce", "order_late@1", "--to", str(home / "report.html")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "order_late version 1: equal"
    assert any(line.startswith("  processors ") for line in lines) == (os.cpu_count() != 1)
    assert "order_late" in (home / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["order_late@7"], "order_late: no version 7 is registered; there are [1]", 1),
        (["order_late@champion"], "order_late: nothing serves, so there is no champion", 1),
        (["other@1"], "other: no version 1 is registered; registered models: order_late", 1),
        (["order late"], "wanted a model and a version, as my_model@champion", 1),
        (["order_late@1", "--to", "report.pdf"], "--to: wanted a file that ends in .html or .json", 1),
    ],
)
def test_what_is_not_there_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str, code: int
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home / "home"))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(home))
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exit_code == code
    assert said in result.output


def test_a_version_that_cannot_be_made_again_has_an_exit_code_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copied = shutil.copytree(home / "home", tmp_path / "home")
    shutil.rmtree(copied / "releases" / "recipes")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(copied))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(home))
    result = CliRunner().invoke(app, ["reproduce", "order_late@1"])
    assert result.exit_code == 4, result.output
    assert "order_late version 1: not reproduced" in result.output
