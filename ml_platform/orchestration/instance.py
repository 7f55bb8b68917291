"""Makes the databases of Dagster's instance: `python -m ml_platform.orchestration.instance`, with `DAGSTER_HOME` set.

Dagster makes the SQLite databases of an empty home when it opens it. Processes that do so at once, as code server,
daemon and webserver at the first start, each write the version of the schema into them, and such an instance can never
be opened again ("more than one head present"). So one process opens it before any of them is started.
"""

import os
from pathlib import Path

import dagster as dg

from ml_platform.atomic_files import locked
from ml_platform.private_files import private_umask


def main() -> None:
    """Open the instance once, after any process that is doing the same."""
    private_umask()
    with locked(Path(os.environ["DAGSTER_HOME"]) / "instance.lock"), dg.DagsterInstance.get():
        pass


if __name__ == "__main__":
    main()
