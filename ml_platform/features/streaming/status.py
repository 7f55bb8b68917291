"""How the process of a streamed table does: a small document that it replaces about once a second.

`<home>/feature_streams/<table>.json`. A process that was killed leaves its last one: `is_alive` says whether it is
being renewed. Asset checks and `ml-platform stream features --status` read nothing else.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from ml_platform.atomic_files import replace_file

STALE_AFTER = timedelta(seconds=15)
State = Literal["starting", "waiting", "running", "stopped", "failed", "fenced"]


class FeatureStreamStatus(msgspec.Struct, kw_only=True):
    """The process that keeps the streamed views of one table. Counts are since it started; instants are UTC.

    `state` is `waiting` while a broker or store is not there, with the `reason`. `late` events came after newer ones
    and were corrected; `too_late` ones are kept in the table and count in no window; `refused` messages are in its
    quarantine. `watermark` is the instant before which an event that arrives now would be too late.
    """

    table: str
    views: list[str]
    state: State
    reason: str | None
    pid: int
    host: str
    started_at: datetime
    updated_at: datetime
    source: str
    lag: int = 0  # messages that wait at the source
    events: int = 0
    late: int = 0
    too_late: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}
    written: int = 0  # timelines
    refreshed: int = 0
    landed: int = 0  # rows of the table
    landing_bytes: int = 0  # that wait for the table
    landing_error: str | None = None
    newest_event: datetime | None = None
    watermark: datetime | None = None
    last_message_at: datetime | None = None
    events_per_second: float = 0.0  # over the last ten seconds
    metrics_port: int | None = None

    def is_alive(self, now: datetime | None = None) -> bool:
        """Whether the process renews its status, or ended in order."""
        return self.state == "stopped" or (now or datetime.now(UTC)) - self.updated_at < STALE_AFTER

    def problem(self, now: datetime | None = None) -> str | None:
        """What is wrong with it, in words; None when nothing is."""
        if not self.is_alive(now):
            return f"its process {self.pid} on {self.host} is gone, last seen {self.updated_at:%Y-%m-%d %H:%M:%S} UTC"
        if self.state != "running":
            return f"it is {self.state}" + (f": {self.reason}" if self.reason else "")
        if self.landing_error is not None:
            return f"{self.landing_bytes:,} bytes wait for {self.table}: {self.landing_error}"
        return None


def status_path(folder: Path, table: str) -> Path:
    """File of a table's status below `Settings.feature_streams_dir`."""
    return folder / f"{table.replace('/', '__')}.json"


def write_status(folder: Path, status: FeatureStreamStatus) -> None:
    """Replace a table's status."""
    replace_file(status_path(folder, status.table), msgspec.json.encode(status))


def read_status(folder: Path, table: str) -> FeatureStreamStatus | None:
    """The status of a table; None if no process ever ran, or it cannot be read (it is replaced soon)."""
    try:
        return msgspec.json.decode(status_path(folder, table).read_bytes(), type=FeatureStreamStatus)
    except (OSError, msgspec.MsgspecError):
        return None
