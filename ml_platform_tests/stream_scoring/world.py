"""A project whose model answers a topic: its YAML, its releases, messages, and worker processes that can be killed."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.spec.stream import Stream
from ml_platform.streams.status import StreamStatus, read_statuses
from ml_platform_tests.kafka_broker import KafkaBroker, by_position
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

PROJECT = '[tool.dg.project]\nroot_module = "shop"\n'
SPEC: dict[str, Any] = {
    "name": MODEL,
    "description": "Will the flight arrive late?",
    "owner": "team:flights",
    "task": "binary",
    "target": "late",
    "spine": "spine.sql",
    "id": "flight_id",
    "timestamp": "prediction_time",
    "label_available_at": "landed_at",
    "inputs": [
        {"name": "flight_id", "type": "string", "required": False, "feature": False},
        *({"name": name, "type": "string"} for name in ("carrier", "origin", "dest")),
        {"name": "tailnum", "type": "string", "required": False, "feature": False},
        *(
            {"name": name, "type": "timestamp", "feature": False}
            for name in ("scheduled_departure", "scheduled_arrival")
        ),
        {"name": "distance", "type": "number"},
    ],
    "families": ["lightgbm"],
    "scoring": {"start": "2013-01-01"},
}


class StreamWorld:
    """One model, three topics with names of their own, and the state of a platform.

    Parameters
    ----------
    folder
        Everything of it.
    broker
        Where the topics are.
    partitions
        Of each topic.
    table
        Whether answers go to a table as well.
    topic
        Whether answers go to a topic.
    stream
        Further keys of `stream:`.
    servers
        Address by which workers reach the broker, where it is another.
    """

    def __init__(
        self, folder: Path, broker: KafkaBroker, *, partitions: int = 1, table: bool = False, topic: bool = True,
        stream: dict[str, Any] | None = None, servers: str | None = None, released: bool = True,
    ) -> None:  # fmt: skip
        self.broker, self.partitions = broker, partitions
        self.topic = f"t{secrets.token_hex(4)}"
        self.answers, self.dead_letters = f"{self.topic}.answers", f"{self.topic}.answers.dead_letters"
        broker.create(self.topic, self.answers, self.dead_letters, partitions=partitions)
        self.project = folder / "project"
        self.settings = Settings(home=folder / "home")
        self.lake = Lake(self.settings.lake_uri)
        self.processes: list[subprocess.Popen[str]] = []
        self._log = folder / "worker.log"
        sink = {"topic": self.answers} if topic else {}
        if table or not topic:
            sink |= {"table": "streams/flights", "commit_every": "0.5 seconds"}
        declared = {"source": {"type": "kafka", "topic": self.topic, "servers": servers or broker.servers},
                    "sink": sink, **(stream or {})}  # fmt: skip
        self.stream = Stream.model_validate(declared)
        model = self.project / "shop" / "defs" / MODEL
        model.mkdir(parents=True)
        (self.project / "pyproject.toml").write_text(PROJECT)
        (model / "spine.sql").write_text("SELECT 1")
        document = {"type": "ml_platform.orchestration.TabularModel", "attributes": {**SPEC, "stream": declared}}
        (model / "defs.yaml").write_text(yaml.safe_dump(document))
        if released:
            self.release(3)

    def release(self, *versions: int, **options: Any) -> None:
        """Serve versions of the model, whose look-ups are in the online store."""
        fill_online_store(self.settings)
        publish(self.settings, *versions, **options)

    def send(self, rows: Sequence[Any], partition: int = 0) -> None:
        """Put messages into the topic: what is no bytes is written as JSON."""
        values = [row if row is None or isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        self.broker.send(self.topic, values, partition=partition)

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Start a worker as people do, and go on at once."""
        environment = {**os.environ, "ML_PLATFORM_HOME": str(self.settings.home), "PYTHONUNBUFFERED": "1",
                       "ML_PLATFORM_PROJECT": str(self.project)}  # fmt: skip
        command = [sys.executable, "-m", "ml_platform", "stream", "run", MODEL, *options]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, env=environment, cwd=self.project, stdout=log, stderr=log, text=True)
        self.processes.append(process)
        return process

    def stop(self, process: "subprocess.Popen[str]", sign: int = signal.SIGTERM) -> int:
        """End a worker, and give its exit code; SIGTERM once it listens, which is before its first status."""
        if sign == signal.SIGTERM:
            self.wait_until(
                lambda: (
                    process.poll() is not None
                    or any(one.pid == process.pid for one in read_statuses(self.settings.streams_dir))
                ),
                "the worker says how it does",
            )
        process.send_signal(sign)
        return process.wait(120)

    def log(self) -> str:
        """What all workers have said."""
        return self._log.read_text()

    def status(self, part: str = "scorer", worker: int = 1) -> StreamStatus | None:
        """The status that a worker wrote last."""
        found = [one for one in read_statuses(self.settings.streams_dir) if (one.part, one.worker) == (part, worker)]
        return max(found, key=lambda one: one.updated_at, default=None)

    def answered(self, partition: int = 0) -> dict[int, Any]:
        """Answers of a partition by position, each there once."""
        return _decoded(self.broker.rows(self.answers, partition))

    def refused(self, partition: int = 0) -> dict[int, Any]:
        """Dead letters of a partition by position, each there once."""
        return _decoded(self.broker.rows(self.dead_letters, partition))

    def table(self, name: str = "streams/flights") -> pl.DataFrame:
        """Rows of a table; none while there is no table."""
        if not self.lake.exists(name):
            return pl.DataFrame(schema={"partition": pl.Int64, "position": pl.Int64})
        return self.lake.read(name).collect().sort("partition", "position")

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Wait until a condition holds, however busy the machine is; what never comes true fails."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.log()[-4000:]}"
            time.sleep(0.05)

    def wait_for(self, rows: int, partition: int = 0) -> None:
        """Wait until so many messages of a partition are answered or dead letters."""
        self.wait_until(
            lambda: len(self.answered(partition)) + len(self.refused(partition)) >= rows,
            f"{rows} messages are answered",
        )

    def close(self) -> None:
        """Kill the workers."""
        for process in self.processes:
            process.kill()
            process.wait()


def flight(number: int, **changes: Any) -> dict[str, Any]:
    """A message that can be answered."""
    return {**ROW, "flight_id": f"f{number}", "carrier": ("AA", "B6", "UA")[number % 3], **changes}


def _decoded(rows: Sequence[tuple[bytes | None, bytes | None]]) -> dict[int, Any]:
    return {position: json.loads(value or b"null") for position, value in by_position(rows).items()}
