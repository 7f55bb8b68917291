"""Notebooks as files: read as text, run without a browser, kept with their outputs and as pages."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.notebook_files.runs import NotebookRun, list_runs, run_notebook

__all__ = ["NotebookRun", "list_runs", "run_notebook"]

__getattr__, __dir__ = lazy_exports(__name__, {"runs": ["NotebookRun", "list_runs", "run_notebook"]})
