"""Poor trials end early: each is tried on a part of the rows first, and the worse half of its family stops there."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from ml_platform.spec.model import Tuning

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import FrozenTrial

PART: Final = 8  # the first rung has one row of so many
LEAST_ROWS: Final = 5_000  # of the first rung: on fewer, chance decides
LEAST_TRIALS: Final = 8  # of a family: of fewer, the first rungs cost more than they save
COMPARED_WITH: Final = 3  # trials of the family that a trial is compared with, at least
FAMILY: Final = "family"


def rungs_of(rows: int, tuning: Tuning, families: int) -> tuple[int, ...]:
    """Numbers of training rows that a trial is fitted on one after the other; the last is all of them.

    Examples
    --------
    >>> rungs_of(200_000, Tuning(), 2), rungs_of(20_000, Tuning(), 2), rungs_of(200_000, Tuning(trials=4), 2)
    ((25000, 200000), (20000,), (200000,))
    """
    is_worth_it = tuning.pruning and rows // PART >= LEAST_ROWS
    return (rows // PART, rows) if is_worth_it and tuning.most_trials(families) >= LEAST_TRIALS * families else (rows,)


@cache
def family_median_pruner() -> "BasePruner":
    """Make the pruner that ends a trial worse, on the same rows, than the median of its family's other trials.

    Optuna's own pruners compare all trials of a study. Families learn at different rates: on an eighth of the rows a
    linear model is nearly as good as it gets, and boosted trees are not.
    """
    from optuna.pruners import BasePruner
    from optuna.study import StudyDirection

    class FamilyMedianPruner(BasePruner):
        def prune(self, study: "Study", trial: "FrozenTrial") -> bool:
            step = trial.last_step
            if step is None:
                return False
            value, others = trial.intermediate_values[step], _others(study, trial, step)
            if len(others) < COMPARED_WITH:
                return False
            is_maximised = study.direction == StudyDirection.MAXIMIZE
            return bool(value < np.median(others) if is_maximised else value > np.median(others))

    return FamilyMedianPruner()


def _others(study: "Study", trial: "FrozenTrial", step: int) -> Sequence[float]:
    """Values that the family's other trials had at a step, those that were pruned there included."""
    return [
        other.intermediate_values[step]
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number
        and other.params.get(FAMILY) == trial.params[FAMILY]
        and step in other.intermediate_values
    ]
