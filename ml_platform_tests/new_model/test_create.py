"""One command writes a model's folder from a table of the lake or a file, all of its files or none."""

from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml_platform import project as projects
from ml_platform.cli import app
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.scaffold import TabularModelParams, TabularModelScaffolder
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project
from ml_platform_tests.new_model.rows import calls

PYPROJECT = '[tool.dg.project]\nroot_module = "shop"\n'


@pytest.fixture
def defs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty `defs/` of a project, which is the one that commands work for; `calls.csv` lies beside it."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    folder = tmp_path / "shop" / "defs"
    folder.mkdir(parents=True)
    calls().write_csv(tmp_path / "calls.csv")
    monkeypatch.setenv(projects.VARIABLE, str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


def new(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["new", "model", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["new", "model", *arguments])
    assert done.exit_code == 1, done.output
    return " ".join(done.output.split())


def models(defs: Path) -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in check_project(defs, {}).values()}


def test_a_file_becomes_a_table_and_a_model(defs: Path) -> None:
    said = new("bank_calls", "--data", "calls.csv", "--target", "y", "--owner", "bank@example.com")
    assert "wrote shop/defs/calls/defs.yaml" in said
    assert "wrote shop/defs/bank_calls/spine.sql" in said
    assert "Next: ml-platform run bank_calls" in said
    spec = models(defs)["bank_calls"]
    assert (spec.task, spec.owner, spec.id) == ("binary", "bank@example.com", "client_id")
    assert "path: calls.csv" in (defs / "calls" / "defs.yaml").read_text()


def test_a_model_that_is_called_as_its_table_leaves_it_a_folder_of_its_own(defs: Path) -> None:
    new("calls", "--data", "calls.csv", "--target", "y")
    assert (defs / "calls_table" / "defs.yaml").is_file()
    assert set(models(defs)) == {"calls"}


def test_a_table_of_the_lake_is_enough(defs: Path) -> None:
    Lake(Settings().lake_uri).replace("raw/bank", calls())
    new("bank_calls", "--from", "raw/bank", "--target", "y")
    assert "FROM raw.bank" in (defs / "bank_calls" / "spine.sql").read_text()


def test_a_table_that_is_declared_and_not_loaded_is_read_from_its_file(defs: Path) -> None:
    new("first", "--data", "calls.csv", "--target", "y")
    new("second", "--from", "raw/calls", "--target", "age")
    assert models(defs)["second"].task == "regression"


def test_dg_scaffolds_the_same(defs: Path) -> None:
    new("by_command", "--data", "calls.csv", "--target", "y")
    folder = defs / "by_dg"
    folder.mkdir()
    request = dg.ScaffoldRequest(
        type_name="ml_platform.orchestration.TabularModel",
        target_path=folder,
        scaffold_format="yaml",
        project_root=None,
        params=TabularModelParams.model_validate({"from": "raw/calls", "target": "y"}),
    )
    TabularModelScaffolder().scaffold(request)
    for name in ("defs.yaml", "spine.sql"):
        other = (defs / "by_command" / name).read_text()
        assert (folder / name).read_text() == other.replace("by_command", "by_dg")


def test_what_cannot_be_made_says_why_and_leaves_nothing(defs: Path) -> None:
    assert "say which table the model is made from" in refused("bank", "--target", "y")
    assert "there is no table 'raw/bank'" in refused("bank", "--from", "raw/bank", "--target", "y")
    assert "calls has no column 'outcome'" in refused("bank", "--data", "calls.csv", "--target", "outcome")
    assert "no file or folder" in refused("bank", "--data", "nothing.csv", "--target", "y")
    assert "--data makes a table raw/<name>" in refused("b1", "--data", "calls.csv", "--from", "x", "--target", "y")
    assert list(defs.iterdir()) == []
    new("bank", "--data", "calls.csv", "--target", "y")
    assert "is there already" in refused("bank", "--from", "raw/calls", "--target", "y")
    assert "raw/calls is declared already: leave --data out" in refused("b2", "--data", "calls.csv", "--target", "y")
