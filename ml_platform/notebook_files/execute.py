"""Runs all cells of a notebook without a browser, in a kernel of this Python."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ml_platform.distribution import extra
from ml_platform.notebook_files.text import EXTRA

if TYPE_CHECKING:
    from nbformat import NotebookNode

STARTUP_SECONDS = 300  # on a busy machine
_BACKEND = "module://matplotlib_inline.backend_inline"
_WARNINGS = "ignore:IProgress not found"  # of tqdm, whose bars are text without widgets


class CellFailed(RuntimeError):
    """A cell raised, or took too long; the notebook has what was printed until then."""


def execute(
    notebook: "NotebookNode",
    folder: Path,
    *,
    cell_seconds: float | None = 600,
    seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] = lambda _done, _cells: None,
) -> None:
    """Run the cells of a notebook, in order, in a kernel of their own; outputs are put into the notebook.

    Parameters
    ----------
    notebook
        What is run; also when a cell fails it has the outputs until there.
    folder
        Working directory of the kernel.
    cell_seconds, seconds
        What one cell, and all of them, may take; None for no limit.
    environment
        Variables beside those of this process.
    on_cell
        Called with the number of cells that are done, and all.

    Raises
    ------
    CellFailed
        When a cell raises or time is up, with the cell and the error.
    ExtraMissing
        When the extra `notebooks` is not installed.
    """
    with extra(EXTRA):
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    class ThisPython(AsyncKernelManager):
        """Kernels of the Python that runs this, whichever are installed for the user."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    started: float | None = None  # by the first cell: what a kernel takes to start does not count

    def elapsed() -> float:
        return 0.0 if started is None else time.monotonic() - started

    def remaining(_cell: Any = None) -> float | None:
        left = None if seconds is None else max(seconds - elapsed(), 0.001)
        return min((one for one in (left, cell_seconds) if one is not None), default=None)

    current = 0

    def begun(cell_index: int, **_: Any) -> None:
        nonlocal current, started
        current, started = cell_index + 1, started or time.monotonic()

    def done(**_: Any) -> None:
        on_cell(current, len(notebook.cells))

    client = NotebookClient(
        notebook,
        timeout_func=remaining,
        startup_timeout=STARTUP_SECONDS,
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=begun,
        on_cell_complete=done,
    )
    with TemporaryDirectory() as sockets:
        manager = client.create_kernel_manager()
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", f"{sockets}/kernel"  # of this machine alone
        try:
            client.execute(env=kernel_environment() | dict(environment or {}))
        except CellExecutionError as error:
            raise CellFailed(f"cell {current}: {error.ename}: {error.evalue}") from error
        except CellTimeoutError as error:
            over = seconds is not None and elapsed() >= seconds
            limit = f"{seconds:g} s for all cells" if over else f"{cell_seconds:g} s for a cell"
            raise CellFailed(f"cell {current}: stopped at the limit of {limit}") from error
        except DeadKernelError as error:
            raise CellFailed(f"cell {current}: its process ended (out of memory, or killed)") from error


def kernel_environment() -> dict[str, str]:
    """Variables of a kernel: those of this process, plots in the notebook, and no warning of missing widgets."""
    warnings = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), _WARNINGS)))
    return {**os.environ, "MPLBACKEND": _BACKEND, "PYTHONWARNINGS": warnings}
