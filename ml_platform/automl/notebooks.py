"""Notebook files of AutoML: written from text, run, and read again."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ml_platform.automl.trial_notebook import RESULT_TAG
from ml_platform.distribution import extra
from ml_platform.notebook_files.execute import execute
from ml_platform.notebook_files.text import EXTRA, FORMATS, KERNEL, notebook_of, read_notebook
from ml_platform.notebook_files.text import write_notebook as write

LIBRARIES = ("ipykernel", "jupytext", "nbclient", "shap")


def require_notebooks() -> None:
    """Check that notebooks can be written and run (raises ExtraMissing, with the command that installs what is)."""
    with extra(EXTRA):
        for name in LIBRARIES:
            if find_spec(name) is None:  # importing SHAP alone takes seconds
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def write_notebook(text: str, path: Path) -> None:
    """Write `py:percent` text as a notebook (raises ExtraMissing)."""
    notebook = notebook_of(text, FORMATS[".py"], path)
    notebook.metadata["kernelspec"] = KERNEL
    write(notebook, path)


def execute_notebook(path: Path, *, timeout: int = 600) -> None:
    """Run all cells of a notebook in a kernel of this Python, and store it with its outputs.

    Parameters
    ----------
    path
        The notebook.
    timeout
        Seconds that a cell may take.

    Raises
    ------
    ExtraMissing
        When the extra `notebooks` is not installed.
    ml_platform.notebook_files.execute.CellFailed
        When a cell fails, with the error.
    """
    notebook = read_notebook(path)
    execute(notebook, path.parent, cell_seconds=timeout)
    write(notebook, path)


def notebook_metric(path: Path) -> float:
    """Read the metric that an executed notebook of a trial computed.

    Raises
    ------
    ValueError
        When it was not executed, or has no such cell.
    """
    with extra(EXTRA):
        import nbformat

    cells: list[Any] = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if RESULT_TAG in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    return float(output.data["text/plain"])
    raise ValueError(f"{path}: wanted an executed cell tagged '{RESULT_TAG}'; run the notebook first")
