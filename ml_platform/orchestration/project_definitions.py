"""What Dagster loads of a project: `definitions.py` names this."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ml_platform.private_files import private_umask


@dg.definitions
def project_definitions() -> dg.Definitions:
    """Load everything that the project declares, and what every project has.

    Raises
    ------
    SpecError
        With the mistakes of all its YAML files.
    """
    private_umask()  # whichever command loads this: what its runs write is nobody else's to read
    with _garbage_collection_off():
        from ml_platform.orchestration.load_project import load_project

        return load_project()


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Spare the tenth of the time that goes into looking for garbage: nearly all that loading makes stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
