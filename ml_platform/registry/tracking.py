"""Experiment tracking: one thin wrapper around the MLflow client that knows this platform's settings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ml_platform.atomic_files import locked
from ml_platform.code_version import engine_code_version
from ml_platform.processes.identity import is_gone, this_process
from ml_platform.registry.artifacts import default_location, make_locations_relative
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_LONGEST_PARAM = 6000  # MLflow's own bound
_RUNS_AT_ONCE = 1000
PLOTS = "plots"
PROCESS_TAG = "process"  # who writes a run: one that stays open although its process is gone is closed later


class Tracker:
    """MLflow as the platform uses it: an experiment per model, runs that end whatever happens, links for people.

    The SQLite backend is created on first use under a file lock, because two processes that create it at the same time
    crash one of them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def client(self) -> "MlflowClient":
        """Client of the tracking and registry store, which exists and is migrated from then on."""
        import mlflow

        uri = self.settings.tracking_uri

        def connect() -> "MlflowClient":
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)

        if not is_sqlite(uri):
            return connect()
        database = sqlite_file(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.settings.home / "mlflow.lock"):
            client = connect()  # already creates the tables, as does the first call
            client.search_experiments(max_results=1)
            make_locations_relative(database)
            return client

    def experiment_id(self, model: str) -> str:
        """Experiment of a model, created when absent."""
        if (experiment := self.client.get_experiment_by_name(model)) is not None:
            return str(experiment.experiment_id)
        location = None
        if is_sqlite(self.settings.tracking_uri):
            location = default_location(self.settings) + model
        with locked(self.settings.home / "mlflow.lock"):
            if (experiment := self.client.get_experiment_by_name(model)) is not None:
                return str(experiment.experiment_id)
            return str(self.client.create_experiment(model, artifact_location=location))

    @contextmanager
    def run(
        self, model: str, name: str, *, tags: Mapping[str, str] | None = None, parent: str | None = None
    ) -> Iterator[str]:
        """Open a run and yield its id; it ends as FINISHED, or as FAILED when an error passes through.

        What a kill has left open of the model is closed before: the retry of a training opens the first run after it.
        """
        if parent is None:
            self.close_dead_runs(model)
        every = {
            "mlflow.source.name": "ml_platform",
            "engine_version": engine_code_version(),
            PROCESS_TAG: this_process(),
            **(tags or {}),
        }
        if parent is not None:
            every["mlflow.parentRunId"] = parent
        opened = self.client.create_run(self.experiment_id(model), run_name=name, tags=every)
        run_id = str(opened.info.run_id)
        try:
            yield run_id
        except BaseException as error:
            self.client.set_tag(run_id, "error", f"{type(error).__name__}: {error}"[:_LONGEST_PARAM])
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id, "FINISHED")

    def close_dead_runs(self, model: str | None = None) -> list[str]:
        """End runs that are open although their process is gone, as KILLED.

        A run of another machine, or one that does not say its process, is left alone.

        Parameters
        ----------
        model
            Whose; of all models when None.

        Returns
        -------
        list[str]
            Ids of the runs.
        """
        client, closed = self.client, list[str]()
        if model is None:
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        else:
            experiments = [self.experiment_id(model)]
        for run in client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=_RUNS_AT_ONCE):
            if is_gone(run.data.tags.get(PROCESS_TAG, "")):
                client.set_tag(run.info.run_id, "error", "The process ended before the run did, by a kill or a crash.")
                client.set_terminated(run.info.run_id, "KILLED")
                closed.append(str(run.info.run_id))
        return closed

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log parameters, metrics and tags of a run in one transaction."""
        import time

        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, 0) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)[:_LONGEST_PARAM]) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Keep files as artifacts of a run; names are paths such as `plots/importance.png`."""
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._artifacts(run_id).log_artifacts(folder)

    def read_plots(self, run_id: str) -> dict[str, bytes]:
        """Plots of a run by file name; empty when there are none."""
        artifacts = self._artifacts(run_id)
        names = [item.path for item in artifacts.list_artifacts(PLOTS) if not item.is_dir]
        with TemporaryDirectory() as target:
            return {Path(name).name: Path(artifacts.download_artifacts(name, target)).read_bytes() for name in names}

    def _artifacts(self, run_id: str) -> "ArtifactRepository":
        """Artifacts of a run. The client's own calls remember them by run, whichever database the run is in."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = self.settings.tracking_uri
        location = self.client.get_run(run_id).info.artifact_uri
        return get_artifact_repository(location, tracking_uri=uri, registry_uri=uri)

    def run_url(self, run_id: str) -> str:
        """Page of a run in the MLflow UI."""
        experiment = self.client.get_run(run_id).info.experiment_id
        return f"{self.settings.mlflow_ui_url}/#/experiments/{experiment}/runs/{run_id}"

    def version_url(self, model: str, version: int) -> str:
        """Page of a registered version in the MLflow UI."""
        return f"{self.settings.mlflow_ui_url}/#/models/{model}/versions/{version}"
