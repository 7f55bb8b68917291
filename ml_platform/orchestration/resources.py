"""What assets use: the platform's stores as one Dagster resource, DuckDB as another, and documents as JSON."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.orchestration.json_io_manager import JsonIOManager
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.tracking import Tracker
    from ml_platform.training.data.split import TrainingRows


class Platform(dg.ConfigurableResource):
    """The stores that the platform keeps: lake, tracking, releases. Empty fields follow the environment's settings."""

    home: str = Field(default="", description="Folder of all local state; ML_PLATFORM_HOME or data/ when empty.")
    lake_uri: str = Field(default="", description="Folder or object-store URI of the lake.")
    tracking_uri: str = Field(default="", description="MLflow tracking and registry URI.")
    online_uri: str = Field(default="", description="Online store URI.")
    _rows: "tuple[ModelSpec, TrainingRows] | None" = PrivateAttr(None)  # the last that was asked for

    @property
    def settings(self) -> Settings:
        """Locations and addresses: the fields set here, the environment for the rest."""
        return Settings(**{name: value for name, value in self.model_dump().items() if value})

    @property
    def lake(self) -> "Lake":
        """The Delta tables."""
        from ml_platform.lake.storage.tables import Lake

        return Lake(self.settings.lake_uri)

    @property
    def releases(self) -> ReleaseStore:
        """Bundles and endpoint documents."""
        return ReleaseStore(self.settings.releases_dir)

    @property
    def tracker(self) -> "Tracker":
        """MLflow, opened once per process and backend."""
        from ml_platform.registry.tracking import Tracker

        return Tracker(self.settings)

    def training_rows(self, spec: ModelSpec, ref: TrainingSetRef) -> "TrainingRows":
        """Give a training set, read and split once for all steps that run in this process."""
        from ml_platform.training.data.split import TrainingRows

        if self._rows is None or (self._rows[0], self._rows[1].ref) != (spec, ref):
            self._rows = spec, TrainingRows.read(self.lake, spec, ref)
        return self._rows[1]


def build_resources(settings: Settings | None = None) -> dict[str, Any]:
    """Give the resources of the code location; of a folder of its own for tests.

    Parameters
    ----------
    settings
        Where the stores are; the environment's settings when absent.
    """
    resolved = settings or Settings()
    chosen = settings.model_dump(include={"home", "lake_uri", "tracking_uri", "online_uri"}) if settings else {}
    documents = JsonIOManager(folder=str(resolved.handoff_dir))
    return {
        "platform": Platform(**{name: str(value) for name, value in chosen.items()}),
        "duckdb": DuckDBResource(database=":memory:"),
        "json_io_manager": documents,
        "handoff": documents,  # deprecated: the former name
    }
