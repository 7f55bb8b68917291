"""Search over families and parameters: one study, kept on disk, every trial tracked, in process or on Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ml_platform.compute import choose_executor
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import TrainingRows
from ml_platform.training.documents import SearchResult
from ml_platform.training.search.progress import OnProgress, Progress
from ml_platform.training.search.records import TrialRecord
from ml_platform.training.search.study import SearchStudy
from ml_platform.training.search.study_file import kept_study, study_key
from ml_platform.training.search.tracking import SearchRun, dataset_of
from ml_platform.training.search.trial import trial_data


def search(
    rows: TrainingRows, spec: ModelSpec, *, tracker: Tracker, on_progress: OnProgress | None = None
) -> SearchResult:
    """Try the families of the spec and return all candidates, measured on the validation part.

    The holdout part is never touched. The first trial of a family has its default parameters. In process, the same
    rows, spec and seed give the same candidates, unless a timeout of `tuning` cuts the search short.

    Each trial is kept as it ends, in `studies` of the platform's folder. A search of the same rows and spec goes on
    where another process was killed, and one that was finished is read, not repeated; also where the same rows were
    written as another version of the table, which the result then names.

    Parameters
    ----------
    rows
        The training set.
    spec
        The model: families, tuning, metric.
    tracker
        Where the search is a run and every trial a child run.
    on_progress
        Called after each trial.

    Raises
    ------
    ValueError
        When a part of the split has a single class.
    NoTrialSucceeded
        When every trial failed, with all reasons.
    """
    ref, parts = rows.ref, rows.parts
    data = trial_data(parts, spec, ref)
    key = study_key(spec, data.digest())
    executor = choose_executor(spec.tuning.executor, cells=data.X.size)
    with kept_study(tracker.settings.studies_dir / spec.name, key, higher_is_better=spec.higher_is_better) as kept:
        study = SearchStudy(kept, spec.families, spec.tuning, spec.metric, data)
        dataset = dataset_of(tracker, ref)
        with SearchRun.open(tracker, spec, study, dataset, executor=executor) as run:
            records = study.run(executor, _Watcher(study, run, spec, on_progress))
            result = SearchResult(
                model=spec.name,
                metric=spec.metric,
                higher_is_better=spec.higher_is_better,
                training_set=ref,
                bounds=parts.bounds,
                candidates=tuple(record.trial(spec.metric) for record in records if record.state == "complete"),
                stopped=tuple(record.stopped() for record in records if record.state != "complete"),
                run_id=run.run_id,
                run_url=tracker.run_url(run.run_id),
            )
            run.conclude(result, records)
    return result


@dataclass(frozen=True)
class _Watcher:
    """Hands the study's trials on to MLflow, and to who wants to know how far the search is."""

    study: SearchStudy
    run: "SearchRun"
    spec: ModelSpec
    on_progress: OnProgress | None

    def started(self, number: int, family: str) -> None:
        self.run.begin_trial(number, family)

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:
        self.run.end_trial(record)
        if self.on_progress is not None:
            best = best_record(records, self.spec)
            self.on_progress(
                Progress(record, len(records), self.study.most_trials, self.spec.metric, best, self.study.seconds)
            )


def best_record(records: Sequence[TrialRecord], spec: ModelSpec) -> TrialRecord | None:
    """Return the best complete trial; None where there is none. The earlier wins a tie."""
    complete = [record for record in records if record.state == "complete"]
    choose = partial(max if spec.higher_is_better else min, key=lambda record: record.metrics[spec.metric])
    return choose(complete) if complete else None
