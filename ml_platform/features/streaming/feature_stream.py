"""Keeps the views of one raw table up to date: takes the messages of a stream, batch by batch.

What happens to a batch, in this order: its events are read; one transaction of the state file takes them, the windows
that they change, how far the partitions were read and the rows for the raw table; the timelines of their entities go to
the online store; every few seconds rows land in the raw table. Each step may be repeated, so after a kill the state
file says where to go on, entities that it changed last are written to the online store again, and rows that have
landed are left out. State that does not belong to the raw table or to the views as they are declared is made anew from
the raw table.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import polars as pl

from ml_platform.atomic_files import try_lock
from ml_platform.features.online.store import OnlineStore, to_instant, to_micros
from ml_platform.features.stream_spec import ARRIVED, ViewStream
from ml_platform.features.streaming.counted_rows import KNOWN, counted_rows, state_identity
from ml_platform.features.streaming.landing import Landing, pack_refused, pack_rows
from ml_platform.features.streaming.online_timelines import OnlineTimelines
from ml_platform.features.streaming.read_events import EventReader
from ml_platform.features.streaming.state_file import StateFile, WaitingEvent, decode, encode
from ml_platform.features.streaming.stream_counts import StreamCounts
from ml_platform.features.streaming.timeline import Timeline
from ml_platform.features.streaming.view_events import ViewEvents
from ml_platform.features.streaming.view_windows import HELD, Event, ViewWindows
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.streams.protocols import Fenced, Message, Resume

_TIDY_SECONDS = 60.0  # between two looks for entities that can be forgotten
_REBUILD_ROWS = 200_000  # events of the raw table taken at a time
_LANDED_BYTES = 64 * 2**20  # that may wait for the raw table before it gets them at once


class FeatureStream:
    """The views of one raw table that get their events from a stream.

    Parameters
    ----------
    lake
        Where the raw table is.
    views
        All views with a `stream` over the table, which declare it equally (see `streaming.tables`).
    store
        The online store.
    folder
        Folder of the state files; a lock in it keeps a second process out.
    clock
        Gives the time in seconds since 1970.
    held
        Events kept in memory, of the entities used last; the others are read again when they are needed.
    locked
        Called once no other process can run the stream, before the state is looked at.

    Raises
    ------
    Fenced
        When another process of this machine runs the same stream.
    """

    def __init__(
        self,
        lake: Lake,
        views: Sequence[FeatureView],
        store: OnlineStore,
        folder: Path,
        *,
        clock: Any = time.time,
        held: int = HELD,
        locked: Callable[[], None] = lambda: None,
    ) -> None:
        first = views[0]
        assert first.rolling is not None
        assert first.stream is not None
        self.table = first.rolling.source
        self.stream: ViewStream = first.stream
        self.counts = StreamCounts()
        self._lake = lake
        self._now = clock
        name = self.table.replace("/", "__")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(self._lock):
            os.close(self._lock)
            raise Fenced(f"another process keeps the streamed views of {self.table}: end it first")
        locked()
        self._state = StateFile(folder / f"{name}.db")
        self._views = [ViewWindows(view, number, self._state, held=held) for number, view in enumerate(views)]
        self._landing = Landing(lake, self.table, self._state)
        rollings = [view.rolling for view in views if view.rolling is not None]
        self._reader = EventReader(self.stream, rollings)
        self._online = OnlineTimelines(store, self._reader.schema)
        self._is_recorded = self.stream.clock == "events"
        self._events = ViewEvents(self._views)
        self._time = first.rolling.time
        self._next_landing = self._next_tidying = 0.0
        self._sequence = 0  # of the last event or refresh
        self._recover()

    def positions(self) -> dict[int, Resume]:
        """Where each partition goes on."""
        return {partition: Resume(position) for partition, position in self._positions.items()}

    def take(self, messages: Sequence[Message]) -> None:
        """Take messages: when this returns, they are in the state file, and online are the values that they change.

        Raises
        ------
        sqlite3.Error, redis.RedisError
            When the online store cannot be written. The messages are taken all the same: open the stream anew.
        """
        new = [one for one in messages if one.position > self._positions.get(one.partition, -1)]
        if not new:
            return
        read = self._reader.read(new)
        rows, refused, found = self._events.possible(read.rows, self._sequence, read.refused)
        reached: dict[int, int] = {}
        for message in new:
            reached[message.partition] = max(message.position, reached.get(message.partition, -1))
        self._note_clock(rows, new)
        sequence = self._sequence + read.rows.height + 1
        now = self._clock()
        with self._state.transaction():
            timelines = [
                windows.add(self._hold(windows, events, now), sequence)
                for windows, events in zip(self._views, found, strict=True)
            ]
            self._state.set_positions(reached)
            self._state.add_batch(pack_rows(rows), pack_refused(refused))
            self._note_facts(sequence)
        self._sequence = sequence
        self._positions |= reached
        self.counts.add(rows, self._time, refused)
        self._publish(timelines)

    def pass_time(self) -> None:
        """Do what is due: let waiting events count, refresh timelines that run out, forget what no window needs."""
        now = self._clock()
        self._enter_waiting(now)
        for windows in self._views:
            if not windows.plan.only_events:
                self._refresh(windows, now)
        monotonic = time.monotonic()
        if monotonic >= self._next_tidying:
            self._next_tidying = monotonic + _TIDY_SECONDS
            with self._state.transaction():
                for windows in self._views:
                    windows.forget(now)

    @property
    def is_landing_due(self) -> bool:
        """Whether rows should be committed to the raw table now."""
        return time.monotonic() >= self._next_landing or self.landing_bytes > _LANDED_BYTES

    @property
    def landing_bytes(self) -> int:
        """Bytes that wait for the raw table."""
        return self._state.waiting_bytes()

    def land(self) -> int:
        """Commit what waits to the raw table; return the number of rows."""
        rows = self._landing.land()
        self.counts.landed += rows
        self._next_landing = time.monotonic() + self.stream.commit_every.total_seconds()
        return rows

    def watermark(self) -> datetime | None:
        """Instant before which an event that arrives now is too late; None before any event."""
        if self._newest_arrival is None:
            return None
        return to_instant(self._clock()) - self.stream.lateness

    def close(self) -> None:
        """Close the files; what waits for the raw table stays in the state file."""
        self._state.close()
        self._events.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Starting

    def _recover(self) -> None:
        """Make the state that of the raw table and of the declared views, then the online store that of the state."""
        identity = state_identity(self.table, self.stream, self._views)
        self._positions = self._state.positions()
        landed = self._landing.landed()
        kept = self._state.landed()
        is_behind = any(position > self._positions.get(partition, -1) for partition, position in landed.items())
        was_restored = any(position > landed.get(partition, -1) for partition, position in kept.items())
        lacking = [one for one in self._views if not self._online.has(one.view)]
        if self._state.fact("identity") != identity or is_behind or was_restored or lacking:
            if not was_restored:
                self._landing.land()  # what only the state file has
            self._rebuild(identity)
        self._positions = self._state.positions()
        self._sequence = int(self._state.fact("sequence", 0))
        self._newest_arrival = self._state.fact("newest_arrival")
        self._offset = int(self._state.fact("offset", 0))
        self._published = int(self._state.fact("published", -1))
        self._reader.newest = self._state.fact("newest_time")
        self._republish()

    def _rebuild(self, identity: str) -> None:
        """Make the state from the raw table: the events that may be in a window, in the order of their arrival."""
        with self._state.transaction():
            self._state.clear()
            sequence = 0
            newest_arrival = newest_time = None
            if self._lake.exists(self.table):
                rows = counted_rows(self._lake, self.table, self._time, self._views, self._reader.schema)
                for start in range(0, rows.height, _REBUILD_ROWS):
                    part = rows.slice(start, _REBUILD_ROWS)
                    found = self._events.all(part, sequence)
                    sequence += part.height + 1
                    for windows, events in zip(self._views, found, strict=True):
                        windows.add(events, sequence)
                if rows.height:
                    newest_arrival = int(rows.get_column(KNOWN).max())  # type: ignore[arg-type]
                    newest_time = to_micros(rows.get_column(self._time).max())  # type: ignore[arg-type]
            self._state.set_positions(self._landing.landed())
            for name, value in (
                ("identity", identity),
                ("sequence", sequence),
                ("newest_arrival", newest_arrival),
                ("newest_time", newest_time),
                ("offset", self._wall() - newest_arrival if self._is_recorded and newest_arrival is not None else 0),
            ):
                self._state.set_fact(name, value)

    def _republish(self) -> None:
        """Write what the online store may lack: all of a definition that is new there, else what changed last."""
        published = self._published
        for windows in self._views:
            if published < 0 or not self._online.has(windows.view):
                mark = self._online.mark(windows.view)
                keys = self._state.keys_since(windows.number, -1)
                self._online.replace(windows.view, windows.timelines(keys), mark)
            else:
                self._online.write(windows.view, windows.timelines(self._state.keys_since(windows.number, published)))
            self._online.hold_open(windows.view)
        self._published = self._sequence
        with self._state.transaction():
            self._state.set_fact("published", self._published)

    # A batch

    def _hold(self, windows: ViewWindows, events: list[Event], now: int) -> list[Event]:
        """Keep events whose time has not come for later; give the others."""
        early = [event for event in events if event.known > now]
        if not early:
            return events
        self._state.add_waiting(
            WaitingEvent(event.known, event.sequence, windows.number, event.key, event.us, encode(event.values))
            for event in early
        )
        return [event for event in events if event.known <= now]

    def _enter_waiting(self, now: int) -> None:
        first = self._state.first_waiting()
        if first is None or first > now:
            return
        due = self._state.due(now)
        sequence = self._sequence + 1
        with self._state.transaction():
            timelines = [
                windows.add(
                    [
                        Event(one.key, one.us, one.known, one.sequence, tuple(decode(one.packed)))
                        for one in due
                        if one.view == windows.number
                    ],
                    sequence,
                )
                for windows in self._views
            ]
            self._state.drop_due(now)
            self._note_facts(sequence)
        self._sequence = sequence
        self._publish(timelines)

    def _refresh(self, windows: ViewWindows, now: int) -> None:
        while True:
            sequence = self._sequence + 1
            with self._state.transaction():
                timelines = windows.refresh(now, sequence)
                if timelines:
                    self._note_facts(sequence)
            if not timelines:
                return
            self._sequence = sequence
            self.counts.refreshed += len(timelines)
            self._publish([timelines if one is windows else [] for one in self._views])

    def _publish(self, timelines: Iterable[list[tuple[bytes, Timeline]]]) -> None:
        for windows, some in zip(self._views, timelines, strict=True):
            if some:
                self._online.write(windows.view, some)
                self.counts.written += len(some)
        self._published = self._sequence

    # Time

    def _wall(self) -> int:
        return int(self._now() * 1e6)

    def _clock(self) -> int:
        """Time of the stream: the machine's, and where events are played again that of the newest, going on."""
        return self._wall() - self._offset

    def _note_clock(self, rows: pl.DataFrame, messages: Sequence[Message]) -> None:
        newest = max(message.time for message in messages)
        if self._is_recorded:
            if not rows.height:
                return
            newest = to_micros(rows.get_column(ARRIVED).max())  # type: ignore[arg-type]
            passed = self._wall() - newest
            self._offset = passed if self._newest_arrival is None else min(self._offset, passed)
        self._newest_arrival = max(newest, self._newest_arrival or newest)

    def _note_facts(self, sequence: int) -> None:
        self._state.set_fact("sequence", sequence)
        self._state.set_fact("newest_arrival", self._newest_arrival)
        self._state.set_fact("newest_time", self._reader.newest)
        self._state.set_fact("offset", self._offset)
        self._state.set_fact("published", self._published)
