"""Opens Dagster's instance: its databases are made by one process, whoever else starts beside it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from ml_platform.atomic_files import locked

LOCK = "instance.lock"


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance of `DAGSTER_HOME`, after any process that is opening it at this moment.

    Dagster makes the SQLite databases of an empty home on opening it. Two processes that do so at once, as daemon and
    webserver at the first start, both write the version of the schema into them, and such an instance can never be
    opened again ("more than one head present").

    Raises
    ------
    DagsterHomeNotSetError
        When `DAGSTER_HOME` is not set.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        instance = dg.DagsterInstance.get()
    else:
        with locked(Path(home) / LOCK):
            instance = dg.DagsterInstance.get()
    with instance:
        yield instance
