"""What was used, in lines of files, until they are taken into the table `governance/cost`.

A line says what was used *since the line before it* of the same process, so that sums need no further rule, and a
process that is killed loses what it used since its last line and nothing else.

Serving imports this: standard library and msgspec only.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.processes.identity import is_gone, this_process
from ml_platform.segment_log.segments import SegmentLog

TABLE = "governance/cost"
STREAM = "usage"  # folder below `Settings.cost_dir`
METER = "ML_PLATFORM_METER"  # variable that what a metered process starts inherits: who accounts for it

RUN, COMMAND, SERVING = "run", "command", "serving"


class Use(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What was used since the last line of the same account; an empty text stands for "none".

    Attributes
    ----------
    kind
        `run` of Dagster, `command` at a terminal, `serving`.
    key
        Name of the caller's API key, or `anonymous`; for serving only.
    seconds
        That passed: of a step in the lines of steps, of the whole run in those without a step.
    peak_bytes
        Most memory (PSS) at any time until now; the largest counts, not the sum.
    byte_seconds
        Memory times how long it was in use.
    """

    time: datetime
    meter: str  # the process that measured
    kind: str
    run: str = ""
    job: str = ""
    step: str = ""
    asset: str = ""
    model: str = ""
    key: str = ""
    team: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    byte_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    requests: int = 0
    rows: int = 0


class UseLog:
    """Appends lines of use below a folder; made on the first line.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> log = UseLog(folder)
    >>> log.write([Use(time=now(), meter=this_process(), kind=COMMAND, job="score", cpu_seconds=1.5)])
    >>> log.close()
    >>> len(list(folder.glob("usage/*.jsonl")))
    1
    """

    def __init__(self, folder: Path) -> None:
        self._log = SegmentLog(folder, "log of costs")

    def write(self, uses: list[Use]) -> None:
        """Append lines, which survive the death of this process (raises `LogUnavailable`)."""
        if uses:
            self._log.append(STREAM, uses)

    def close(self) -> None:
        """Sync and close the file."""
        self._log.close()


def now() -> datetime:
    """Return the time of a line."""
    return datetime.now(UTC)


def is_metered() -> bool:
    """Whether another process accounts for this one already, which would count it twice."""
    meter = os.environ.get(METER, "")
    return bool(meter) and meter != this_process() and not is_gone(meter)
