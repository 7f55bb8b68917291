"""The search in MLflow: one run, and under it a run for each trial, written while it lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ml_platform.compute import Executor
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.registry.datasets import TableVersion
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import SearchResult
from ml_platform.training.search.plots import search_plots
from ml_platform.training.search.records import TrialRecord
from ml_platform.training.search.study import SearchStudy

TRIAL_TAG = "trial"  # number of a trial
_RUN_ID, _CONCLUDED = "run_id", "concluded"  # attributes of the study
_CURVE_POINTS = 50


@dataclass
class SearchRun:
    """A search as a run of MLflow."""

    tracker: Tracker
    spec: ModelSpec
    study: SearchStudy
    dataset: TableVersion
    run_id: str
    is_open: bool = True
    _trials: dict[int, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(
        cls, tracker: Tracker, spec: ModelSpec, study: SearchStudy, dataset: TableVersion, *, executor: Executor
    ) -> Iterator["SearchRun"]:
        """Open the run of a study: that of an earlier process where there is one, as it is if that had come to its end.

        A trial that ended without its run being written to its end, or whose runs were deleted, is written anew. The
        version of the training set is added to the run's data where an earlier process had the same rows as another.
        """
        attributes = study.study.user_attrs
        earlier = attributes.get(_RUN_ID)
        if earlier is not None and attributes.get(_CONCLUDED) and tracker.has_run(earlier):
            concluded = cls(tracker, spec, study, dataset, earlier, is_open=False)
            concluded._add_data()
            yield concluded
            return
        tags = {"stage": "search", "executor": executor, "study": study.study.study_name}
        with tracker.run(spec.name, "search", tags=tags, resume=earlier) as run_id:
            run = cls(tracker, spec, study, dataset, run_id)
            if run_id != earlier:
                study.study.set_user_attr(_RUN_ID, run_id)
                run._describe()
            run._add_data()
            run._catch_up()
            try:
                yield run
            finally:
                for unfinished in run._trials.values():
                    tracker.end_run(unfinished, "KILLED")

    def begin_trial(self, number: int, family: str) -> None:
        """Open a trial's run."""
        run_id = self.tracker.open_run(
            self.spec.name,
            f"{_short(family)}-{number}",
            parent=self.run_id,
            tags={"stage": "trial", TRIAL_TAG: str(number), "family": family},
        )
        self._trials[number] = run_id
        self.tracker.log(run_id, params={"family": family}, datasets=[self.dataset.input("training")])

    def end_trial(self, record: TrialRecord) -> None:
        """Write what came of a trial, and end its run."""
        if record.number not in self._trials:  # it failed before it began
            self.begin_trial(record.number, record.family)
        run_id = self._trials[record.number]
        metrics: dict[str, float] = {}  # in the order of MLflow's columns
        if record.state == "complete":
            metrics |= {f"validation_{name}": value for name, value in record.metrics.items()}
            metrics |= {f"train_{name}": value for name, value in record.train_metrics.items()}
        metrics["seconds"] = record.seconds
        step = max(1, -(-len(record.curve) // _CURVE_POINTS))
        curves = {
            f"{self.spec.metric}_by_rows": dict(record.rungs) if len(record.rungs) > 1 else {},
            "validation_loss_by_round": {
                round_: loss for round_, loss in enumerate(record.curve, start=1) if not round_ % step
            },
        }
        model_id = None
        if record.state == "complete":  # the page of models compares them by their metrics on a data set
            model_id = self.tracker.add_model(run_id, f"{_short(record.family)}-{record.number}", record.params)
        tags = {"state": record.state, **({"reason": record.reason} if record.reason else {})}
        self.tracker.log(
            run_id,
            params=record.params,
            metrics=metrics,
            curves=curves,
            tags=tags,
            dataset=self.dataset.input("training"),
            model_id=model_id,
        )
        self.tracker.end_run(run_id, "FAILED" if record.state == "failed" else "FINISHED")
        del self._trials[record.number]

    def conclude(self, result: SearchResult, records: Sequence[TrialRecord]) -> None:
        """Write the best trial and the pictures of the study; nothing where an earlier process did."""
        if not self.is_open:
            return
        best = result.best
        self.tracker.log(
            self.run_id,
            params={"best_family": best.family, **{f"best.{name}": value for name, value in best.params.items()}},
            metrics={f"validation_{name}": value for name, value in best.metrics.items()},
            tags={"best_trial": str(best.number)},
        )
        plots = search_plots(records, self.spec.metric, higher_is_better=self.spec.higher_is_better)
        self.tracker.log_files(self.run_id, {f"{PLOTS}/{name}": image for name, image in plots.items()})
        self.study.study.set_user_attr(_CONCLUDED, True)

    def _describe(self) -> None:
        settings = {
            "metric": self.spec.metric,
            "families": ", ".join(self.spec.families),
            "training_set_version": self.dataset.version,
            "rows": len(self.study.data.y),
        }
        tuning = self.spec.tuning.model_dump(exclude={"executor"})
        self.tracker.log(
            self.run_id, params={**settings, **{f"tuning.{name}": value for name, value in tuning.items()}}
        )

    def _add_data(self) -> None:
        self.tracker.log(self.run_id, datasets=[self.dataset.input("training")])  # what is there already stays one

    def _catch_up(self) -> None:
        records = self.study.records()
        written = self.tracker.children(self.run_id, tag=TRIAL_TAG) if records else {}
        for record in records:
            if str(record.number) not in written:
                self.end_trial(record)


def _short(family: str) -> str:
    """Name of a family, without the path of a class of the project's own."""
    return family.rpartition(".")[2]


def dataset_of(tracker: Tracker, ref: TrainingSetRef) -> TableVersion:
    """Describe a training set as the data of runs."""
    kinds = {"numeric": "double", "categorical": "string"}
    return TableVersion(
        table=ref.table,
        version=ref.version,
        uri=f"{tracker.settings.lake_uri}/{ref.table}",
        document=ref.model_dump(mode="json", exclude={"strength", "suspects"}),
        columns={info.name: kinds.get(info.kind, info.kind) for info in ref.features},
        rows=ref.rows,
    )
