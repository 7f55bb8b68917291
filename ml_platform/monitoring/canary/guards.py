"""The guards of a canary walk: is the canary worse than the champion by more than its bound, and by more than chance?

A guard is breached when the difference is above its bound *and* two equal versions would differ as much with less than
the probability that the guard may spend. Ids choose the version at random, so that both sides see the same clients, the
same minutes and the same machine: Fisher's test of two shares is exact. Requests of one id go to one version, and are
not independent: shares are tested at their effective sizes (Rao and Scott), by the variance over groups of ids, each
weighed by its leverage, with Student's t for the number of groups.

A walk is looked at many times. The probability `false_alarm` of the whole walk is split among steps and guards; half of
a guard's part is for the end of the step, the rest for looks at 25, 50, 100, … requests of the canary, the k-th look
taking 6 / (π k)² of it. What a look sees is fixed by the requests, not by when somebody looks: who repeats it finds the
same.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.inference.outcomes import UNITS, Outcomes
from ml_platform.registry.canary import GuardFinding
from ml_platform.registry.manifest import CanaryPolicy

if TYPE_CHECKING:
    import numpy as np

FIRST_LOOK = 25  # requests of the canary
MIN_UNITS = 10  # groups of ids on each side, below which nothing is judged
GUARDS = ("errors", "latency", "flags", "scores")
_SHARES = {"errors": "requests not answered", "flags": "requests with flagged inputs"}
QUANTILES = (0.5, 0.95)  # of the latency


@dataclass(frozen=True)
class Judged:
    """What the guards found: at the last look, or at the first that found a breach."""

    findings: tuple[GuardFinding, ...]
    requests: int  # that the findings are of, both sides

    @property
    def breaches(self) -> list[GuardFinding]:
        """The guards that were breached."""
        return [finding for finding in self.findings if finding.breached]


def judge_step(outcomes: Outcomes, policy: CanaryPolicy, *, is_end: bool) -> Judged:
    """Judge a step by its requests so far.

    Parameters
    ----------
    outcomes
        Requests of the step's revision.
    policy
        Bounds, and the probability of a false alarm.
    is_end
        Whether the step is to be passed now: all requests are looked at, beside the looks on the way.
    """
    import numpy as np

    alpha = policy.false_alarm / (len(GUARDS) * (len(policy.steps) - 1)) / 2
    places = np.flatnonzero(outcomes.is_canary)
    number, looked = FIRST_LOOK, None
    for look in range(1, 64):
        if number > len(places):
            break
        spent = alpha * 6 / (math.pi * look) ** 2
        looked = _judge(outcomes.first(int(places[number - 1]) + 1), policy, spent)
        if looked.breaches:
            return looked
        number *= 2
    if is_end or looked is None:
        return _judge(outcomes, policy, alpha if is_end else 0.0)
    now = _judge(outcomes, policy, 0.0)  # shown, and decides nothing
    return Judged(now.findings, now.requests)


def enough_ids(outcomes: Outcomes) -> bool:
    """Whether both sides have requests of enough different ids to be compared at all."""
    import numpy as np

    sides = (outcomes.unit[outcomes.is_canary], outcomes.unit[~outcomes.is_canary])
    return all(len(np.unique(side)) >= MIN_UNITS for side in sides)


def _judge(outcomes: Outcomes, policy: CanaryPolicy, alpha: float) -> Judged:
    alpha = alpha if enough_ids(outcomes) else 0.0
    return Judged(tuple(_findings(outcomes, policy, alpha)), len(outcomes.is_canary))


def _findings(outcomes: Outcomes, policy: CanaryPolicy, alpha: float) -> Iterator[GuardFinding]:
    canary = outcomes.is_canary
    if not canary.any() or canary.all():
        return
    yield _share("errors", outcomes, outcomes.failed, policy.max_error_increase, alpha)
    answered = ~outcomes.failed
    if (answered & canary).any() and (answered & ~canary).any():
        yield _latency(outcomes, answered, policy.max_latency_ratio, alpha)
        yield _share("flags", outcomes, outcomes.flagged, policy.max_flag_increase, alpha)
    if (found := _scores(outcomes, policy.max_score_distance, alpha)) is not None:
        yield found


def _share(guard: str, outcomes: Outcomes, happened: "np.ndarray", bound: float, alpha: float) -> GuardFinding:
    canary = outcomes.is_canary
    ours, theirs = float(happened[canary].mean()), float(happened[~canary].mean())
    chance = chance_of(happened, canary, outcomes.unit)
    return GuardFinding(
        guard=guard,
        champion=theirs,
        canary=ours,
        difference=ours - theirs,
        bound=bound,
        chance=chance,
        breached=ours - theirs > bound and chance < alpha,
        said=f"{_SHARES[guard]}: {ours:.2%} against {theirs:.2%}; the bound is {bound:.2%} more",
    )


def _latency(outcomes: Outcomes, answered: "np.ndarray", bound: float, alpha: float) -> GuardFinding:
    """Compare median and 95th percentile: how many answers are slower than `bound` times the champion's."""
    import numpy as np

    canary = outcomes.is_canary[answered]
    seconds, unit = outcomes.seconds[answered], outcomes.unit[answered]
    findings = []
    for quantile in QUANTILES:
        ours, theirs = (float(np.quantile(side, quantile)) for side in (seconds[canary], seconds[~canary]))
        slow = seconds > np.where(canary, bound * theirs, theirs)
        chance = min(1.0, len(QUANTILES) * chance_of(slow, canary, unit))
        ratio = ours / theirs if theirs > 0 else 1.0
        name = "median" if quantile == 0.5 else f"{100 * quantile:g}th percentile"
        findings.append(
            GuardFinding(
                guard="latency",
                champion=theirs,
                canary=ours,
                difference=ratio,
                bound=bound,
                chance=chance,
                breached=ratio > bound and chance < alpha,
                said=f"{name} of the time: {1000 * ours:.3g} ms against {1000 * theirs:.3g} ms, {ratio:.2f} times; the "
                f"bound is {bound:g} times",
            )
        )
    return min(findings, key=lambda finding: (not finding.breached, finding.chance))


def _scores(outcomes: Outcomes, bound: float, alpha: float) -> GuardFinding | None:
    """Compare the scores' distributions, of the class that differs most."""
    import numpy as np

    owner = outcomes.score_request
    canary, unit = outcomes.is_canary[owner], outcomes.unit[owner]
    if not canary.any() or canary.all():
        return None
    ours, theirs = outcomes.scores[canary], outcomes.scores[~canary]
    classes = ours.shape[1]
    distances = [distance_of(ours[:, column], theirs[:, column]) for column in range(classes)]
    distance = max(distances)
    sizes = (_effective(unit[canary]), _effective(unit[~canary]))
    chance = min(1.0, classes * _chance_of_distance(distance, *sizes))
    return GuardFinding(
        guard="scores",
        champion=float(np.mean(theirs[:, distances.index(distance)])),
        canary=float(np.mean(ours[:, distances.index(distance)])),
        difference=distance,
        bound=bound,
        chance=chance,
        breached=distance > bound and chance < alpha,
        said=f"distance of the scores' distributions: {distance:.3f}; the bound is {bound:g}",
    )


def chance_of(happened: "np.ndarray", canary: "np.ndarray", unit: "np.ndarray") -> float:
    """Probability that two equal versions differ as much in how often something happened, the canary more often.

    Parameters
    ----------
    happened, canary
        (requests,), booleans.
    unit
        (requests,), what the requests' ids are grouped by.
    """
    from scipy.stats import hypergeom
    from scipy.stats import norm as normal
    from scipy.stats import t as student

    total = int(happened.sum())
    if total in {0, len(happened)}:
        return 1.0
    effect = _design_effect(happened, canary, unit)
    # Rounded against the alarm: fewer of the canary's, more of the champion's.
    ours, n_ours = math.floor(happened[canary].sum() / effect), math.floor(canary.sum() / effect)
    theirs, n_theirs = math.ceil(happened[~canary].sum() / effect), math.floor((~canary).sum() / effect)
    if not n_ours or not n_theirs:
        return 1.0
    theirs = min(theirs, n_theirs)
    chance = hypergeom.sf(ours - 1, n_ours + n_theirs, ours + theirs, n_ours)
    # The effective sizes are estimates themselves, from so many groups: what the normal says is read from Student's t.
    groups = min(_effective(unit[canary]), _effective(unit[~canary]))
    return max(float(chance), float(student.sf(normal.isf(chance), max(groups - 1, 1))))


def _design_effect(happened: "np.ndarray", canary: "np.ndarray", unit: "np.ndarray") -> float:
    """How many times the variance of the difference is what it were with independent requests; at least 1."""
    import numpy as np

    variance, independent = 0.0, 0.0
    for side in (canary, ~canary):
        number, share = int(side.sum()), float(happened[side].mean())
        sizes = np.bincount(unit[side], minlength=UNITS)
        hits = np.bincount(unit[side], weights=happened[side], minlength=UNITS)
        there = sizes > 0
        left = 1 - sizes[there] / number  # what is left of a side without a group: nothing where it is the whole side
        if (left <= 0).any():
            return math.inf
        variance += float((((hits[there] - share * sizes[there]) / left) ** 2).sum()) / number**2
        independent += share * (1 - share) / number
    return max(1.0, variance / independent) if independent > 0 else 1.0


def distance_of(ours: "np.ndarray", theirs: "np.ndarray") -> float:
    """Largest distance of two distribution functions, apart from what a small shift explains.

    Versions that differ by next to nothing, such as .100 and .101, would be as far apart as can be where their scores
    vary little. So a shift is granted of a tenth of the champion's spread (from its quartiles), or 2 % of its size.
    """
    import numpy as np

    quarters = np.quantile(theirs, [0.25, 0.75])
    shift = max(0.1 * float(quarters[1] - quarters[0]) / 1.349, 0.02 * float(np.abs(theirs).mean()))
    ours, theirs = np.sort(ours), np.sort(theirs)

    def above(one: "np.ndarray", other: "np.ndarray") -> float:
        at = np.concatenate([one, other - shift])
        gap = np.searchsorted(one, at, side="right") / len(one)
        gap = gap - np.searchsorted(other, at + shift * (1 + 1e-9), side="right") / len(other)
        return float(gap.max())

    return max(above(ours, theirs), above(theirs, ours), 0.0)


def _effective(unit: "np.ndarray") -> float:
    """Number of independent scores that a side's are worth, if those of one group of ids are all the same (Kish)."""
    import numpy as np

    sizes = np.bincount(unit, minlength=UNITS).astype(float)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _chance_of_distance(distance: float, first: float, second: float) -> float:
    from scipy.special import kolmogorov

    return float(kolmogorov(distance * math.sqrt(first * second / (first + second))))
