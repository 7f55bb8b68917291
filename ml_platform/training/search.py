"""Search over families and parameters with Optuna: seeded, every trial tracked, in process or on Ray."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.compute import executor_session, map_tasks
from ml_platform.features.training_sets.build import TrainingSetRef
from ml_platform.inference.matrix import FeatureEncoder, encode_labels, label_classes
from ml_platform.registry.manifest import Feature
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.threshold import Threshold
from ml_platform.spec.types import Task
from ml_platform.training.candidate_fit import require_classes
from ml_platform.training.data.split import Parts, TrainingRows
from ml_platform.training.documents import SearchResult, Trial
from ml_platform.training.evaluation.metrics import choose_threshold, measure
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

if TYPE_CHECKING:
    import optuna

BATCH = 2  # trials asked for before the sampler hears of their results; fixed, so that every executor tries the same
STARTUP_TRIALS = 4  # drawn at random before the sampler models the results


@dataclass(frozen=True)
class TrialData:
    """What all trials of a search read."""

    task: Task
    features: tuple[Feature, ...]
    X: np.ndarray
    y: np.ndarray
    X_validation: np.ndarray
    y_validation: np.ndarray
    seed: int
    threshold: Threshold


@dataclass(frozen=True)
class TrialPlan:
    """One family with one set of parameters."""

    family: str
    params: Mapping[str, Parameter]


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial on the validation rows."""

    params: dict[str, Parameter]
    metrics: dict[str, float]
    threshold: float | None
    seconds: float


def run_trial(trial: TrialPlan, data: TrialData) -> TrialResult:
    """Train on the training rows and measure on the validation rows."""
    started = time.perf_counter()
    family, validation = get_family(trial.family), (data.X_validation, data.y_validation)
    estimator = train_estimator(family, data.task, data.features, trial.params, data.seed, data.X, data.y, validation)
    score = family.predict(estimator, data.task, data.X_validation)
    threshold = choose_threshold(data.threshold, data.y_validation, score) if data.task == "binary" else None
    return TrialResult(
        params=family.fitted_params(estimator, trial.params),
        metrics=measure(data.task, data.y_validation, score, threshold=threshold),
        threshold=threshold,
        seconds=time.perf_counter() - started,
    )


def search(rows: TrainingRows, spec: ModelSpec, *, tracker: Tracker) -> SearchResult:
    """Try every family of the spec and return all candidates, measured on the validation part.

    The holdout part is never touched. The first trial of a family has its default parameters; the same rows, spec and
    seed give the same candidates on every executor, unless `tuning.timeout_minutes` cuts the search short.

    Parameters
    ----------
    rows
        The training set.
    spec
        The model: families, tuning, metric.
    tracker
        Where the search is a run and every trial a child run.

    Raises
    ------
    ValueError
        When a part of the split has a single class.
    """
    ref, parts = rows.ref, rows.parts
    data = trial_data(parts, spec, ref)
    trials: list[tuple[str, TrialResult]] = []
    with (
        tracker.run(spec.name, "search", tags={"stage": "search"}) as run_id,
        executor_session(spec.tuning.executor),
    ):
        settings = {"metric": spec.metric, "training_set_version": ref.version, "rows": len(data.y)}
        tracker.log(run_id, params={**settings, **{f"tuning.{k}": v for k, v in spec.tuning.model_dump().items()}})
        for position, family in enumerate(spec.families):
            outcomes = _search_family(family, spec, data, seed=spec.tuning.seed + position)
            trials += [(family, outcome) for outcome in outcomes]
        candidates = tuple(
            Trial(
                number=number,
                family=family,
                params=outcome.params,
                score=outcome.metrics[spec.metric],
                metrics=outcome.metrics,
                threshold=outcome.threshold,
                seconds=outcome.seconds,
            )
            for number, (family, outcome) in enumerate(trials)
        )
        found = SearchResult(
            model=spec.name,
            metric=spec.metric,
            higher_is_better=spec.higher_is_better,
            training_set=ref,
            bounds=parts.bounds,
            candidates=candidates,
            run_id=run_id,
            run_url=tracker.run_url(run_id),
        )
        _track(tracker, spec, found)
    return found


def trial_data(parts: Parts, spec: ModelSpec, ref: TrainingSetRef) -> TrialData:
    """Encode the training rows (the newest `tuning.sample_rows` of them) and the validation rows."""
    train = parts.train.tail(spec.tuning.sample_rows) if spec.tuning.sample_rows else parts.train
    classes = label_classes(train.get_column(spec.target)) if spec.task == "multiclass" else ()
    y = encode_labels(train.get_column(spec.target), spec, classes)
    y_validation = encode_labels(parts.validation.get_column(spec.target), spec, classes)
    require_classes(spec, y)
    encoder = FeatureEncoder.fit(train, ref.features, None if spec.task == "multiclass" else y)
    return TrialData(
        task=spec.task,
        features=encoder.features,
        X=encoder.transform(train),
        y=y,
        X_validation=encoder.transform(parts.validation),
        y_validation=y_validation,
        seed=spec.tuning.seed,
        threshold=spec.threshold,
    )


def _search_family(family: str, spec: ModelSpec, data: TrialData, *, seed: int) -> list[TrialResult]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if spec.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    )
    study.enqueue_trial(get_family(family).default_params(spec.task))
    started, outcomes = time.perf_counter(), list[TrialResult]()
    while len(outcomes) < spec.tuning.trials and not _out_of_time(spec, started, outcomes):
        asked = [study.ask() for _ in range(min(BATCH, spec.tuning.trials - len(outcomes)))]
        proposals = [TrialPlan(family, get_family(family).suggest(spec.task, trial)) for trial in asked]
        results = map_tasks(run_trial, proposals, shared=data, executor=spec.tuning.executor)
        for trial, outcome in zip(asked, results, strict=True):
            _tell(study, trial, outcome, spec)
        outcomes += results
    return outcomes


def _tell(study: "optuna.Study", trial: "optuna.Trial", outcome: TrialResult, spec: ModelSpec) -> None:
    if spec.metric not in outcome.metrics:
        raise ValueError(
            f"{spec.name}: metric '{spec.metric}' is undefined on the validation rows (found "
            f"{sorted(outcome.metrics)}); choose another under `promotion` or a longer `split.validation`"
        )
    study.tell(trial, outcome.metrics[spec.metric])


def _out_of_time(spec: ModelSpec, started: float, outcomes: list[TrialResult]) -> bool:
    budget = spec.tuning.timeout_minutes
    return budget is not None and bool(outcomes) and time.perf_counter() - started > 60 * budget


def _track(tracker: Tracker, spec: ModelSpec, found: SearchResult) -> None:
    for candidate in found.candidates:
        name = f"{candidate.family}-{candidate.number}"
        with tracker.run(spec.name, name, parent=found.run_id, tags={"stage": "trial"}) as run_id:
            tracker.log(
                run_id,
                params={"family": candidate.family, **candidate.params},
                metrics={
                    **{f"validation_{name}": value for name, value in candidate.metrics.items()},
                    "seconds": candidate.seconds,
                },
            )
    best = found.best
    tracker.log(
        found.run_id,
        params={"best_family": best.family, **{f"best.{name}": value for name, value in best.params.items()}},
        metrics={f"validation_{name}": value for name, value in best.metrics.items()},
    )
