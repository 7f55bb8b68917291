"""The trials of a run: the search, the fits of its best trials, and what the leaderboard says of each."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import polars as pl

from ml_platform.automl.documents import ENSEMBLE, Entry, Member, Plan
from ml_platform.automl.ensemble import blended, select_ensemble
from ml_platform.automl.estimator_code import NOTEBOOK_FAMILIES
from ml_platform.automl.frame import ID, KNOWN, LABEL, TIMESTAMP, AutomlRows, feature_infos, training_rows
from ml_platform.automl.plain.blending import blend, from_logarithm
from ml_platform.automl.plain.metrics import METRICS
from ml_platform.automl.plan import higher_is_better, selection_metric
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.families import BUILT_IN, family_info
from ml_platform.spec.model import LOWER_IS_BETTER, ModelSpec
from ml_platform.spec.types import Task
from ml_platform.training.candidate_fit import Fitted, NotExportable, fit_candidate
from ml_platform.training.data.split import TrainingRows
from ml_platform.training.documents import SearchResult, Trial
from ml_platform.training.evaluation.blocks import DAY, ROWS, block_ids, blocks_in_words
from ml_platform.training.evaluation.cluster_interval import metric_interval
from ml_platform.training.export.blended_graph import blend_graphs
from ml_platform.training.export.parity import ParityError, check_parity
from ml_platform.training.families.registry import get_family
from ml_platform.training.search import search
from ml_platform.training.search.progress import Progress
from ml_platform.training.search.trial import TrialPlan, run_trial, trial_data

CONFIDENCE = 0.95
SEARCH_SHARE = 0.5  # of the budget; the rest is for fits on more rows and their exports
_MOST_TRIALS = 200  # of each family: the budget ends a search before, unless the table is tiny
_FEWEST_BLOCKS = 10


@dataclass(frozen=True)
class FittedTrial:
    """A trial of the search, fitted twice.

    Attributes
    ----------
    name
        Family and number.
    trial
        As the search has it.
    validation
        Scores of the validation rows, of a fit on the training rows.
    holdout
        Scores of the holdout rows, of a fit on all rows before.
    fitted
        That second fit.
    fit_seconds, predict_us
        Its time, and the time of a prediction in microseconds a row.
    """

    name: str
    trial: Trial
    validation: np.ndarray
    holdout: np.ndarray
    fitted: Fitted
    fit_seconds: float
    predict_us: float


def automl_families(task: Task, wanted: Sequence[str]) -> tuple[str, ...]:
    """Families to try: those that are named, or all of the task whose library is installed (raises ValueError)."""
    able = [
        info.name
        for info in BUILT_IN.values()
        if task in info.tasks and (info.library is None or find_spec(info.library))
    ]
    for name in wanted:
        if task not in family_info(name).tasks:
            raise ValueError(f"--family {name} cannot do task '{task}'; installed families that can: {', '.join(able)}")
        if name not in NOTEBOOK_FAMILIES:
            raise ValueError(f"--family {name}: no notebook of it can be written; add it to a model's `families`")
    return tuple(wanted) or tuple(able)


def trials_spec(plan: Plan, families: Sequence[str], *, minutes: float) -> ModelSpec:
    """Describe the trials as a model of which there is no folder."""
    metric = "rmse" if plan.log_target else selection_metric(plan.metric)  # of logarithms it is the rmsle of the values
    return ModelSpec.model_validate(
        {
            "name": plan.name,
            "description": f"Trials of AutoML on {plan.source}.",
            "owner": "team@example.com",
            "task": plan.task,
            "target": LABEL,
            "spine": "spine.sql",
            "id": ID,
            "timestamp": TIMESTAMP,
            "label_available_at": KNOWN,
            "inputs": [{"name": ID, "type": "integer", "feature": False}],
            "families": list(families),
            "tuning": {"trials": _MOST_TRIALS, "total_timeout_minutes": minutes, "seed": plan.seed},
            "promotion": {"metric": metric},
            "scoring": {"start": "2024-01-01"},
        }
    )


def run_search(
    plan: Plan, rows: AutomlRows, spec: ModelSpec, tracker: Tracker, tell: Callable[[str], None] = lambda _: None
) -> SearchResult:
    """Search over families and parameters, on the training and validation rows; each family has a trial at least.

    `tell` gets a line of each better trial.
    """
    best: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.best is not None and progress.best.number == progress.record.number not in best:
            best.append(progress.record.number)
            tell(progress.line)

    given = training_rows(plan, rows, spec)
    result = search(given, spec, tracker=tracker, on_progress=on_progress)
    return result.model_copy(update={"candidates": (*result.candidates, *_default_trials(given, spec, result))})


def _default_trials(rows: TrainingRows, spec: ModelSpec, result: SearchResult) -> list[Trial]:
    """Try the default parameters of families that the search had no time for, so that each is on the leaderboard."""
    ended = {trial.number: trial.family for trial in result.candidates}
    ended |= {trial.number: trial.family for trial in result.stopped}
    missing = [name for name in spec.families if name not in ended.values()]
    if not missing:
        return []
    data = trial_data(rows.parts, spec, rows.ref)
    trials = []
    for number, name in enumerate(missing, 1 + max(ended)):
        done = run_trial(TrialPlan(name, get_family(name).default_params(spec.task), len(data.y)), data)
        trials.append(
            Trial(
                number=number,
                family=name,
                params=done.params,
                score=done.metrics[spec.metric],
                metrics=done.metrics,
                threshold=done.threshold,
                seconds=done.seconds,
            )
        )
    return trials


def leading_trials(result: SearchResult, top: int) -> list[Trial]:
    """The best trial of each family, and the best others up to `top` in all; best first."""
    ranked = result.ranked
    best = {trial.family: trial for trial in reversed(ranked)}
    numbers = {trial.number for trial in best.values()}
    for trial in ranked:
        if len(numbers) >= top:
            break
        numbers.add(trial.number)
    return [trial for trial in ranked if trial.number in numbers]


def trials_in_time(trials: Sequence[Trial], until: float) -> Iterator[Trial]:
    """Trials one after the other; past the instant `until` of `time.perf_counter` only the first of each family."""
    families = set[str]()
    for trial in trials:
        if time.perf_counter() > until and trial.family in families:
            continue
        yield trial
        families.add(trial.family)


def fit_trials(
    plan: Plan,
    rows: AutomlRows,
    spec: ModelSpec,
    trials: Sequence[Trial],
    *,
    until: float,
    tell: Callable[[str], None] = lambda _: None,
) -> list[FittedTrial]:
    """Fit trials on the training rows, and again on all rows before the holdout.

    Parameters
    ----------
    plan, rows, spec
        As planned.
    trials
        Best first; the best of each family are fitted in any case.
    until
        Instant of `time.perf_counter` after which no further trial of a family that has one is fitted.
    tell
        Gets one line for each.
    """
    train, validation, holdout = (rows.frame[part] for part in rows.parts)
    before, features = pl.concat([train, validation]), feature_infos(plan)
    done: list[FittedTrial] = []
    for trial in trials_in_time(trials, until):
        name = f"{trial.family}-{trial.number}"
        early = fit_candidate(spec, features, train, trial.family, trial.params).predict(validation)
        started = time.perf_counter()
        fitted = fit_candidate(spec, features, before, trial.family, trial.params)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        later = fitted.predict(holdout)
        each = 1e6 * (time.perf_counter() - started) / holdout.height
        done.append(FittedTrial(name, trial, early, later, fitted, seconds, each))
        tell(f"{name}: validation {trial.score:.5f}, fitted in {seconds:.1f} s")
    return done


def make_entries(plan: Plan, rows: AutomlRows, trials: Sequence[FittedTrial]) -> tuple[list[Entry], str, str]:
    """Measure trials and the ensemble of them.

    Returns
    -------
    tuple
        Entries; what is said of the ensemble; what the intervals take for independent, in words.
    """
    chosen_by = selection_metric(plan.metric)
    better, measure = higher_is_better(chosen_by), _measure(plan, rows, chosen_by)
    entries = [_entry(plan, rows, one) for one in trials]
    scores = {one.name: one.validation for one in trials}
    weights = select_ensemble(scores, measure, higher_is_better=better)
    alone = [measure(score) for score in scores.values()]
    together = measure(blended(scores, weights))
    best = max(alone) if better else min(alone)
    if len(weights) == 1 or not (together > best if better else together < best):
        note = "No average of trials is better on the validation rows than the best of them."
    else:
        entries.append(_ensemble(plan, rows, trials, weights))
        weights_text = ", ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
        note = (
            f"The ensemble ({weights_text}) was selected on the validation rows, on which it looks better than it is."
        )
    _, words = interval_blocks(plan, rows)
    if chosen_by != plan.metric:
        note += f" Trials are ranked by {chosen_by}, which tells more of the same rows than {plan.metric} does."
    return entries, note, words


def values_of(plan: Plan, score: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Scores as the metric takes them: probabilities, or values of the target (`learned`: labels that were fitted)."""
    return from_logarithm(score, learned.max()) if plan.log_target else score


def _measure(plan: Plan, rows: AutomlRows, metric: str) -> Callable[[np.ndarray], float]:
    """A metric of scores of the validation rows."""
    train, y = rows.y[rows.parts[0]], rows.y[rows.parts[1]]
    return lambda score: METRICS[metric](y, values_of(plan, score, train))


def _entry(plan: Plan, rows: AutomlRows, one: FittedTrial) -> Entry:
    size, reason = _size(plan, rows, [one], [1.0])
    member = Member(trial=one.name, family=one.trial.family, params=one.trial.params, weight=1.0)
    return _measured(
        plan, rows, one.name, (member,), one.validation, one.holdout,
        fit_seconds=one.fit_seconds, predict_us=one.predict_us, size_bytes=size, not_exported=reason,
    )  # fmt: skip


def _ensemble(plan: Plan, rows: AutomlRows, trials: Sequence[FittedTrial], weights: Mapping[str, float]) -> Entry:
    by_name = {one.name: one for one in trials}
    chosen = [by_name[name] for name in weights]
    validation = blended({one.name: one.validation for one in chosen}, weights)
    holdout = blended({one.name: one.holdout for one in chosen}, weights)
    size, reason = _size(plan, rows, chosen, list(weights.values()))
    members = tuple(
        Member(trial=one.name, family=one.trial.family, params=one.trial.params, weight=weights[one.name])
        for one in chosen
    )
    return _measured(
        plan, rows, ENSEMBLE, members, validation, holdout,
        fit_seconds=sum(one.fit_seconds for one in chosen),
        predict_us=sum(one.predict_us for one in chosen),
        size_bytes=size, not_exported=reason,
    )  # fmt: skip


def _measured(  # noqa: PLR0917 - private
    plan: Plan,
    rows: AutomlRows,
    name: str,
    members: tuple[Member, ...],
    validation: np.ndarray,
    holdout: np.ndarray,
    **figures: float | int | str | None,
) -> Entry:
    y, values = rows.y[rows.parts[2]], values_of(plan, holdout, rows.y[rows.before_holdout])
    chosen_by = selection_metric(plan.metric)
    blocks, _ = interval_blocks(plan, rows)
    interval = metric_interval(plan.metric, plan.task, y, values, blocks=blocks, confidence=CONFIDENCE)
    return Entry.model_validate(
        {
            "trial": name,
            "members": members,
            "validation": _measure(plan, rows, plan.metric)(validation),
            "selection": None if chosen_by == plan.metric else _measure(plan, rows, chosen_by)(validation),
            "holdout": METRICS[plan.metric](y, values),
            "lower": interval.lower if interval else None,
            "upper": interval.upper if interval else None,
            "notebook": f"{name}.ipynb",
            **figures,
        }
    )


def interval_blocks(plan: Plan, rows: AutomlRows) -> tuple[np.ndarray, str]:
    """What intervals take for independent: days of a split by time, groups of one by group, rows else."""
    holdout = rows.frame[rows.parts[2]]
    if plan.split.kind == "group" and plan.group is not None:
        ids = block_ids(rows.raw[rows.parts[2]], plan.group, TIMESTAMP)
        if (count := len(np.unique(ids))) >= _FEWEST_BLOCKS:
            return ids, blocks_in_words(count, plan.group)
    if plan.split.kind == "time":
        ids = block_ids(holdout, DAY, TIMESTAMP)
        if (count := len(np.unique(ids))) >= _FEWEST_BLOCKS:
            return ids, blocks_in_words(count, DAY)
    return block_ids(holdout, ROWS, TIMESTAMP), blocks_in_words(holdout.height, ROWS)


def _size(
    plan: Plan, rows: AutomlRows, trials: Sequence[FittedTrial], weights: Sequence[float]
) -> tuple[int | None, str]:
    """Size of the one graph of some trials, which answers as they do; or why there is none."""
    try:
        return len(export_trials(plan, rows, trials, weights)), ""
    except NotExportable as error:
        return None, str(error)


def export_trials(plan: Plan, rows: AutomlRows, trials: Sequence[FittedTrial], weights: Sequence[float]) -> bytes:
    """Export one trial, or several as one graph, and compare it with them (raises NotExportable)."""
    fitted = [one.fitted for one in trials]
    first, learned = fitted[0], rows.y[rows.before_holdout]

    def predict(X: np.ndarray) -> np.ndarray:
        families = [get_family(one.family) for one in fitted]
        scores = [family.predict(one.estimator, plan.task, X) for family, one in zip(families, fitted, strict=True)]
        return values_of(plan, blend(scores, list(weights)), learned)

    tolerance = max(family_info(one.family).tolerance for one in fitted)
    try:
        graphs = [
            (get_family(one.family).export(one.estimator, plan.task, one.features), weight)
            for one, weight in zip(fitted, weights, strict=True)
        ]
        content = blend_graphs(graphs, largest=2.0 * float(learned.max()) if plan.log_target else None)
        check_parity(predict, content, plan.task, first.features, first.X, tolerance=tolerance, seed=plan.seed)
    except (ValueError, ParityError, RuntimeError) as error:
        raise NotExportable(f"{type(error).__name__}: {error}") from error
    return content


def direction(metric: str) -> str:
    """Say which values of a metric are better."""
    return "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
