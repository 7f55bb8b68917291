"""Notebooks as text: three forms, parameters by name, outputs taken out, and damaged files told."""

import json
from pathlib import Path

import pytest

from ml_platform.notebook_files.text import (
    INJECTED,
    NotebookUnreadable,
    Value,
    notebook_of,
    parameter_names,
    read_notebook,
    set_parameters,
    strip_outputs,
    write_notebook,
)

TEXT = """# %% [markdown]
# # A title

# %% tags=["parameters"]
DAYS = 28
MODEL: str = "a"

# %% magic_args="--to rows" language="sql"
# SELECT 1 AS one

# %%
DAYS
"""


@pytest.mark.parametrize("name", ["a.py", "a.md", "a.ipynb"])
def test_each_form_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    write_notebook(notebook_of(TEXT, "py:percent"), tmp_path / name)
    cells = read_notebook(tmp_path / name).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "code", "code"]
    assert cells[1].metadata["tags"] == ["parameters"]
    assert cells[2].source == "%%sql --to rows\nSELECT 1 AS one"


def test_parameters_come_after_the_defaults_and_only_those_that_there_are() -> None:
    notebook = notebook_of(TEXT, "py:percent")
    set_parameters(notebook, {"DAYS": 7, "MODEL": "b's"}, "a.py")
    assert notebook.cells[2].source.splitlines()[1:] == ["DAYS = 7", 'MODEL = "b\'s"']
    assert notebook.cells[2].metadata["tags"] == [INJECTED]
    with pytest.raises(
        NotebookUnreadable, match=r"a.py: no parameter 'DAY'; did you mean 'DAYS'\? It has: DAYS, MODEL"
    ):
        set_parameters(notebook, {"DAY": 7}, "a.py")
    with pytest.raises(NotebookUnreadable, match="it takes no parameters \\(DAYS given\\): mark the cell"):
        set_parameters(notebook_of("# %%\n1", "py:percent"), {"DAYS": 7})
    with pytest.raises(NotebookUnreadable, match="its cell of parameters is not Python: line 1"):
        parameter_names("DAYS = = 1")


def test_outputs_counts_and_widgets_are_taken_out() -> None:
    notebook = notebook_of(TEXT, "py:percent")
    assert not strip_outputs(notebook)
    notebook.cells[1].execution_count = 2
    notebook.cells[3].outputs = [{"output_type": "stream", "name": "stdout", "text": "secret"}]
    notebook.cells[3].metadata["ExecuteTime"] = {"end_time": "now"}
    notebook.metadata["widgets"] = {"state": {}}
    assert strip_outputs(notebook)
    assert not strip_outputs(notebook)
    assert "secret" not in json.dumps(notebook)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "{}", '{"cells": [], "nbformat": 4}', '{"nbformat": 3}'])
@pytest.mark.filterwarnings("ignore:Notebooks in nbformat version")
def test_what_is_no_notebook_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(NotebookUnreadable, match=r"a\.ipynb: not a notebook|found none"):
        read_notebook(tmp_path / "a.ipynb")


def test_other_files_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "weekly.py").write_text("# %%\n1\n")
    (tmp_path / "latin.py").write_bytes(b"# %%\n'\xe9'\n")
    (tmp_path / "words.md").write_text("# Only words\n")
    with pytest.raises(FileNotFoundError, match=r"no such notebook; did you mean 'weekly.py'\?"):
        read_notebook(tmp_path / "weekley.py")
    with pytest.raises(NotebookUnreadable, match=r"ends in \.py, \.md, \.ipynb"):
        read_notebook(tmp_path / "weekly.txt")
    with pytest.raises(NotebookUnreadable, match="not a text in UTF-8, at byte 6"):
        read_notebook(tmp_path / "latin.py")
    with pytest.raises(NotebookUnreadable, match="wanted a notebook with cells of code, found none"):
        read_notebook(tmp_path / "words.md")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, True, "a\nb", [1, {"a": None}]])
def test_a_value_is_what_the_cell_assigns(value: Value) -> None:
    notebook = notebook_of(TEXT, "py:percent")
    set_parameters(notebook, {"DAYS": value})
    assigned: dict[str, object] = {}
    exec(notebook.cells[2].source, assigned)
    assert repr(assigned["DAYS"]) == repr(value)


def test_a_value_that_no_file_can_hold_is_told() -> None:
    with pytest.raises(NotebookUnreadable, match="parameter 'DAYS': wanted a JSON value"):
        set_parameters(notebook_of(TEXT, "py:percent"), {"DAYS": "\ud800"})
    assert parameter_names("A, B = 1, 2") == ["A", "B"]
