"""The status of a stream's workers: small documents that anybody may read, replaced whole about once a second.

`<home>/streams/<model>/<part>-<worker>-of-<workers>.json`. A worker that was killed leaves its last one: `is_alive`
says whether it is being renewed. Console, asset checks, alerts and `ml-platform stream status` read nothing else.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from ml_platform.atomic_files import replace_file

RENEWED_SECONDS = 1.0
STALE_AFTER = timedelta(seconds=15)

State = Literal["starting", "waiting", "running", "stopped", "failed", "fenced"]
Part = Literal["scorer", "sink"]


class PartitionStatus(msgspec.Struct, kw_only=True):
    """How far one partition is; see `protocols.PartitionLag`."""

    partition: int
    position: int
    end: int
    waiting: int


class StreamStatus(msgspec.Struct, kw_only=True):
    """One worker of a stream. Counts are since this process started; instants are UTC.

    `part` is `scorer` for what answers messages, `sink` for what copies answers from their topic to the table. `state`
    is `waiting` while a broker, the online store or a release is not there, with the `reason`. `seconds_p50` and
    `seconds_p99` are the age of messages when their answers were committed, from when the broker got them, over the
    last minute; null without any. `refused` counts dead letters by their kind (`broken`, `late`, `contract`, …).
    """

    model: str
    part: Part
    worker: int
    workers: int
    state: State
    reason: str | None
    pid: int
    host: str
    started_at: datetime
    updated_at: datetime
    source: str
    target: str
    partitions: list[PartitionStatus] = []
    versions: list[int] = []
    read: int = 0
    answered: int = 0
    dead_letters: int = 0
    refused: dict[str, int] = {}
    rows_per_second: float = 0.0  # over the last ten seconds
    seconds_p50: float | None = None
    seconds_p99: float | None = None
    last_message_at: datetime | None = None  # when the broker got the newest message that was answered
    last_commit_at: datetime | None = None
    waiting_since: datetime | None = None  # since when messages wait without a commit; null while none waits
    metrics_port: int | None = None

    @property
    def waiting(self) -> int:
        """Messages that wait in all its partitions."""
        return sum(one.waiting for one in self.partitions)

    def is_alive(self, now: datetime | None = None) -> bool:
        """Whether the worker renews its status, or ended in order."""
        return self.state == "stopped" or (now or datetime.now(UTC)) - self.updated_at < STALE_AFTER


def status_path(folder: Path, status: StreamStatus) -> Path:
    """File of a worker's status below `Settings.streams_dir`."""
    return folder / status.model / f"{status.part}-{status.worker}-of-{status.workers}.json"


def write_status(folder: Path, status: StreamStatus) -> None:
    """Replace a worker's status.

    Examples
    --------
    >>> import tempfile
    >>> now, folder = datetime.now(UTC), Path(tempfile.mkdtemp())
    >>> status = StreamStatus(
    ...     model="flight_delay", part="scorer", worker=1, workers=1, state="running", reason=None, pid=7, host="a",
    ...     started_at=now, updated_at=now, source="topic flights", target="topic answers",
    ... )
    >>> write_status(folder, status)
    >>> [one.state for one in read_statuses(folder)]
    ['running']
    """
    replace_file(status_path(folder, status), msgspec.json.encode(status))


def read_statuses(folder: Path, model: str | None = None) -> list[StreamStatus]:
    """The statuses of all workers, or of a model's; what cannot be read is left out, since it is replaced soon."""
    return list(_read(folder, model))


def _read(folder: Path, model: str | None) -> Iterator[StreamStatus]:
    for path in sorted(folder.glob(f"{model or '*'}/*.json")):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=StreamStatus)
        except (OSError, msgspec.MsgspecError):
            continue
