"""How each request of a canary walk went: version, time, success, flags and a few scores, noted before it is answered.

The inference log has neither failures nor durations, and may be sampled; the metrics of a server are lost when it
restarts. These lines are as durable as the inference log's (`ml_platform.segment_log.segments`): all workers' lines of
one revision together are the champion and the canary over the same time.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ml_platform.atomic_files import try_lock
from ml_platform.segment_log.segments import SEGMENT_BYTES, SUFFIX, SYNC_SECONDS, SegmentLog

if TYPE_CHECKING:
    import numpy as np

SCORES = 8  # of one request, at most: evenly spaced among its rows
UNITS = 4096  # groups of ids; requests of one group always go to the same version


class Outcome(msgspec.Struct, array_like=True):
    """One request of a walk, as a list on a line."""

    revision: int  # of the endpoint document by which the version was chosen
    version: int
    time: float  # seconds since 1970, when it was answered
    seconds: float  # that the version took, without waiting for its turn
    failed: bool  # not answered: refused, or an error
    flagged: bool  # answered with flagged inputs
    unit: int  # group of what chose the version, 0 ≤ unit < `UNITS`
    scores: Sequence[float | Sequence[float]]  # a list for multiclass


class OutcomeLog(SegmentLog):
    """Appends outcomes below `folder/<endpoint>/`."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, sync_seconds: float = SYNC_SECONDS) -> None:
        super().__init__(folder, "log of outcomes", segment_bytes=segment_bytes, sync_seconds=sync_seconds)


@dataclass(frozen=True)
class Outcomes:
    """The requests of one revision, in the order of their answers; arrays are of one length, except the scores'.

    Attributes
    ----------
    is_canary, seconds, failed, flagged, unit
        By request: whether the candidate answered, how long it took, and so on (see `Outcome`).
    scores
        (number, classes), one column for binary and regression.
    score_request
        (number,), position of the request that each score is of.
    """

    is_canary: "np.ndarray"
    seconds: "np.ndarray"
    failed: "np.ndarray"
    flagged: "np.ndarray"
    unit: "np.ndarray"
    scores: "np.ndarray"
    score_request: "np.ndarray"

    def first(self, number: int) -> "Outcomes":
        """Only the first requests."""
        kept = self.score_request < number
        return Outcomes(
            self.is_canary[:number],
            self.seconds[:number],
            self.failed[:number],
            self.flagged[:number],
            self.unit[:number],
            self.scores[kept],
            self.score_request[kept],
        )


def read_outcomes(folder: Path, name: str, revision: int, candidate: int) -> Outcomes:
    """Read what all workers noted about one revision of an endpoint.

    Parameters
    ----------
    folder
        The platform's `outcomes_dir`.
    name, revision
        Of the endpoint.
    candidate
        The version that walks; all others are the champion's side.
    """
    import numpy as np

    decoder, outcomes = msgspec.json.Decoder(Outcome), list[Outcome]()
    start = b"[%d," % revision
    for path in sorted((folder / name).glob(f"*{SUFFIX}")):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # removed by who began another walk
            continue
        for line in content[: content.rfind(b"\n") + 1].splitlines():
            if line.startswith(start):
                try:
                    outcomes.append(decoder.decode(line))
                except msgspec.MsgspecError:  # torn by a worker that was killed; its request was never answered
                    continue
    outcomes.sort(key=lambda outcome: outcome.time)
    scores = [score if isinstance(score, list) else [score] for one in outcomes for score in one.scores]
    classes = len(scores[0]) if scores else 1
    same = [len(score) == classes for score in scores]
    owners = [number for number, one in enumerate(outcomes) for _ in one.scores]
    comparable: list[Any] = [score for score, fits in zip(scores, same, strict=True) if fits]
    return Outcomes(
        is_canary=np.array([one.version == candidate for one in outcomes], dtype=bool),
        seconds=np.array([one.seconds for one in outcomes], dtype=float),
        failed=np.array([one.failed for one in outcomes], dtype=bool),
        flagged=np.array([one.flagged for one in outcomes], dtype=bool),
        unit=np.array([one.unit for one in outcomes], dtype=np.int64),
        scores=np.array(comparable, dtype=float).reshape(len(comparable), classes),
        score_request=np.array([owner for owner, fits in zip(owners, same, strict=True) if fits], dtype=np.int64),
    )


def sampled_scores(records: Sequence[Any]) -> list[Any]:
    """A few of the scores of a request's log records, `Record` or `Batch`, evenly spaced.

    Examples
    --------
    >>> sampled_scores([])
    []
    """
    scores = [score for one in records for score in (one.score if hasattr(one, "batch") else [one.score])]
    step = -(-len(scores) // SCORES) or 1
    return scores[::step]


def remove_outcomes(folder: Path, name: str) -> int:
    """Remove the files of ended workers; gives how many. Those of running workers stay, and go on being written."""
    removed = 0
    for path in sorted((folder / name).glob(f"*{SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if try_lock(descriptor):
                path.unlink(missing_ok=True)
                removed += 1
        finally:
            os.close(descriptor)
    return removed
