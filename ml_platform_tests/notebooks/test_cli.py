"""`ml-platform notebook`: examples of the project's models, runs, lists, and outputs taken out."""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.notebook_files.text import notebook_of
from ml_platform.notebooks.examples import EXAMPLES, example_text
from ml_platform_tests.toy_world import multiclass_spec, regression_spec, shop_spec


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))

    def invoke(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["notebook", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def test_an_example_is_written_once_for_a_model(run, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    assert "metrics by day" in run("new", "monitor", "flight_delay", "--to", path)
    assert 'MODEL = "flight_delay"' in path.read_text()
    assert "mine.py exists" in run("new", "monitor", "flight_delay", "--to", path, code=1)
    assert "there is no example 'monitr'" in run("new", "monitr", "flight_delay", code=1)
    assert "did you mean 'flight_delay'" in run("new", "monitor", "flight_dela", code=1)
    assert "ends in .py" in run("new", "monitor", "flight_delay", "--to", tmp_path / "mine.md", code=1)
    assert "wanted one example" in run("new", "all", "flight_delay", "--to", path, code=1)


@pytest.mark.parametrize("spec", [shop_spec(), multiclass_spec(), regression_spec()], ids=lambda spec: spec.task)
@pytest.mark.parametrize("tables", [[], ["raw/orders"]], ids=["no table", "a table"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_python_for_every_task(name: str, spec, tables: list[str]) -> None:
    for cell in notebook_of(example_text(name, spec, tables, "SELECT 1"), "py:percent").cells:
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


def test_runs_are_made_listed_and_told(run, tmp_path: Path) -> None:
    assert "No notebook was run yet" in run("list")
    path = tmp_path / "a.py"
    path.write_text('# %% tags=["parameters"]\nDAYS = 1\nNAME = "x"\n# %%\nprint(NAME, DAYS + 1)\n')
    told = run("run", path, "-p", "DAYS=41", "-p", "NAME=two words")
    assert "a: 3 cells in" in told
    page = Path(told.splitlines()[-1].removeprefix("page: "))
    assert "two words 42" in page.read_text()
    assert str(page) in run("list", "a")
    assert "no run of 'b' is kept. There are: a" in run("list", "b", code=1)
    assert "no parameter 'DAY'" in run("run", path, "-p", "DAY=1", code=1)
    assert "wanted NAME=VALUE" in run("run", path, "-p", "DAYS", code=1)
    assert "no such notebook" in run("run", tmp_path / "b.py", code=1)
    path.write_text("# %%\n1 / 0\n")
    assert "cell 1: ZeroDivisionError: division by zero" in run("run", path, code=1)


def test_outputs_are_found_and_taken_out(run, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    notebook = notebook_of("# %%\n1 + 1\n", "py:percent")
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="secret")]
    nbformat.write(notebook, path)
    assert "a.ipynb: has outputs" in run("strip", "--check", path, code=1)
    assert "secret" in path.read_text()
    assert "a.ipynb: outputs taken out" in run("strip", path)
    assert json.loads(path.read_text())["cells"][0]["outputs"] == []
    before = path.read_bytes()
    assert run("strip", path) == run("strip", "--check", path) == ""
    assert path.read_bytes() == before
    assert "have no outputs" in run("strip", tmp_path / "a.py", code=1)
