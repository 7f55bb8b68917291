"""Runs a part of a stream until it is told to stop: opens everything, works, and opens it anew after an error."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ml_platform.segment_log.segments import LogUnavailable
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.models.slots import EndpointState
from ml_platform.spec.stream import Stream
from ml_platform.stream_scoring.batch_scorer import BatchScorer
from ml_platform.stream_scoring.metrics import StreamMetrics
from ml_platform.stream_scoring.report import Report
from ml_platform.streams.open import describe_source
from ml_platform.streams.protocols import (
    AnswerSink,
    Fenced,
    Message,
    Outcome,
    Resume,
    Source,
    StreamMisfit,
    StreamUnavailable,
    share_of,
)

if TYPE_CHECKING:
    from ml_platform.streams.table_sink import TopicCopy

STOPPED, FAILED, FENCED = 0, 1, 3  # exit codes: 1 wants a person, 3 means that another process goes on
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds before everything is opened anew
_READ_SECONDS = 0.1
_PARTITIONS_SECONDS = 30.0  # between two looks at how many partitions there are
_RETRY_SECONDS = 0.5
logger = logging.getLogger("streams")


class StreamPart(Protocol):
    """What a worker runs."""

    report: Report

    def session(self, stop: threading.Event) -> None:
        """Open everything, and work until `stop` is set; raises what `streams.protocols` names."""


def run_part(part: StreamPart, stop: threading.Event, metrics: StreamMetrics) -> int:
    """Run sessions until one ends in order, or for good; gives the exit code.

    What is unavailable comes back: then everything is opened anew, and the sink says how far the stream came. Nothing
    is carried over from the session that failed.
    """
    report, pause = part.report, _FIRST_PAUSE
    while not stop.is_set():
        started = time.monotonic()
        try:
            report.enter("starting")
            part.session(stop)
        except Fenced as error:
            report.follow(None)
            report.enter("fenced", f"{error}; this one ends, and wrote nothing more")
            return FENCED
        except StreamMisfit as error:
            report.follow(None)
            report.enter("failed", str(error))
            return FAILED
        except (StreamUnavailable, LogUnavailable) as error:
            report.follow(None)
            if time.monotonic() - started > 60:
                pause = _FIRST_PAUSE
            metrics.restarts.labels(report.status.model).inc()
            report.enter("waiting", f"{error}. Everything is opened anew in {pause:g} s")
            _wait(stop, report, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        except BaseException as error:
            report.follow(None)
            report.enter("failed", f"{type(error).__name__}: {error}")
            raise
    report.follow(None)
    report.enter("stopped")
    return STOPPED


def _wait(stop: threading.Event, report: Report, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not stop.wait(min(_RETRY_SECONDS, max(0.0, deadline - time.monotonic()))):
        report.renew()
        if time.monotonic() >= deadline:
            return


class _Held(NamedTuple):
    """What is told of a micro-batch once it is committed."""

    times: list[int]  # arrival of each message, in microseconds since 1970
    refused: Counter[str]  # dead letters by kind
    partitions: Counter[int]  # messages by partition


class ScorerPart:
    """Answers the messages of a source.

    Parameters
    ----------
    model, stream
        Whose messages are answered, and how.
    worker
        Which share of the partitions: number and number of workers.
    slot
        Gives what serves now.
    scorer
        Scores micro-batches.
    source, sink
        Make a source of messages, and a sink for the answers; called for each session.
    """

    def __init__(
        self, model: str, stream: Stream, *, worker: tuple[int, int], slot: Callable[[], EndpointState | None],
        scorer: BatchScorer, source: Callable[[], Source], sink: Callable[[], AnswerSink], report: Report,
        metrics: StreamMetrics,
    ) -> None:  # fmt: skip
        self.report = report
        self._model, self._stream, self._worker, self._slot = model, stream, worker, slot
        self._scorer, self._source, self._sink, self._metrics = scorer, source, sink, metrics

    def session(self, stop: threading.Event) -> None:
        """See `StreamPart`."""
        source, sink = self._source(), self._sink()
        try:
            if self._served(stop) is None:
                return
            every = source.partitions()
            mine = share_of(every, *self._worker)
            if not mine:
                raise StreamMisfit(
                    f"worker {self._worker[0]} of {self._worker[1]} has nothing to do: "
                    f"{describe_source(self._stream.source)} has {len(every)} partitions"
                )
            resume = sink.open(mine)
            source.assign(resume)
            self.report.follow(source.lag)
            logger.info("%s: answers %s, %s", self._model, describe_source(self._stream.source), _in_words(resume))
            self.report.enter("running")
            self._answer(source, sink, len(every), stop)
        finally:
            for opened in (sink, source):
                with suppress(StreamUnavailable, Fenced):
                    opened.close()

    def _answer(self, source: Source, sink: AnswerSink, partitions: int, stop: threading.Event) -> None:
        held = list[_Held]()
        look_again = time.monotonic() + _PARTITIONS_SECONDS
        batch_size, seconds = self._metrics.batch.labels(self._model), self._metrics.seconds.labels(self._model)
        while not stop.is_set():
            messages = source.read(self._stream.max_batch, _READ_SECONDS)
            if (slot := self._slot()) is not None:
                self.report.status.versions = [model.version for model in slot.served]
            self.report.renew()
            if messages:
                by_partition = Counter(one.partition for one in messages)
                self.report.read(len(messages), by_partition)
                started = time.perf_counter()
                outcomes = self._score(messages, stop)
                if outcomes is None:
                    break
                sink.write(outcomes)
                refused = Counter(one.refused for one in outcomes if one.refused)
                held.append(_Held([one.time for one in messages], refused, by_partition))
                batch_size.observe(len(messages))
                seconds.observe(time.perf_counter() - started)
            sink.flush(due=True)
            self._tell(held, sink)
            if time.monotonic() > look_again:
                look_again = time.monotonic() + _PARTITIONS_SECONDS
                if len(source.partitions()) != partitions:
                    raise StreamUnavailable(f"{describe_source(self._stream.source)} has other partitions now")
        sink.flush()
        self._tell(held, sink)

    def _tell(self, held: list["_Held"], sink: AnswerSink) -> None:
        """Count what is committed by now."""
        if held and not sink.held:
            for one in held:
                self.report.committed(*one)
            held.clear()

    def _score(self, messages: Sequence[Message], stop: threading.Event) -> list[Outcome] | None:
        """Score, and wait for what is not there; None when the worker is to stop meanwhile."""
        while True:
            slot = self._served(stop)
            if slot is None:
                return None
            try:
                return self._scorer.score(slot, messages)
            except OnlineStoreFailed as error:
                self.report.enter("waiting", f"messages wait, unanswered: {error}")
                if stop.wait(_RETRY_SECONDS):
                    return None
                self.report.renew()

    def _served(self, stop: threading.Event) -> EndpointState | None:
        """What serves; waits for it, and gives None when the worker is to stop meanwhile."""
        slot = self._slot()
        while slot is None or not slot.served:
            why = slot.refused.reason if slot is not None and slot.refused else "release a version of it"
            self.report.enter("waiting", f"no version of {self._model} serves: {why}")
            if stop.wait(_RETRY_SECONDS):
                return None
            self.report.renew()
            slot = self._slot()
        if self.report.status.state == "waiting":
            self.report.enter("running")
        return slot


class CopyPart:
    """Copies what a scorer wrote from topics to tables, every few seconds."""

    def __init__(
        self, model: str, stream: Stream, *, worker: tuple[int, int], copies: Callable[[], list["TopicCopy"]],
        report: Report, metrics: StreamMetrics,
    ) -> None:  # fmt: skip
        self.report = report
        self._model, self._stream, self._worker, self._copies, self._metrics = model, stream, worker, copies, metrics

    def session(self, stop: threading.Event) -> None:
        """See `StreamPart`."""
        copies = self._copies()
        try:
            for copy in copies:
                mine = share_of(copy.source.partitions(), *self._worker)
                if not mine:
                    raise StreamMisfit(f"worker {self._worker[0]} of {self._worker[1]} has no partition of {copy.name}")
                copy.open(mine)
            self.report.follow(copies[0].source.lag)
            self.report.enter("running")
            while not stop.is_set():
                started = time.monotonic()
                self._copy(copies, stop)
                _wait(
                    stop,
                    self.report,
                    max(0.0, started + self._stream.sink.commit_every.total_seconds() - time.monotonic()),
                )
            self._copy(copies, stop)
        finally:
            for copy in copies:
                with suppress(StreamUnavailable):
                    copy.source.close()

    def _copy(self, copies: list["TopicCopy"], stop: threading.Event) -> None:
        """Copy all that waits; only one more commit of each when the worker is to stop."""
        for copy in copies:
            while (done := copy.copy()) is not None:
                self.report.read(done.rows)
                self.report.copied(*done)
                waiting = sum(lag.waiting for lag in copy.source.lag().values())
                self._metrics.table_lag.labels(self._model, copy.table).set(waiting)
                self.report.renew()
                if stop.is_set() or not waiting:
                    break


def _in_words(resume: Mapping[int, Resume]) -> str:
    places = [
        f"partition {number} from the start"
        if one.after < 0 and not one.done
        else f"partition {number} after {max([one.after, *one.done])}"
        for number, one in sorted(resume.items())
    ]
    return ", ".join(places[:8]) + (f" and {len(places) - 8} more" if len(places) > 8 else "")
