"""What a worker tells of itself while it runs: its status document, its metrics, and lines in the log."""

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.stream_scoring.metrics import StreamMetrics
from ml_platform.streams.protocols import PartitionLag
from ml_platform.streams.status import RENEWED_SECONDS, Part, PartitionStatus, State, StreamStatus, write_status

_AGES_KEPT = 2000
_AGES_OF_A_BATCH = 8
_RATE_SECONDS = 10
_AGE_SECONDS = 60
logger = logging.getLogger("streams")


class Report:
    """The status of one part of a worker, told and written by the thread that runs it.

    Parameters
    ----------
    folder
        `Settings.streams_dir`.
    metrics
        Series that follow it.
    source, target
        Where messages come from and answers go, in words.
    """

    def __init__(
        self, folder: Path, metrics: StreamMetrics, *, model: str, part: Part, worker: tuple[int, int], source: str,
        target: str, metrics_port: int | None = None,
    ) -> None:  # fmt: skip
        now = datetime.now(UTC)
        self._folder, self._metrics = folder, metrics
        self.status = StreamStatus(
            model=model, part=part, worker=worker[0], workers=worker[1], state="starting", reason=None,
            pid=os.getpid(), host=socket.gethostname(), started_at=now, updated_at=now, source=source, target=target,
            metrics_port=metrics_port,
        )  # fmt: skip
        self._lag: Callable[[], Mapping[int, PartitionLag]] | None = None
        self._in_hand: Counter[int] = Counter()  # messages of each partition that were read, and not yet committed
        self._refused: Counter[str] = Counter()
        self._ages: deque[tuple[float, float]] = deque(maxlen=_AGES_KEPT)
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_SECONDS + 1)
        self._due = 0.0
        self._age = metrics.age.labels(model)

    def enter(self, state: State, reason: str | None = None) -> None:
        """Change the state, which is told once, in the log and in the document."""
        if (state, reason) == (self.status.state, self.status.reason):
            return
        self.status.state, self.status.reason = state, reason
        level = (
            logging.ERROR if state in ("failed", "fenced") else logging.WARNING if state == "waiting" else logging.INFO
        )
        logger.log(level, "%s: %s%s", self._name, state, f": {reason}" if reason else "")
        self._metrics.running.labels(self.status.model, self.status.part).set(state == "running")
        self.write()

    def follow(self, lag: Callable[[], Mapping[int, PartitionLag]] | None) -> None:
        """Take lags from here from now on; from nowhere when None."""
        self._lag = lag
        self._in_hand.clear()  # a new session reads again what was not committed

    def committed(self, times: Sequence[int], refused: Counter[str], partitions: Counter[int]) -> None:
        """Count messages whose answers were committed just now, by arrival, kinds of dead letters, and partition."""
        self._in_hand.subtract(partitions)
        now, model = time.time(), self.status.model
        answered = len(times) - refused.total()
        if self.status.last_commit_at is None:
            self._due = 0.0  # the first answers are told at once
        self.status.answered += answered
        self.status.dead_letters += refused.total()
        self._refused += refused
        self.status.refused = dict(self._refused)
        self._metrics.answered.labels(model).inc(answered)
        for kind, number in refused.items():
            self._metrics.dead_letters.labels(model, kind).inc(number)
        newest = max(times)
        self.status.last_message_at = datetime.fromtimestamp(newest / 1e6, UTC)
        self.status.last_commit_at, self.status.waiting_since = datetime.fromtimestamp(now, UTC), None
        self._metrics.last_message.labels(model).set(newest / 1e6)
        clock = time.monotonic()
        for arrived in times[:: -(-len(times) // _AGES_OF_A_BATCH)]:
            age = max(0.0, now - arrived / 1e6)
            self._ages.append((clock, age))
            self._age.observe(age)

    def copied(self, table: str, rows: int, newest: int) -> None:
        """Count rows that were committed to a table just now."""
        self.status.answered += rows
        self.status.last_commit_at, self.status.waiting_since = datetime.now(UTC), None
        self.status.last_message_at = datetime.fromtimestamp(newest / 1e6, UTC)
        self._metrics.table_rows.labels(self.status.model, table).inc(rows)
        self._ages.append((time.monotonic(), max(0.0, time.time() - newest / 1e6)))

    def read(self, messages: int, partitions: Counter[int] | None = None) -> None:
        """Count messages that were read; those of `partitions` wait until they are `committed`."""
        self.status.read += messages
        self._in_hand.update(partitions or ())
        if self.status.part == "scorer":  # the copy reads answers, not messages of the source
            self._metrics.read.labels(self.status.model).inc(messages)

    def renew(self) -> None:
        """Write the document if it is due: called again and again."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the document now; a disk that is full costs the document, not the stream."""
        clock = time.monotonic()
        self._due = clock + RENEWED_SECONDS
        status = self.status
        self._take_lag()
        self._rates.append((clock, status.answered + status.dead_letters))
        (first, before), (last, now) = self._rates[0], self._rates[-1]
        status.rows_per_second = round((now - before) / (last - first), 1) if last > first else 0.0
        ages = sorted(age for at, age in self._ages if at > clock - _AGE_SECONDS)
        status.seconds_p50 = round(ages[len(ages) // 2], 4) if ages else None
        status.seconds_p99 = round(ages[int(len(ages) * 0.99)], 4) if ages else None
        status.updated_at = datetime.now(UTC)
        try:
            write_status(self._folder, status)
        except OSError as error:
            logger.error("%s: its status cannot be written: %s", self._name, error)

    def _take_lag(self) -> None:
        if self._lag is None:
            return
        lags = {
            number: replace(lag, waiting=lag.waiting + self._in_hand[number]) for number, lag in self._lag().items()
        }
        self.status.partitions = [
            PartitionStatus(partition=number, position=lag.position, end=lag.end, waiting=lag.waiting)
            for number, lag in sorted(lags.items())
        ]
        if not self.status.waiting:
            self.status.waiting_since = None
        elif self.status.waiting_since is None:
            self.status.waiting_since = datetime.now(UTC)
        for number, lag in lags.items() if self.status.part == "scorer" else ():
            self._metrics.lag.labels(self.status.model, str(number)).set(lag.waiting)

    @property
    def _name(self) -> str:
        of = f" {self.status.worker}/{self.status.workers}" if self.status.workers > 1 else ""
        return f"{self.status.model}: {self.status.part}{of}"
