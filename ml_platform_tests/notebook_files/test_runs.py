"""Runs of notebooks in real kernels: kept whole with a page, limited in time, and told where they fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ml_platform.notebook_files.runs import NOTEBOOK, list_runs, run_notebook
from ml_platform.notebook_files.text import read_notebook
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture

TEXT = """# %% tags=["parameters"]
N = 3

# %%
import os
from IPython.display import HTML
print(os.getcwd(), "n is", N)
HTML("<h1>A heading</h1><script>document.title = 'new'</script><img src=x onerror=\\"document.title = 'new'\\">")
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "weekly.py"
    path.write_text(text)
    return path


def test_a_run_is_kept_with_its_parameters_outputs_and_page(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    done = []
    run = run_notebook(path, tmp_path / "runs", parameters={"N": 7}, on_cell=lambda *at: done.append(at))
    assert (run.error, run.cells, done) == (None, 3, [(1, 3), (2, 3), (3, 3)])
    assert f"{tmp_path} n is 7" in str(read_notebook(Path(run.folder) / NOTEBOOK).cells[2].outputs)
    page = run.page.read_text()
    assert "of weekly.py, with N = 7" in page
    assert "n is 7" in page
    assert path.read_text() == TEXT
    assert list_runs(tmp_path / "runs", "weekly") == [run]
    hidden = run_notebook(path, tmp_path / "runs", code=False, kept=1).page.read_text()
    assert "n is 3" in hidden
    assert "getcwd" not in hidden
    assert [one.parameters for one in list_runs(tmp_path / "runs", "weekly")] == [{}]  # the older one is gone


def test_a_page_runs_no_script_and_loads_nothing(tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    run = run_notebook(write(tmp_path, TEXT), tmp_path / "runs")
    page = browser.new_page()
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(request.url))
    page.goto(run.page.as_uri())
    assert page.title() == "weekly"
    assert page.locator("h1").inner_text() == "A heading"
    assert loaded == [run.page.as_uri()]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "cell 2: ZeroDivisionError: division by zero"),
        ("import time; time.sleep(3600)", "cell 2: stopped at the limit of 10 s for all cells"),
        ("import os; os._exit(3)", "cell 2: its process ended (out of memory, or killed)"),
    ],
)
def test_a_cell_that_fails_ends_the_run_and_what_was_computed_is_kept(tmp_path: Path, code: str, error: str) -> None:
    path = write(tmp_path, f"# %%\nprint('so far')\n# %%\n{code}\n# %%\nprint('never')\n")
    run = run_notebook(path, tmp_path / "runs", seconds=10 if "sleep" in code else None)
    assert run.error == error
    page = run.page.read_text()
    assert "It failed: cell 2" in page
    assert page.count("so far") >= 2  # the code, and what it printed
    assert list_runs(tmp_path / "runs", "weekly")[0].error == error


def test_what_a_killed_run_left_is_cleared_and_what_runs_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    runs = tmp_path / "runs" / "weekly"
    dead, alive = (runs / f".running-20240101T000000000000-{pid}" for pid in (ended.pid, os.getpid()))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    run_notebook(write(tmp_path, "# %%\n1\n"), tmp_path / "runs")
    assert not dead.exists()
    assert alive.exists()
    assert len(list_runs(tmp_path / "runs", "weekly")) == 1


@pytest.mark.parametrize("name", ["..", "/tmp/other", "team/weekly", ".hidden", "", "a\nb"])
def test_runs_are_kept_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name: wanted letters"):
        run_notebook(write(tmp_path, "# %%\n1\n"), tmp_path / "runs", name=name or " ")
    assert not (tmp_path / "runs").exists()


def test_only_runs_are_deleted_and_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    other = tmp_path / "runs" / "weekly" / "a_thesis"
    other.mkdir(parents=True)
    path = write(tmp_path, "# %%\n1\n")
    first = run_notebook(path, tmp_path / "runs")
    (Path(first.folder) / "run.json").write_text("{")
    second = run_notebook(path, tmp_path / "runs", kept=2)
    assert [one.folder for one in list_runs(tmp_path / "runs", "weekly")] == [second.folder, first.folder]
    assert "run.json cannot be read" in str(list_runs(tmp_path / "runs", "weekly")[1].error)
    run_notebook(path, tmp_path / "runs", kept=1)
    assert other.exists()
    assert not Path(first.folder).exists()
