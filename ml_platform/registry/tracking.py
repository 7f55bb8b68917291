"""Experiment tracking: one thin wrapper around the MLflow client that knows this platform's settings."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from ml_platform.atomic_files import locked
from ml_platform.code_version import engine_code_version
from ml_platform.processes.identity import is_gone, this_process, this_user
from ml_platform.registry.artifacts import default_location, make_locations_relative
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_LONGEST_PARAM = 6000  # MLflow's own bound
_RUNS_AT_ONCE = 1000
_MODEL_TRAINING = "workflowType=machine_learning"  # the half of MLflow's UI that is not about agents
_EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
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
        """Experiment of a model, created when absent; MLflow opens it as one of model training, not of agents."""
        if (experiment := self.client.get_experiment_by_name(model)) is not None:
            for name, value in _EXPERIMENT_KIND.items():
                if name not in experiment.tags:
                    self.client.set_experiment_tag(experiment.experiment_id, name, value)
            return str(experiment.experiment_id)
        location = None
        if is_sqlite(self.settings.tracking_uri):
            location = default_location(self.settings) + model
        with locked(self.settings.home / "mlflow.lock"):
            if (experiment := self.client.get_experiment_by_name(model)) is not None:
                return str(experiment.experiment_id)
            return str(self.client.create_experiment(model, artifact_location=location, tags=_EXPERIMENT_KIND))

    @contextmanager
    def run(
        self, model: str, name: str, *, tags: Mapping[str, str] | None = None, resume: str | None = None
    ) -> Iterator[str]:
        """Open a run and yield its id; it ends as FINISHED, or as FAILED when an error passes through.

        What a kill has left open of the model is closed before: the retry of a training opens the first run after it.

        Parameters
        ----------
        model, name, tags
            Experiment, name and tags of the run.
        resume
            A run to go on with instead of a new one, if the store still has it.
        """
        self.close_dead_runs(model)
        if resume is not None and self.has_run(resume):
            run_id = self._reopen(resume, tags or {})
        else:
            run_id = self.open_run(model, name, tags=tags)
        try:
            yield run_id
        except BaseException as error:
            self.client.set_tag(run_id, "error", f"{type(error).__name__}: {error}"[:_LONGEST_PARAM])
            self.end_run(run_id, "FAILED")
            raise
        self.end_run(run_id, "FINISHED")

    def open_run(
        self, model: str, name: str, *, tags: Mapping[str, str] | None = None, parent: str | None = None
    ) -> str:
        """Open a run, in the name of this process's user, and return its id; `end_run` ends it."""
        every = {**self._own_tags(), **(tags or {})}
        if parent is not None:
            every["mlflow.parentRunId"] = parent
        return str(self.client.create_run(self.experiment_id(model), run_name=name, tags=every).info.run_id)

    def end_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run."""
        self.client.set_terminated(run_id, status)

    def has_run(self, run_id: str) -> bool:
        """Whether the store has a run that was not deleted."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return False
            raise

    def children(self, run_id: str, *, tag: str) -> dict[str, str]:
        """Ended runs under a run, by their value of a tag; those that a kill or an interruption ended are left out."""
        experiment = self.client.get_run(run_id).info.experiment_id
        runs: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [experiment],
                f"tags.`mlflow.parentRunId` = '{run_id}'",
                max_results=_RUNS_AT_ONCE,
                page_token=token,
            )
            for run in page:
                if run.info.status in ("FINISHED", "FAILED") and tag in run.data.tags:
                    runs[run.data.tags[tag]] = str(run.info.run_id)
            token = page.token
            if not token:
                return runs

    def add_model(self, run_id: str, name: str, params: Mapping[str, Any]) -> str:
        """Add a model of a run to MLflow's page of models, for its metrics alone: no file is stored. Return its id."""
        model = self.client.create_logged_model(
            self.client.get_run(run_id).info.experiment_id,
            name=name,
            source_run_id=run_id,
            params={key: str(value) for key, value in params.items()},
            tags={"files": "none"},
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def link(self, one: str, as_one: str, other: str, as_other: str) -> None:
        """Let two runs name each other: in tags (id and address), and in the description that MLflow shows of them."""
        for run_id, linked, name in ((one, other, as_other), (other, one, as_one)):
            url = self.run_url(linked)
            description = {"mlflow.note.content": f"Its {name}: [{url}]({url})"}
            self.log(run_id, tags={f"{name}_run_id": linked, f"{name}_run_url": url, **description})

    def _reopen(self, run_id: str, tags: Mapping[str, str]) -> str:
        self.client.update_run(run_id, status="RUNNING")
        self.log(run_id, tags={**self._own_tags(), **tags})
        if "error" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "error")
        return run_id

    def _own_tags(self) -> dict[str, str]:
        return {
            "mlflow.source.name": "ml_platform",
            "mlflow.user": this_user(),
            "engine_version": engine_code_version(),
            PROCESS_TAG: this_process(),
        }

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
        curves: Mapping[str, Mapping[int, float]] | None = None,
        tags: Mapping[str, str] | None = None,
        datasets: "Sequence[DatasetInput]" = (),
        dataset: "DatasetInput | None" = None,
        model_id: str | None = None,
    ) -> None:
        """Log parameters, metrics and tags of a run in one transaction.

        Parameters
        ----------
        run_id
            The run.
        params, metrics, tags
            By name.
        curves
            Metric → step → value.
        datasets
            Data that the run reads.
        dataset
            Data that the metrics are of; one of the run's.
        model_id
            Logged model that the metrics are of.
        """
        import time

        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        subject: dict[str, str] = {} if model_id is None else {"model_id": model_id}
        if dataset is not None:
            subject |= {"dataset_name": dataset.dataset.name, "dataset_digest": dataset.dataset.digest}
        steps = [(name, 0, value) for name, value in (metrics or {}).items()]
        steps += [(name, step, value) for name, curve in (curves or {}).items() for step, value in curve.items()]
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, step, **subject) for name, step, value in steps],
            params=[Param(name, str(value)[:_LONGEST_PARAM]) for name, value in (params or {}).items()],
            tags=[RunTag(name, value[:_LONGEST_PARAM]) for name, value in (tags or {}).items()],
        )
        if datasets:
            self.client.log_inputs(run_id, datasets=list(datasets))

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
        return f"{self.settings.mlflow_ui_url}/#/experiments/{experiment}/runs/{run_id}?{_MODEL_TRAINING}"

    def version_url(self, model: str, version: int) -> str:
        """Page of a registered version in the MLflow UI."""
        return f"{self.settings.mlflow_ui_url}/#/models/{model}/versions/{version}"
