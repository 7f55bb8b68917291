"""Walks to test with: requests whose effects are known, written as serving writes them."""

import time
from pathlib import Path

import numpy as np

from ml_platform.inference.outcomes import UNITS, Outcome, OutcomeLog, Outcomes


def requests(
    random: np.random.Generator,
    share: float,
    number: int,
    *,
    ids: int = 5000,
    errors: float = 0.01,
    more_errors: float = 0.0,
    slower: float = 1.0,
    more_flags: float = 0.0,
    shift: float = 0.0,
) -> Outcomes:
    """Requests of one step, about `number` of them the canary's.

    As real traffic: a few ids send most, and errors, times, flags and scores differ by id. The keywords from
    `more_errors` on make the canary different.
    """
    total = int(number / share)
    weights = 1 / np.arange(1, ids + 1) ** 0.8
    who = random.choice(ids, total, p=weights / weights.sum())
    canary = (random.random(ids) < share)[who]
    failing = np.minimum(1, errors * random.gamma(0.5, 2, ids))[who] + more_errors * canary
    failed = random.random(total) < failing
    pace = 0.4 * random.normal(size=ids)[who] + 0.4 * random.normal(size=total)
    flagging = np.minimum(1, 0.02 * random.gamma(0.3, 1 / 0.3, ids))[who] + more_flags * canary
    raw = random.normal(size=ids)[who] + 0.5 * random.normal(size=total) + shift * canary
    answered = np.flatnonzero(~failed)
    return Outcomes(
        is_canary=canary,
        seconds=0.002 * np.exp(pace) * np.where(canary, slower, 1.0),
        failed=failed,
        flagged=~failed & (random.random(total) < flagging),
        unit=random.integers(0, UNITS, ids)[who],
        scores=(1 / (1 + np.exp(-raw)))[answered][:, None],
        score_request=answered,
    )


def write(folder: Path, name: str, revision: int, versions: tuple[int, int], outcomes: Outcomes) -> None:
    """Write requests into the log of outcomes, of the champion's and the canary's version."""
    scores: dict[int, list[float]] = {}
    for owner, score in zip(outcomes.score_request.tolist(), outcomes.scores[:, 0].tolist(), strict=True):
        scores.setdefault(owner, []).append(score)
    begin = time.time()
    lines = [
        Outcome(
            revision=revision,
            version=versions[bool(outcomes.is_canary[one])],
            time=begin + one / 1e4,
            seconds=float(outcomes.seconds[one]),
            failed=bool(outcomes.failed[one]),
            flagged=bool(outcomes.flagged[one]),
            unit=int(outcomes.unit[one]),
            scores=scores.get(one, ()),
        )
        for one in range(len(outcomes.unit))
    ]
    log = OutcomeLog(folder)
    log.append(name, lines)
    log.close()
