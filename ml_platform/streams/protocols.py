"""What a source of messages and a sink of answers promise, so that a stream answers each message exactly once.

The contract in one paragraph: a source is divided into *partitions*, and each message has a *position* in its
partition: an integer that rises from message to message and is the same however often the message is read. A sink
keeps, with each answer and atomically with it, the position of the message that it answers. So a process that starts
asks the sink how far its predecessor came (`AnswerSink.open`) and has the source go on there (`Source.assign`); nothing
else remembers anything, and a process may be killed between any two instructions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec


class StreamUnavailable(ConnectionError):
    """A broker, store or folder does not answer now. Waiting and opening everything anew is the remedy."""


class StreamMisfit(RuntimeError):
    """What is there does not fit what is declared (no such topic, too few partitions). A person has to act."""


class Fenced(RuntimeError):
    """Another process has taken over these partitions. This one must end without writing anything more."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a source.

    Attributes
    ----------
    partition
        Number of its partition.
    position
        Its place there: ≥ 0, below 2^63, rising, gaps allowed, always the same for the same message.
    value
        The message as it was sent, one JSON object in UTF-8; None for a Kafka tombstone. A source of rows (a table, a
        CSV file) makes the JSON object. It may be anything: the reader judges it.
    key
        The key by which it was sent; None without one.
    time
        When the broker or the file system got it, in microseconds since 1970 (UTC). It must not change when the message
        is read again: lateness is judged by it, so a backlog that is read late is not late.
    """

    partition: int
    position: int
    value: bytes | None
    key: bytes | None
    time: int


@dataclass(frozen=True)
class Resume:
    """How far a partition was answered.

    Attributes
    ----------
    after
        Go on with the first message whose position is greater; -1 when nothing was answered yet, which leaves the
        choice to the source (`start: earliest | latest`).
    done
        Positions greater than `after` that were answered all the same and must be left out. With `after` -1 the stream
        began at or after the first of them: a source with `start: latest` goes on there. A sink whose commits are
        atomic over everything it writes needs none.
    """

    after: int = -1
    done: frozenset[int] = frozenset()


@dataclass(frozen=True)
class PartitionLag:
    """How much of a partition waits.

    Attributes
    ----------
    position
        Last position handed out by `read`, or gone on after; -1 before any.
    end
        Position that the next message will have or a lower bound of it; equal to `position` + 1 when nothing waits.
    waiting
        Messages that wait; an estimate (an upper bound) where positions have gaps.
    """

    position: int
    end: int
    waiting: int


class Source(Protocol):
    """Reads messages in order, partition by partition. One thread uses it; it opens its connections in `assign`.

    A source keeps no position anywhere: no consumer group, no acknowledgement that makes a message disappear, no state
    file. Where a broker insists (a JetStream consumer), it is an ephemeral one. All methods raise `StreamUnavailable`
    when the other side does not answer within some seconds, and `StreamMisfit` when what is declared is not there; a
    broker that is down while messages are read is neither: `read` gives none until it is back.
    """

    def partitions(self) -> Sequence[int]:
        """Numbers of all partitions, rising. A source without any has the one partition 0."""

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """Go on in each of these partitions, and read no others; a second call replaces the first.

        Raises
        ------
        StreamMisfit
            When messages after a position were deleted before they were read (retention, a truncated table): the
            message says how many at most, and that going on needs a decision.
        """

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """Give at most so many messages; wait so long for the first, and for no further one.

        Messages of one partition come in order and without a gap; `Resume.done` are left out. Memory is bounded: what
        is fetched ahead counts tens of megabytes, not what waits at the broker.
        """

    def lag(self) -> Mapping[int, PartitionLag]:
        """How much waits in each assigned partition, as of the last second or so. Cheap: called once a second."""

    def close(self) -> None:
        """Close the connections; may be called twice, and without `assign`."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one message.

    Attributes
    ----------
    partition, position
        Those of the message.
    value
        The answer or the dead letter, one JSON object (see `streams.answers`).
    refused
        Kind of the dead letter (`streams.answers.Kind`); empty for an answer.
    """

    partition: int
    position: int
    value: bytes
    refused: str = ""


class AnswerSink(Protocol):
    """Keeps outcomes, each with its message's position. One thread uses it.

    Exactly once rests on three promises: `open` ends whatever predecessor still holds the partitions (it gets `Fenced`
    at its next commit) before it looks how far that came; `write` keeps the outcomes of one partition in order, and all
    or none of a commit; and after any error in a commit the sink is not used again: the runner closes it and opens a
    new one, which finds out what was kept.
    """

    @property
    def held(self) -> int:
        """Outcomes that are not committed yet."""

    def open(self, partitions: Sequence[int]) -> Mapping[int, Resume]:
        """Take over these partitions, and say how far each was answered.

        Raises
        ------
        StreamUnavailable, StreamMisfit
            As for a source.
        """

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes; those of one partition follow on those of the call before.

        A sink that commits at once has them committed when this returns. One that commits every few seconds
        (`StreamSink.commit_every`) may hold them, a bounded number.

        Raises
        ------
        Fenced
            When another process has taken over a partition.
        StreamUnavailable
            When the commit failed or may have failed.
        """

    def flush(self, *, due: bool = False) -> None:
        """Commit what is held; with `due` only where `commit_every` has passed. Called between reads and at the end."""

    def close(self) -> None:
        """Close the connections without committing anything; may be called twice."""


def share_of(partitions: Sequence[int], worker: int, workers: int) -> list[int]:
    """Partitions of one of several workers, numbered from 1: each belongs to exactly one.

    Examples
    --------
    >>> share_of(range(5), 1, 2), share_of(range(5), 2, 2)
    ([0, 2, 4], [1, 3])
    """
    if not 1 <= worker <= workers:
        raise ValueError(f"wanted a worker from 1 to {workers}, found {worker}")
    return [partition for number, partition in enumerate(sorted(partitions)) if number % workers == worker - 1]
