"""How each request of a canary walk went: version, time, success, flags and a few scores, noted before it is answered.

The inference log has neither failures nor durations, and may be sampled; the metrics of a server are lost when it
restarts. These lines are as durable as the inference log's (`ml_platform.segment_log.segments`): all workers' lines of
one revision together are the champion and the canary over the same time.
"""

import os
import threading
from collections.abc import Iterator, Sequence
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


class OutcomeReader:
    """Reads what all workers noted about one revision of an endpoint, each line once however often it is asked.

    Parameters
    ----------
    folder
        The platform's `outcomes_dir`.
    name, revision
        Of the endpoint.
    candidate
        The version that walks; all others are the champion's side.
    """

    def __init__(self, folder: Path, name: str, revision: int, candidate: int) -> None:
        import numpy as np

        self.revision, self.candidate = revision, candidate
        self._folder = folder / name
        self._start = b"[%d," % revision
        self._decoder = msgspec.json.Decoder(Outcome)
        self._offsets: dict[str, int] = {}  # bytes of each file that were read
        self._classes: int | None = None
        self._rows = np.empty((0, 6))  # time, is_canary, seconds, failed, flagged, unit
        self._scores: np.ndarray | None = None
        self._owners = np.empty(0, dtype=np.int64)  # row of each score
        self._lock = threading.Lock()

    def read(self) -> Outcomes:
        """The requests so far, in the order of their answers."""
        import numpy as np

        with self._lock:
            self._take_new()
            rows, owners = self._rows, self._owners
            scores = np.empty((0, 1)) if self._scores is None else self._scores
        order = np.argsort(rows[:, 0], kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        by_request = np.argsort(place[owners], kind="stable")
        rows = rows[order]
        return Outcomes(
            is_canary=rows[:, 1].astype(bool),
            seconds=rows[:, 2],
            failed=rows[:, 3].astype(bool),
            flagged=rows[:, 4].astype(bool),
            unit=rows[:, 5].astype(np.int64),
            scores=scores[by_request],
            score_request=place[owners][by_request],
        )

    def _take_new(self) -> None:
        import numpy as np

        rows: list[tuple[float, ...]] = []
        scores: list[Sequence[float]] = []
        owners: list[int] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            for one in self._new_of(path):
                for score in one.scores:
                    values: Sequence[float] = score if isinstance(score, list) else [score]  # type: ignore[list-item]
                    self._classes = self._classes or len(values)
                    if len(values) == self._classes:
                        scores.append(values)
                        owners.append(len(self._rows) + len(rows))
                is_canary = one.version == self.candidate
                rows.append((one.time, is_canary, one.seconds, one.failed, one.flagged, one.unit))
        if rows:
            self._rows = np.concatenate([self._rows, np.array(rows, dtype=float)])
        if scores:
            new = np.array(scores, dtype=float)
            self._scores = new if self._scores is None else np.concatenate([self._scores, new])
            self._owners = np.concatenate([self._owners, np.array(owners, dtype=np.int64)])

    def _new_of(self, path: Path) -> Iterator[Outcome]:
        """Whole lines of a file that were not read yet."""
        try:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path.name, 0))
                content = file.read()
        except FileNotFoundError:  # removed by who began another walk
            return
        content = content[: content.rfind(b"\n") + 1]
        self._offsets[path.name] = self._offsets.get(path.name, 0) + len(content)
        for line in content.splitlines():
            if line.startswith(self._start):
                try:
                    yield self._decoder.decode(line)
                except msgspec.MsgspecError:  # torn by a worker that was killed; its request was never answered
                    continue


def read_outcomes(folder: Path, name: str, revision: int, candidate: int) -> Outcomes:
    """Read what all workers noted about one revision of an endpoint, once (see `OutcomeReader`)."""
    return OutcomeReader(folder, name, revision, candidate).read()


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
