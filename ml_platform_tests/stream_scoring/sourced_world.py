"""A project whose model answers messages of any kind of source: a broker of its own, a table of the lake, a folder."""

import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.spec.stream import Stream
from ml_platform_tests.brokers import Broker
from ml_platform_tests.serving.releases import MODEL
from ml_platform_tests.stream_scoring.world import PROJECT, SPEC, StreamWorld
from ml_platform_tests.streams.brokered import Brokered, nats_stream, redis_stream

BROKERED: dict[str, Callable[..., Brokered]] = {"nats": nats_stream, "redis": redis_stream}


class SourcedWorld(StreamWorld):
    """One model, its stream, and the state of a platform.

    Parameters
    ----------
    folder
        Everything of it.
    source
        What `stream.source` declares.
    sink
        What `stream.sink` declares.
    produce
        Puts messages, JSON objects, into the source.
    """

    def __init__(
        self, folder: Path, source: dict[str, Any], sink: dict[str, Any], produce: Callable[[list[bytes]], None],
        **stream: Any,
    ) -> None:  # fmt: skip
        self.project, self.settings = folder / "project", Settings(home=folder / "home")
        self.lake = Lake(self.settings.lake_uri)
        self.processes, self._log = [], folder / "worker.log"
        self._produce = produce
        declared = {"source": source, "sink": sink, **stream}
        self.stream = Stream.model_validate(declared)
        model = self.project / "shop" / "defs" / MODEL
        model.mkdir(parents=True)
        (self.project / "pyproject.toml").write_text(PROJECT)
        (model / "spine.sql").write_text("SELECT 1")
        document = {"type": "ml_platform.orchestration.TabularModel", "attributes": {**SPEC, "stream": declared}}
        (model / "defs.yaml").write_text(yaml.safe_dump(document))
        self.release(3)

    def send(self, rows: Sequence[Any], partition: int = 0) -> None:
        """Put messages into the source: what is no bytes is written as JSON."""
        assert partition == 0
        self._produce([row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows])

    def ids(self, table: str = "streams/flights") -> list[str]:
        """What the rows of a table of answers are about, sorted; none while there is no table."""
        return sorted(self.lake.read(table).collect()["id"].to_list()) if self.lake.exists(table) else []


def brokered_world(folder: Path, kind: str, broker: Broker, *, table: bool = False) -> tuple[SourcedWorld, Brokered]:
    """A world whose messages and answers are on a broker, and the broker's side of it."""
    brokered = BROKERED[kind](broker)
    sink: dict[str, Any] = {"topic": "answers"}
    if table:
        sink |= {"table": "streams/flights", "commit_every": "0.5 seconds"}
    source = json.loads(brokered.spec.model_dump_json(exclude_defaults=True)) | {"type": kind}
    return SourcedWorld(folder, source, sink, lambda values: brokered.produce(values, 0)), brokered


def fresh_table(folder: Path) -> Callable[[list[bytes]], None]:
    """Appends messages to the table `raw/requests` of a world; what is no object goes into its column `flight_id`."""
    lake = Lake(Settings(home=folder / "home").lake_uri)

    def produce(values: list[bytes]) -> None:
        rows = [json.loads(value) if value.endswith(b"}") else {"flight_id": value.decode()} for value in values]
        lake.append("raw/requests", pl.DataFrame(rows, infer_schema_length=None), add_columns=True)

    return produce


def growing_file(folder: Path) -> Callable[[list[bytes]], None]:
    """Appends messages to files of a folder, some here and some there, each in two pieces."""

    def produce(values: list[bytes]) -> None:
        content = b"".join(value + b"\n" for value in values)
        with (folder / f"{secrets.randbelow(3)}.jsonl").open("ab") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            file.write(content[len(content) // 2 :])

    return produce
