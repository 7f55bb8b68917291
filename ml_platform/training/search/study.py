"""The study: asks for trials, has them run wherever they run, and keeps what came of each before the next begins."""

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ml_platform.compute import Executor, TaskPool, task_pool
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import Tuning
from ml_platform.training.search.budget import Budget
from ml_platform.training.search.pruning import FAMILY, family_median_pruner, rungs_of
from ml_platform.training.search.records import TrialRecord, complete_record
from ml_platform.training.search.space import default_point, suggest_params
from ml_platform.training.search.trial import TrialData, TrialPlan, TrialResult, run_trial

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 3  # of a trial during which the process ended each time
_RECORD, _ATTEMPTS, _SECONDS, _FINISHED = "record", "attempts", "seconds", "finished"  # attributes of trials, the study


class NoTrialSucceeded(RuntimeError):
    """Every trial of a search failed; the message names all reasons."""


class Watcher(Protocol):
    """Is told of a search's trials."""

    def started(self, number: int, family: str) -> None:
        """A trial has its parameters and begins."""

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:
        """A trial has ended and is kept; `records` are all that have ended, in their order."""


@dataclass
class _Running:
    trial: "optuna.Trial"
    family: str
    suggested: dict[str, Parameter]
    rungs: tuple[int, ...]
    attempts: int
    reported: frozenset[int]  # rungs of which the study knows the value, from an earlier attempt
    values: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class SearchStudy:
    """One search over families and their parameters.

    In one process, the same data, settings and seed give the same trials, however often it was interrupted: what a
    trial draws depends on the seed, its number and the trials before it. On Ray it also depends on which trials end
    first.

    Attributes
    ----------
    study
        Optuna's, new or with trials of an earlier process.
    families
        To choose from; each is tried with its default parameters first.
    tuning
        Budgets and seed.
    metric
        What is optimised, in the study's direction.
    data
        What trials read.
    """

    study: "optuna.Study"
    families: tuple[str, ...]
    tuning: Tuning
    metric: str
    data: TrialData

    def __post_init__(self) -> None:
        self._budget = Budget(self.families, self.tuning)
        self._rungs = rungs_of(len(self.data.y), self.tuning, len(self.families))
        self.study.pruner = family_median_pruner()
        self._started = time.perf_counter() - float(self.study.user_attrs.get(_SECONDS, 0.0))

    @property
    def most_trials(self) -> int:
        """How many trials the search has, if nothing ends it before."""
        return self._budget.most_trials

    @property
    def is_finished(self) -> bool:
        """Whether an earlier process came to the end of this search."""
        return bool(self.study.user_attrs.get(_FINISHED, False))

    @property
    def seconds(self) -> float:
        """Time that the search has taken, in all processes that worked on it."""
        return time.perf_counter() - self._started

    def records(self) -> tuple[TrialRecord, ...]:
        """Trials that have ended, in the order of their numbers."""
        records = [trial.user_attrs.get(_RECORD) for trial in self.study.get_trials(deepcopy=False)]
        return tuple(TrialRecord.model_validate_json(record) for record in records if record is not None)

    def run(self, executor: Executor, watcher: Watcher) -> tuple[TrialRecord, ...]:
        """Run all trials that are left, and return the records of all.

        Raises
        ------
        NoTrialSucceeded
            When every trial failed.
        """
        if not self.is_finished:
            with task_pool(run_trial, shared=self.data, executor=executor) as pool:
                self._run(pool, watcher)
            self.study.set_user_attr(_FINISHED, True)
        records = self.records()
        if not any(record.state == "complete" for record in records):
            raise NoTrialSucceeded(_all_reasons(records))
        return records

    def _run(self, pool: TaskPool[TrialPlan, TrialResult], watcher: Watcher) -> None:
        running: dict[int, _Running] = {}
        try:
            self._run_trials(pool, watcher, running)
        except BaseException:  # this process lives: whoever interrupted it, the trials are not to blame
            for one in running.values():
                if _RECORD not in one.trial.user_attrs:
                    one.trial.set_user_attr(_ATTEMPTS, one.attempts - 1)
            raise

    def _run_trials(
        self, pool: TaskPool[TrialPlan, TrialResult], watcher: Watcher, running: dict[int, _Running]
    ) -> None:
        interrupted = self._interrupted()
        while True:
            while len(running) < pool.capacity:
                trial = next(interrupted, None) or self._ask([one.family for one in running.values()])
                if trial is None:
                    break
                if (begun := self._begin(trial, watcher)) is not None:
                    running[trial.number] = begun
                    pool.submit(trial.number, TrialPlan(begun.family, begun.suggested, begun.rungs[0]))
            if not running:
                return
            number, outcome = pool.wait()
            ended = running[int(str(number))]
            if self._advance(ended, outcome, watcher):
                del running[ended.trial.number]
            else:
                plan = TrialPlan(ended.family, ended.suggested, ended.rungs[len(ended.values)])
                pool.submit(ended.trial.number, plan)

    def _interrupted(self) -> "Iterator[optuna.Trial]":
        """Trials that were under way when an earlier process ended, to be run again with the same parameters."""
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._set_sampler(frozen.number)
            yield Trial(self.study, frozen._trial_id)

    def _ask(self, running: list[str]) -> "optuna.Trial | None":
        """Ask the sampler for a trial: defaults first, then what it chooses among the families that are open."""
        from optuna.trial import TrialState

        open_families = self._budget.open_families(self.records(), running, self.seconds)
        if not open_families:
            return None
        trials = self.study.get_trials(deepcopy=False)
        if not any(trial.state == TrialState.WAITING for trial in trials):  # else a process ended just after the next
            tried = [trial.params.get(FAMILY) for trial in trials]
            untried = next((family for family in self.families if family not in tried), None)
            if untried is not None:
                self._enqueue_defaults(untried)
            elif len(open_families) < len(self.families):
                self.study.enqueue_trial({FAMILY: min(open_families, key=tried.count)})
        self._set_sampler(sum(trial.state != TrialState.WAITING for trial in trials))
        return self.study.ask()

    def _enqueue_defaults(self, family: str) -> None:
        try:
            point = dict(default_point(family, self.data.task))
        except Exception:  # noqa: BLE001 - such as a missing library: the trial itself fails by it, and says so
            point = {FAMILY: family}
        self.study.enqueue_trial(point)

    def _set_sampler(self, number: int) -> None:
        """Give each trial a sampler of its own seed: what it draws does not depend on the process that asks."""
        import optuna

        seed = int.from_bytes(hashlib.sha256(f"{self.tuning.seed}/{number}".encode()).digest()[:4])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=2 * len(self.families) + 2, multivariate=True, group=True
            )

    def _begin(self, trial: "optuna.Trial", watcher: Watcher) -> _Running | None:
        """Draw a trial's parameters; None where it has ended already."""
        if (kept := trial.user_attrs.get(_RECORD)) is not None:  # its process ended between keeping and telling it
            self._tell(trial, TrialRecord.model_validate_json(kept))
            return None
        family = str(trial.suggest_categorical(FAMILY, list(self.families)))
        attempts = int(trial.user_attrs.get(_ATTEMPTS, 0)) + 1
        trial.set_user_attr(_ATTEMPTS, attempts)
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        begun = _Running(trial, family, {}, self._rungs, attempts, frozenset(reported))
        try:
            begun.suggested = suggest_params(family, self.data.task, trial)
        except Exception as error:  # noqa: BLE001 - a family of the project's own may raise anything
            self._end(begun, self._failed(begun, _reason(error)), watcher)
            return None
        if attempts > ATTEMPTS:
            reason = f"the process ended during each of its {ATTEMPTS} attempts; did it run out of memory?"
            self._end(begun, self._failed(begun, reason), watcher)
            return None
        watcher.started(trial.number, family)
        return begun

    def _advance(self, running: _Running, outcome: TrialResult | Exception, watcher: Watcher) -> bool:
        """Take what a fit of a trial came to; tell whether the trial has ended."""
        if isinstance(outcome, Exception):
            self._end(running, self._failed(running, _reason(outcome)), watcher)
            return True
        running.seconds += outcome.seconds
        rows = running.rungs[len(running.values)]
        if self.metric not in outcome.metrics:
            reason = (
                f"metric '{self.metric}' is undefined on the validation rows (measured {sorted(outcome.metrics)}); "
                "choose another under `promotion` or a longer `split.validation`"
            )
            self._end(running, self._failed(running, reason), watcher)
            return True
        running.values[rows] = outcome.metrics[self.metric]
        if rows < running.rungs[-1]:
            if rows not in running.reported:
                running.trial.report(running.values[rows], rows)
            if not running.trial.should_prune():
                return False
            self._end(running, self._pruned(running, outcome, rows), watcher)
            return True
        record = complete_record(
            running.trial.number,
            running.family,
            running.suggested,
            outcome,
            rungs=running.values,
            seconds=running.seconds,
        )
        self._end(running, record, watcher)
        return True

    def _failed(self, running: _Running, reason: str) -> TrialRecord:
        return TrialRecord(
            number=running.trial.number,
            family=running.family,
            state="failed",
            suggested=running.suggested,
            params=running.suggested,
            rungs=running.values,
            reason=reason,
            seconds=running.seconds,
        )

    def _pruned(self, running: _Running, result: TrialResult, rows: int) -> TrialRecord:
        return TrialRecord(
            number=running.trial.number,
            family=running.family,
            state="pruned",
            suggested=running.suggested,
            params=result.params,
            metrics=result.metrics,
            rungs=running.values,
            curve=result.curve,
            reason=f"{self.metric} {running.values[rows]:.4g} on {rows:,} rows, in the worse half of its family",
            seconds=running.seconds,
        )

    def _end(self, running: _Running, record: TrialRecord, watcher: Watcher) -> None:
        running.trial.set_user_attr(_RECORD, record.model_dump_json())
        self._tell(running.trial, record)
        watcher.ended(record, self.records())

    def _tell(self, trial: "optuna.Trial", record: TrialRecord) -> None:
        from optuna.trial import TrialState

        if record.state == "complete":
            self.study.tell(trial, record.metrics[self.metric])
        else:
            self.study.tell(trial, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)
        self.study.set_user_attr(_SECONDS, self.seconds)


@contextmanager
def study_in_memory(*, higher_is_better: bool) -> "Iterator[optuna.Study]":
    """Give a study that nobody goes on with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield optuna.create_study(direction="maximize" if higher_is_better else "minimize")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _all_reasons(records: tuple[TrialRecord, ...]) -> str:
    numbers: dict[tuple[str, str], list[int]] = {}
    for record in records:
        numbers.setdefault((record.family, record.reason), []).append(record.number)
    reasons = [
        f"{family} ({'trial' if len(own) == 1 else 'trials'} {', '.join(map(str, own))}): {reason}"
        for (family, reason), own in numbers.items()
    ]
    return f"none of the {len(records)} trials of the search succeeded. " + "; ".join(reasons)
