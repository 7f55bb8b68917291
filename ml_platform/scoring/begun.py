"""The job file of a scoring: when it began, by which version, and what became of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from ml_platform.inference.parts import PartResult
from ml_platform.scoring.outputs import Stamp

JOB = "job.json"
ABANDONED = timedelta(days=7)  # a scoring that did not go on for so long is not waited for


class Job(msgspec.Struct, kw_only=True):
    """What is kept of a scoring from its first start on."""

    scored_at: datetime
    model: str = ""
    version: int = 0
    source: str = ""
    stamp: Stamp | None = None  # of the file that was written
    refused_stamp: Stamp | None = None  # of the file of refused rows
    done: PartResult | None = None


def begun_scorings(folder: Path) -> list[Job]:
    """Scorings that were begun in the last days and have not ended: they go on by the version that they began with."""
    jobs = []
    for path in sorted(folder.glob(f"*/{JOB}")):
        try:
            job = msgspec.json.decode(path.read_bytes(), type=Job)
        except (FileNotFoundError, msgspec.MsgspecError):  # removed meanwhile, or of no scoring
            continue
        if job.done is None and job.model and datetime.now(UTC) - job.scored_at < ABANDONED:
            jobs.append(job)
    return jobs
