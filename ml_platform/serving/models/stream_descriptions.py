"""How the workers of streams do, as HTTP and the console show it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from ml_platform.streams.status import StreamStatus, read_statuses


class StreamWorker(BaseModel):
    """One worker of a model's stream, as it reported about a second ago."""

    model: str = Field(description="Name of the model.")
    part: Literal["scorer", "sink"] = Field(
        description="`scorer` answers messages, `sink` copies answers from their topic to the table."
    )
    worker: int = Field(description="Its number.")
    workers: int = Field(description="How many there are.")
    state: Literal["starting", "waiting", "running", "stopped", "failed", "fenced", "gone"] = Field(
        description="`waiting` while a broker, the online store or a release is not there; `gone` when it was killed."
    )
    reason: str | None = Field(description="Why it waits or ended; null while it runs.")
    source: str = Field(description="Where messages come from.")
    target: str = Field(description="Where answers go.")
    waiting: int = Field(description="Messages that wait.")
    answered: int = Field(description="Messages answered since it started; rows copied, by a sink.")
    dead_letters: int = Field(description="Messages that were not answered, since it started.")
    refused: dict[str, int] = Field(description="Dead letters by kind.")
    rows_per_second: float = Field(description="Over the last ten seconds.")
    seconds_p50: float | None = Field(
        description="Age of messages when their answers were committed, over the last minute: the median."
    )
    seconds_p99: float | None = Field(description="The 99th percentile of it.")
    versions: list[int] = Field(description="Versions that answer.")
    last_message_at: datetime | None = Field(description="When the newest message that was answered had come.")
    last_commit_at: datetime | None = Field(description="When answers were committed last.")
    updated_at: datetime = Field(description="When it reported.")


class StreamList(BaseModel):
    """The workers of all streams that the key covers."""

    workers: list[StreamWorker] = Field(
        description="Each with what it reported last; one that was killed stays listed."
    )


def stream_workers(folder: Path, covers: Callable[[str], bool], model: str | None = None) -> list[StreamWorker]:
    """Describe the workers of streams by the documents that they write.

    Parameters
    ----------
    folder
        `Settings.streams_dir`.
    covers
        Whether a model may be shown.
    model
        Only this one.
    """
    return [_described(one) for one in read_statuses(folder, model) if covers(one.model)]


def _described(status: StreamStatus) -> StreamWorker:
    is_gone = not status.is_alive(datetime.now(UTC)) and status.state not in ("failed", "fenced")
    return StreamWorker(
        model=status.model,
        part=status.part,
        worker=status.worker,
        workers=status.workers,
        state="gone" if is_gone else status.state,
        reason=status.reason,
        source=status.source,
        target=status.target,
        waiting=status.waiting,
        answered=status.answered,
        dead_letters=status.dead_letters,
        refused=status.refused,
        rows_per_second=status.rows_per_second,
        seconds_p50=status.seconds_p50,
        seconds_p99=status.seconds_p99,
        versions=status.versions,
        last_message_at=status.last_message_at,
        last_commit_at=status.last_commit_at,
        updated_at=status.updated_at,
    )
