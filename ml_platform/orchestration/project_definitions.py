"""What Dagster loads of a project: `definitions.py` names this."""

import dagster as dg

from ml_platform.orchestration.garbage_collection import garbage_collection_off
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
    with garbage_collection_off():
        from ml_platform.orchestration.load_project import load_project

        return load_project()
