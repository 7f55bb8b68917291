"""Notebook files: from text to `.ipynb`, and their execution without a browser."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ml_platform.automl.trial_notebook import RESULT_TAG
from ml_platform.distribution import extra

EXTRA = "notebooks"
LIBRARIES = ("ipykernel", "jupytext", "nbclient", "shap")
_STARTUP_SECONDS = 300  # on a busy machine


def require_notebooks() -> None:
    """Check that notebooks can be written and run (raises ExtraMissing, with the command that installs what is)."""
    with extra(EXTRA):
        for name in LIBRARIES:
            if find_spec(name) is None:  # importing SHAP alone takes seconds
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def write_notebook(text: str, path: Path) -> None:
    """Write `py:percent` text as a notebook (raises ExtraMissing)."""
    with extra(EXTRA):
        import jupytext
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    jupytext.write(notebook, path, fmt="ipynb")


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
    nbclient.exceptions.CellExecutionError
        When a cell fails, with its code and the error.
    """
    with extra(EXTRA):
        import nbformat
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient

    class ThisPython(AsyncKernelManager):
        """Kernels of the Python that runs this, whichever are installed for the user."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        startup_timeout=_STARTUP_SECONDS,
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with TemporaryDirectory() as sockets:
        manager = client.create_kernel_manager()
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", f"{sockets}/kernel"  # of this machine alone
        client.execute(env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    nbformat.write(notebook, path)


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
