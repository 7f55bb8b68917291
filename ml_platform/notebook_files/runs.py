"""Runs of a notebook, kept: the notebook with its outputs, and the page of it.

    <home>/notebooks/<name>/<instant>/notebook.ipynb, page.html, run.json       the newest `KEPT` of each

A run's folder appears under its name when the run has ended, well or not: the page of a failed one shows where it
stopped.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from ml_platform.atomic_files import replace_file
from ml_platform.notebook_files.execute import CellFailed, execute
from ml_platform.notebook_files.render import to_html
from ml_platform.notebook_files.text import Value, read_notebook, set_parameters, write_notebook
from ml_platform.spec.types import Strict

KEPT = 30
PAGE, NOTEBOOK, RECORD = "page.html", "notebook.ipynb", "run.json"
_UNFINISHED = ".running-"
_NAME = re.compile(r"\w[\w. -]{0,99}")
_RUN = re.compile(r"\d{8}T\d{12}")  # a run's folder: nothing else is ever deleted


class NotebookRun(Strict):
    """What became of a run of a notebook."""

    name: str = Field(description="Name of the notebook.")
    started_at: datetime = Field(description="When it began (UTC).")
    seconds: float = Field(description="How long it took.")
    cells: int = Field(description="Cells that it has.")
    parameters: dict[str, Value] = Field(description="Values that were given.")
    error: str | None = Field(description="Which cell failed, and how; null when all ran.")
    folder: str = Field(description="Folder of the notebook with its outputs and of the page.")

    @property
    def page(self) -> Path:
        """The page of the run."""
        return Path(self.folder) / PAGE


def run_notebook(
    path: Path,
    home: Path,
    *,
    name: str | None = None,
    parameters: Mapping[str, Value] | None = None,
    folder: Path | None = None,
    seconds: float | None = None,
    code: bool = True,
    kept: int = KEPT,
    on_cell: Callable[[int, int], None] = lambda _done, _cells: None,
) -> NotebookRun:
    """Run a notebook with parameters, and keep it with its outputs and as a page.

    Parameters
    ----------
    path
        The notebook, `.py` (py:percent), `.md` or `.ipynb`; it is not changed.
    home
        Folder of the runs, by name.
    name
        What the runs are kept under; the file's name when None.
    parameters
        Values for names that the cell tagged `parameters` assigns.
    folder
        Working directory; that of the notebook when None.
    seconds
        What all cells together may take; None for no limit.
    code
        Whether the page shows the code.
    kept
        Runs that are kept; older ones are deleted.
    on_cell
        Called with the number of cells that are done, and all.

    Raises
    ------
    FileNotFoundError, ml_platform.notebook_files.text.NotebookUnreadable
        When there is no such notebook, or it has no such parameters.
    ValueError
        When the runs cannot be kept under the name.
    ml_platform.distribution.ExtraMissing
        When the extra `notebooks` is not installed.

    Notes
    -----
    A cell that fails does not raise: the run says so in `error`, and what was computed until then is kept.
    """
    name = name or path.stem
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name: wanted letters, digits and any of . _ - (not first), up to 100 of them, found {name[:120]!r}"
        )
    notebook = read_notebook(path)
    given = dict(parameters or {})
    set_parameters(notebook, given, path)
    started = datetime.now(UTC)
    runs = home / name
    _clear_unfinished(runs)
    staged = runs / f"{_UNFINISHED}{started:%Y%m%dT%H%M%S%f}-{os.getpid()}"
    staged.mkdir(parents=True)
    error = None
    try:
        execute(notebook, folder or path.parent, cell_seconds=None, seconds=seconds, on_cell=on_cell)
    except CellFailed as failure:
        error = str(failure)
    except BaseException as interruption:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(interruption, AssertionError):  # nbclient's, when a signal ends it while it waits
            raise KeyboardInterrupt from interruption
        raise
    target = runs / f"{started:%Y%m%dT%H%M%S%f}"
    run = NotebookRun(
        name=name,
        started_at=started,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        cells=len(notebook.cells),
        parameters=given,
        error=error,
        folder=str(target),
    )
    write_notebook(notebook, staged / NOTEBOOK)
    values = ", ".join(f"{key} = {value!r}" for key, value in given.items())
    note = f"{started:%Y-%m-%d %H:%M} UTC, of {path.name}" + (f", with {values}" if values else "")
    note += f". It failed: {error}" if error else ""
    replace_file(staged / PAGE, to_html(notebook, name, note=note, code=code or error is not None).encode())
    replace_file(staged / RECORD, run.model_dump_json(indent=1).encode())
    staged.rename(target)
    for old in sorted(one for one in runs.iterdir() if _RUN.fullmatch(one.name))[: -max(kept, 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return run


def list_runs(home: Path, name: str) -> list[NotebookRun]:
    """Runs of a notebook that are kept, the newest first."""
    runs = []
    for path in sorted((home / name).glob(f"*/{RECORD}"), reverse=True):
        if _RUN.fullmatch(path.parent.name):
            try:
                runs.append(NotebookRun.model_validate_json(path.read_bytes()))
            except ValidationError:  # a damaged record hides no other run
                runs.append(_unreadable(name, path))
    return runs


def _unreadable(name: str, path: Path) -> NotebookRun:
    started = datetime.strptime(path.parent.name, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    error = f"{path.name} cannot be read: delete {path.parent}"
    return NotebookRun(
        name=name, started_at=started, seconds=0, cells=0, parameters={}, error=error, folder=str(path.parent)
    )


def _clear_unfinished(runs: Path) -> None:
    """Delete what runs left that were killed: of processes that are gone."""
    for left in runs.glob(f"{_UNFINISHED}*"):
        pid = int(left.name.rpartition("-")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue
