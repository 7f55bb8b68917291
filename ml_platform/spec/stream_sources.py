"""Sources of a stream beside topics of the Kafka protocol: NATS JetStream, Redis Streams, a table, a growing folder."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from ml_platform.spec.types import Declared, Duration

_START = "Where a stream begins that has answered nothing yet: all that there is, or new."


class NatsSource(Declared):
    """A stream of NATS JetStream."""

    type: Literal["nats"] = Field(description="A stream of NATS JetStream.")
    stream: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,200}$", description="Stream with the messages: one JSON object each."
    )
    servers: str = Field(description="`nats://host:4222`, `tls://…`, comma-separated; $VARIABLES are replaced.")
    subjects: tuple[str, ...] = Field(
        (),
        description="Subjects that are read, wildcards allowed; each is a partition, which one worker reads in order. "
        "All of the stream as one partition when empty. New ones go to the end.",
    )
    options: dict[Literal["user", "password", "token", "user_credentials"], str] = Field(
        default_factory=dict,
        description="Credentials: `user` and `password`, `token`, or `user_credentials`, the path of a file. "
        "$VARIABLES are replaced: credentials do not belong in YAML.",
    )
    start: Literal["earliest", "latest"] = Field("earliest", description=_START)

    @field_validator("subjects")
    @classmethod
    def _differ(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        for subject in subjects:
            if not all(subject.split(".")) or any(character.isspace() for character in subject):
                raise ValueError(f"subjects: wanted names joined by dots, like flights.*.departed; found {subject!r}")
        if twice := sorted({subject for subject in subjects if subjects.count(subject) > 1}):
            raise ValueError(f"subjects: {twice} more than once: each message would be answered twice")
        return subjects


class RedisSource(Declared):
    """A stream of Redis."""

    type: Literal["redis"] = Field(description="A stream of Redis (`XADD`).")
    stream: str = Field(min_length=1, max_length=200, description="Key of the stream.")
    url: str = Field(description="`redis://host:6379/0`, `rediss://…`; $VARIABLES are replaced.")
    field: str = Field("value", min_length=1, description="Field of an entry that holds the message, a JSON object.")
    partitions: int = Field(
        1,
        ge=1,
        le=1000,
        description="Keys that the stream is spread over by its producers: `<stream>` alone for 1, else `<stream>.0`, "
        "`<stream>.1`, …; one worker reads each in order.",
    )
    start: Literal["earliest", "latest"] = Field("earliest", description=_START)


class TableSource(Declared):
    """New rows of a table of the lake."""

    type: Literal["table"] = Field(description="New rows of a Delta table of the lake, and changed ones.")
    table: str = Field(
        pattern=r"^[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)+$",
        description="Table, e.g. `raw/orders`. Rows that are appended are messages; rows that are changed are too, if "
        "the table has `delta.enableChangeDataFeed` set since before.",
    )
    columns: tuple[str, ...] = Field((), description="Columns of a message; all of the table's when empty.")
    start: Literal["earliest", "latest"] = Field("earliest", description=_START)


class FolderSource(Declared):
    """Rows of files that are added to a folder, or that grow there."""

    type: Literal["folder"] = Field(description="A local folder of files that are added, or that grow.")
    path: str = Field(
        description="Folder, relative to the project; $VARIABLES and ~ are replaced. Names that begin with a dot or an "
        "underscore are left out."
    )
    pattern: str = Field(
        "*.jsonl",
        pattern=r"\.(jsonl|ndjson|csv|parquet)$",
        description="Which files, `**/*.csv` at any depth. JSON lines and CSV are read as they grow, line by line; "
        "Parquet once it is whole.",
    )
    texts: tuple[str, ...] = Field(
        (), description="Columns of CSV files whose values are texts even where they look like numbers, as postcodes."
    )
    settled_after: Duration = Field(
        timedelta(seconds=60),
        description="How long a file must not change until its last line counts without an end of line, and until a "
        "Parquet file that cannot be read is a dead letter.",
    )
    start: Literal["earliest", "latest"] = Field("earliest", description=_START)
