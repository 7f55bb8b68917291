"""Answers into tables: straight from a scorer, or from the topic that a scorer writes."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import polars as pl

from ml_platform.lake.storage.tables import Lake
from ml_platform.streams.protocols import Message, Outcome, Resume, Source, StreamMisfit
from ml_platform.streams.table_rows import answer_rows, dead_letter_rows
from ml_platform.streams.table_writer import TableWriter

MOST_HELD = 50_000  # outcomes that wait for a commit: more are committed before their time
_MOST_HELD_BYTES = 64 * 2**20


class TableAnswers:
    """An `AnswerSink` over two tables, for sources whose answers go to no topic.

    Two tables have no common commit, so the dead letters go first: those that are there beyond the position of the
    answers are `Resume.done`.

    Parameters
    ----------
    lake
        Where the tables are.
    name
        Of the stream.
    answers, dead_letters
        The tables.
    commit_every
        Seconds between two commits.
    """

    def __init__(self, lake: Lake, name: str, answers: str, dead_letters: str, commit_every: float) -> None:
        self._answers = TableWriter(lake, answers, f"stream/{name}")
        self._dead_letters = TableWriter(lake, dead_letters, f"stream/{name}/dead_letters")
        self._commit_every = commit_every
        self._held: list[Outcome] = []
        self._held_bytes = 0
        self._due = 0.0

    def open(self, partitions: Sequence[int]) -> Mapping[int, Resume]:
        """See `protocols.AnswerSink`."""
        self._held, self._held_bytes = [], 0
        after = self._answers.open(partitions)
        self._dead_letters.open(partitions)
        done = self._beyond(after)
        self._due = time.monotonic() + self._commit_every
        return {partition: Resume(place, done.get(partition, frozenset())) for partition, place in after.items()}

    def _beyond(self, after: Mapping[int, int]) -> dict[int, frozenset[int]]:
        """Positions of the dead letters that are beyond those of the answers."""
        rows = self._dead_letters.read()
        if rows is None:
            return {}
        done = {}
        for partition, place in after.items():
            mine = (pl.col("partition") == partition) & (pl.col("position") > place)
            if positions := rows.filter(mine).select("position").collect().to_series().to_list():
                done[partition] = frozenset(positions)
        return done

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """See `protocols.AnswerSink`."""
        self._held += outcomes
        self._held_bytes += sum(len(one.value) for one in outcomes)
        if len(self._held) >= MOST_HELD or self._held_bytes >= _MOST_HELD_BYTES:
            self.flush()

    def flush(self, *, due: bool = False) -> None:
        """See `protocols.AnswerSink`."""
        if due and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._commit_every
        if not self._held:
            return
        refused = [one for one in self._held if one.refused]
        if refused:
            self._dead_letters.commit(dead_letter_rows(refused), _ends(refused))
        answered = [one for one in self._held if not one.refused]
        self._answers.commit(answer_rows(answered) if answered else None, _ends(self._held))
        self._held, self._held_bytes = [], 0

    @property
    def held(self) -> int:
        """See `protocols.AnswerSink`."""
        return len(self._held)

    def close(self) -> None:
        """See `protocols.AnswerSink`."""
        self._held, self._held_bytes = [], 0


class CopyCount(NamedTuple):
    """What one commit brought into a table."""

    table: str
    rows: int
    newest: int  # arrival of the newest, in microseconds since 1970


class TopicCopy:
    """Copies the rows of a topic into a table, once each.

    Parameters
    ----------
    name
        What is copied, for messages.
    source
        The topic, as a source of its own.
    writer
        Of the table.
    rows
        Makes rows of the topic's values: `table_rows.answer_rows` or `dead_letter_rows`.
    """

    def __init__(
        self, name: str, source: Source, writer: TableWriter, rows: Callable[[Sequence[Outcome]], pl.DataFrame]
    ) -> None:
        self.name, self.source, self.table = name, source, writer.table
        self._writer, self._rows = writer, rows

    def open(self, partitions: Sequence[int]) -> None:
        """Take over partitions, and go on where the table ends."""
        self.source.assign({number: Resume(place) for number, place in self._writer.open(partitions).items()})

    def copy(self) -> CopyCount | None:
        """Copy what waits, at most `MOST_HELD` rows, in one commit; None when nothing does."""
        messages = list[Message]()
        size = 0
        while len(messages) < MOST_HELD and size < _MOST_HELD_BYTES:
            more = self.source.read(MOST_HELD - len(messages), 0.05)
            if not more:
                break
            messages += more
            size += sum(len(one.value or b"") for one in more)
        if not messages:
            return None
        outcomes = [Outcome(one.partition, one.position, one.value or b"") for one in messages]
        try:
            rows = self._rows(outcomes)
        except msgspec.MsgspecError as error:
            raise StreamMisfit(f"{self.name} has a message that no stream wrote: {error}") from error
        self._writer.commit(rows, _ends(outcomes))
        return CopyCount(self.table, len(messages), max(one.time for one in messages))


def _ends(outcomes: Sequence[Outcome]) -> dict[int, int]:
    """Last position of each partition."""
    ends: dict[int, int] = {}
    for one in outcomes:
        ends[one.partition] = max(one.position, ends.get(one.partition, -1))
    return ends
