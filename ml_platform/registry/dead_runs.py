"""MLflow runs that a kill left open, looked for in MLflow's own SQLite file: in milliseconds, without its libraries."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

from ml_platform.processes.identity import is_gone
from ml_platform.registry.tracking import PROCESS_TAG, Tracker
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

_OPEN_RUNS = """
SELECT runs.run_uuid, runs.name, experiments.name, tags.value
FROM runs
JOIN experiments USING (experiment_id)
JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ?
WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
"""


@dataclass(frozen=True)
class DeadRun:
    """A run of MLflow that is open although its process ended.

    Attributes
    ----------
    run_id
        In MLflow.
    name
        Of the run, such as `automl`.
    model
        Whose experiment it is in.
    """

    run_id: str
    name: str
    model: str


def dead_runs(connection: sqlite3.Connection) -> list[DeadRun]:
    """Read which open runs have no process any more; those of other machines cannot be judged from here.

    Parameters
    ----------
    connection
        To MLflow's database; it is only read.

    Raises
    ------
    sqlite3.Error
        When it is none of MLflow's.
    """
    rows = connection.execute(_OPEN_RUNS, (PROCESS_TAG,)).fetchall()
    return [DeadRun(run, name or "run", model) for run, name, model, process in rows if is_gone(process)]


def close_dead_runs_at_start(settings: Settings) -> list[DeadRun]:
    """End runs that kills left open, as KILLED, before anything new starts; returns them.

    MLflow is imported only where there is such a run. A tracking server, or a database that is not there yet, is left
    to whoever writes the next run: a start waits for nothing over the network.

    Raises
    ------
    sqlite3.Error
        When the file is no database of MLflow.
    """
    uri = settings.tracking_uri
    if not is_sqlite(uri) or not sqlite_file(uri).exists():
        return []
    with closing(sqlite3.connect(f"{sqlite_file(uri).absolute().as_uri()}?mode=ro", uri=True)) as connection:
        left = dead_runs(connection)
    if left:
        closed = set(Tracker(settings).close_dead_runs())
        left = [run for run in left if run.run_id in closed]
    return left
