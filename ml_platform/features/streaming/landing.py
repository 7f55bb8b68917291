"""Lands the events of a stream in their raw table, each once: rows and how far the partitions came in one commit."""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from ml_platform.features.stream_spec import PARTITION, POSITION
from ml_platform.features.streaming.read_events import Refused
from ml_platform.features.streaming.state_file import StateFile, decode, encode
from ml_platform.lake.ingestion.ingest import QUARANTINE, quarantine_of
from ml_platform.lake.storage.maintenance import compact
from ml_platform.lake.storage.tables import Lake

MOST_BYTES = 64 * 2**20  # of rows in one commit
COMPACT_EVERY = 100  # commits: each gets slower with the number of files


def pack_rows(rows: pl.DataFrame) -> bytes:
    """Pack rows for the state file."""
    buffer = io.BytesIO()
    rows.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()


def pack_refused(refused: Sequence[Refused]) -> bytes:
    """Pack refused messages for the state file."""
    return encode(refused)


class Landing:
    """Moves what waits in the state file to the raw table and its quarantine.

    Rows whose partition the table already has up to their position were committed by a process that died before it
    could say so; they are left out.
    """

    def __init__(self, lake: Lake, table: str, state: StateFile) -> None:
        self._lake = lake
        self._table = table
        self._state = state
        self._commits = 0

    def land(self) -> int:
        """Commit what waits; return the number of new rows."""
        landed = 0
        while batches := self._state.batches(MOST_BYTES):
            rows = pl.concat(pl.read_ipc(io.BytesIO(batch.rows)) for batch in batches)
            refused = [Refused(*one) for batch in batches for one in decode(batch.refused)]
            self._append(quarantine_of(self._table), _quarantined(refused))
            landed += self._append(self._table, rows)
            reached = dict(rows.group_by(PARTITION).agg(pl.col(POSITION).max()).rows())
            for table in (quarantine_of(self._table), self._table):
                self._lake.sync(table)
            self._state.drop_batches(batches[-1].number, reached)
        return landed

    def landed(self) -> dict[int, int]:
        """How far the raw table has each partition, by its own commits."""
        return landed_positions(self._lake, self._table)

    def _append(self, table: str, rows: pl.DataFrame) -> int:
        """Append the rows that the table lacks, in one commit with their positions; return their number."""
        if not rows.height:
            return 0

        def attempt() -> int:
            target = self._lake.snapshot(table) if self._lake.exists(table) else None
            partitions = rows.get_column(PARTITION).unique().to_list()
            done = dict.fromkeys(partitions, -1)
            if target is not None:
                numbers = {partition: target.transaction_version(_application(partition)) for partition in partitions}
                done |= {partition: number for partition, number in numbers.items() if number is not None}
            new = rows.filter(pl.col(POSITION) > pl.col(PARTITION).replace_strict(done, return_dtype=pl.Int64))
            if not new.height:
                return 0
            reached = new.group_by(PARTITION).agg(pl.col(POSITION).max()).rows()
            self._lake.write(
                target,
                table,
                new,
                (),
                True,
                mode="append",
                app_transactions=[(_application(partition), position) for partition, position in reached],
            )
            return new.height

        number = self._lake.retried(table, "append to", attempt)
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            compact(self._lake, table)
        return number


def landed_positions(lake: Lake, table: str) -> dict[int, int]:
    """How far a raw table has the partitions of its stream; without those that a restore took back."""
    positions: dict[int, int] = {}
    for name in (table, quarantine_of(table)):
        if lake.exists(name):
            for application, number in lake.deliveries(name, lake.version(name)).items():
                prefix, _, partition = application.rpartition("/")
                if prefix == _PREFIX and partition.isdecimal():
                    positions[int(partition)] = max(number, positions.get(int(partition), -1))
    return positions


_PREFIX = "stream"


def _application(partition: int) -> str:
    return f"{_PREFIX}/{partition}"


def _quarantined(refused: Sequence[Refused]) -> pl.DataFrame:
    """Rows of the quarantine, with the position as the row in the source."""
    now = datetime.now(UTC)
    rows = [
        (
            datetime.fromtimestamp(one.time / 1e6, UTC).date(),
            f"stream partition {one.partition}",
            one.position,
            [one.reason],
            _json_object(one.text),
            now,
            one.partition,
            one.position,
        )
        for one in refused
    ]
    schema = {**QUARANTINE, PARTITION: pl.Int64, POSITION: pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _json_object(text: str) -> str:
    """The message if it is an object, else an object that has it: the quarantine shows columns."""
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    return text if is_object else json.dumps({"message": text})
