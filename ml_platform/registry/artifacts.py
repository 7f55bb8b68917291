"""Where MLflow's artifacts are, said relative to its SQLite database: a copied or moved folder of state is whole.

MLflow writes an artifact's place into its database as an absolute path. A backup that is restored elsewhere, or a copy
made to try something, would then read from and write to the folder that it was copied from. The platform's experiments
use addresses such as `home-artifacts:/flight_delay/<run>/artifacts` instead, which MLflow opens by `open_artifacts`,
found as a plugin (an entry point in `pyproject.toml`), in the UI as well.

A tracking server, or a database that is a server, keeps its artifacts where it was told to.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

if TYPE_CHECKING:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

SCHEME = "home-artifacts"
FOLDER = "mlflow_artifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def default_location(settings: Settings) -> str:
    """Return the address, ending in a slash, below which new experiments keep their artifacts.

    Examples
    --------
    >>> default_location(Settings(home=Path("/srv/platform"), tracking_uri=""))
    'home-artifacts:/'
    >>> default_location(Settings(home=Path("/srv/platform"), tracking_uri="postgresql://db/mlflow"))
    'file:///srv/platform/mlflow_artifacts/'
    """
    if is_sqlite(settings.tracking_uri):
        return f"{SCHEME}:/"
    return f"{(settings.home / FOLDER).as_uri()}/"


def open_artifacts(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "LocalArtifactRepository":
    """Open the folder that a `home-artifacts:` address names; called by MLflow.

    Parameters
    ----------
    artifact_uri
        The address.
    tracking_uri
        Of the database. When None, the one that this process uses; MLflow's server passes none and takes the
        environment's settings.
    registry_uri
        Passed on.

    Raises
    ------
    ValueError
        When the address leads out of the folder of artifacts, or the tracking store is no SQLite database.
    """
    import mlflow
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    store = tracking_uri or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else Settings().tracking_uri)
    if not is_sqlite(store):
        raise ValueError(
            f"{artifact_uri}: wanted a SQLite tracking store, which has its artifacts beside it, found "
            f"{urlsplit(store).scheme}:…; set ML_PLATFORM_TRACKING_URI to the database that this run is in"
        )
    root = sqlite_file(store).parent / FOLDER
    path = (root / unquote(urlsplit(artifact_uri).path).lstrip("/")).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{artifact_uri}: leads out of {root}")
    return LocalArtifactRepository(path.as_uri(), tracking_uri=tracking_uri, registry_uri=registry_uri)


def make_locations_relative(database: Path) -> int:
    """Rewrite absolute places of artifacts that are beside `database`, and that of MLflow's own first experiment.

    Homes made by earlier releases have them, and MLflow offers no call that moves an experiment. What is only somewhere
    else stays as it is.

    Returns
    -------
    int
        Addresses rewritten.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        absolute = "artifact_location LIKE 'file:%' OR artifact_location LIKE '/%'"
        if connection.execute(f"SELECT 1 FROM experiments WHERE {absolute}").fetchone() is None:
            return 0
        # The experiment `Default` is made with a folder below whichever one MLflow was first called in.
        unused = "experiment_id = 0 AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.experiment_id = 0)"
        changed = connection.execute(
            f"UPDATE experiments SET artifact_location = ? WHERE {unused} AND ({absolute})", (f"{SCHEME}:/0",)
        ).rowcount
        for table, column in _LOCATIONS:
            places = connection.execute(
                f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"
            ).fetchall()
            for (place,) in places:
                _, separator, inside = place.partition(f"/{FOLDER}/")
                is_here = (database.parent / FOLDER / unquote(inside)).exists()
                if separator and (is_here or not Path(unquote(urlsplit(place).path)).exists()):
                    relative = f"{SCHEME}:/{inside}"
                    update = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                    changed += connection.execute(update, (relative, place)).rowcount
        return changed
