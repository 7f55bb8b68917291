"""What `stream:` of a model declares: where messages come from, what they mean, and where answers go."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ml_platform.spec.stream_sources import FolderSource, NatsSource, RedisSource, TableSource
from ml_platform.spec.types import Declared, Duration, PositiveDuration

TOPIC = r"^[A-Za-z0-9._-]{1,200}$"
TABLE = r"^[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)+$"
DEAD_LETTERS = "dead_letters"


class KafkaSource(Declared):
    """A topic of a broker that speaks the Kafka protocol: Apache Kafka, Redpanda and others."""

    type: Literal["kafka"] = Field("kafka", description="A topic of a broker that speaks the Kafka protocol.")
    topic: str = Field(pattern=TOPIC, description="Topic with the messages: one JSON object each.")
    servers: str = Field(description="`host:port` of the brokers, comma-separated; $VARIABLES are replaced.")
    options: dict[str, str] = Field(
        default_factory=dict,
        description="Options of librdkafka for security: `security.protocol: SASL_SSL`, `sasl.password: $PASSWORD`. "
        "$VARIABLES are replaced: credentials do not belong in YAML.",
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a stream begins that has answered nothing yet: all that the topic has, or new."
    )


def _type_of(source: Any) -> str:
    """The type of a source as it is written, or of one that was made; Kafka's when none is named."""
    return str(source.get("type", "kafka")) if isinstance(source, dict) else getattr(source, "type", "kafka")


StreamSource = Annotated[
    Annotated[KafkaSource, Tag("kafka")]
    | Annotated[NatsSource, Tag("nats")]
    | Annotated[RedisSource, Tag("redis")]
    | Annotated[TableSource, Tag("table")]
    | Annotated[FolderSource, Tag("folder")],
    Discriminator(_type_of),
]


class StreamMapping(Declared):
    """Which field of a message is which input; dots lead into objects (`customer.age`)."""

    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Input of the model → field of the message; an input that is not named is the field of its name.",
    )
    key: str | None = Field(
        None, description="Field that identifies a message in its answer; the message's own key when absent."
    )
    timestamp: str | None = Field(
        None,
        description="Field with the instant of the event, by which lateness and age are judged; when absent that which "
        "the broker gives a message.",
    )

    @model_validator(mode="after")
    def _are_paths(self) -> Self:
        for place, path in {**self.inputs, "key": self.key, "timestamp": self.timestamp}.items():
            if path is not None and not all(path.split(".")):
                raise ValueError(f"mapping: '{place}': wanted a field, or fields joined by dots, found {path!r}")
        paths = sorted({path for path in (*self.inputs.values(), self.key, self.timestamp) if path is not None})
        for path in paths:
            if inside := next((other for other in paths if other.startswith(f"{path}.")), None):
                raise ValueError(f"mapping: '{path}' is a value, and '{inside}' is taken from inside it: choose one")
        return self


class StreamSink(Declared):
    """Where answers go: a topic of the source's broker, a Delta table, or first the one and from there the other."""

    topic: str | None = Field(
        None,
        pattern=TOPIC,
        description="Topic for the answers, with as many partitions as the source has: at once, exactly once.",
    )
    table: str | None = Field(
        None, pattern=TABLE, description="Delta table for the answers, e.g. `streams/flight_delay`, exactly once."
    )
    commit_every: PositiveDuration = Field(
        timedelta(seconds=5), description="How often answers are committed to the table."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.topic is None and self.table is None:
            raise ValueError("sink: wanted a topic, a table or both, found neither: say where the answers go")
        if not timedelta(seconds=0.5) <= self.commit_every <= timedelta(hours=1):
            raise ValueError(f"sink.commit_every: wanted 0.5 seconds to 1 hour, found {self.commit_every}")
        return self


class DeadLetters(Declared):
    """Where messages go that cannot be answered, each with the reason."""

    topic: str | None = Field(
        None, pattern=TOPIC, description="Topic; `<topic of the sink>.dead_letters` when absent and the sink has one."
    )
    table: str | None = Field(
        None, pattern=TABLE, description="Table; `<table of the sink>_dead_letters` when absent and the sink has one."
    )


class StreamAlerts(Declared):
    """When people are told that a stream does not do well; each alarm ends by itself once it does."""

    max_waiting: int | None = Field(
        100_000, ge=1, description="Messages that may wait at the source; more is an alarm. Null for no bound."
    )
    max_age: PositiveDuration | None = Field(
        timedelta(minutes=5),
        description="How long messages, or answers on their way to the table, may wait without one being committed. "
        "Null for no bound.",
    )
    max_dead_letters: float | None = Field(
        0.01, ge=0, le=1, description="Share of dead letters since the worker started; more is an alarm. Null for none."
    )
    severity: Literal["warning", "error"] = Field("error", description="Of these alarms, and of the check in Dagster.")


class Stream(Declared):
    """Answers messages as they come, by the version that serves: each exactly once, whatever is killed."""

    source: StreamSource = Field(description="Where the messages come from.")
    mapping: StreamMapping = Field(StreamMapping(), description="Which field of a message is which input.")
    sink: StreamSink = Field(description="Where the answers go.")
    dead_letters: DeadLetters = Field(
        DeadLetters(), description="Where messages go that are broken or late, with the reason."
    )
    late_after: Duration | None = Field(
        None,
        description="How long after its event a message may arrive at the broker to be answered; a later one is a dead "
        "letter. No message is late when absent.",
    )
    alerts: StreamAlerts = Field(StreamAlerts(), description="When people are told that it does not do well.")
    max_batch: int = Field(
        2000, ge=1, le=10_000, description="Most messages that are scored at once, and committed together."
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.sink.topic is not None and isinstance(self.source, TableSource | FolderSource):
            raise ValueError(
                f"stream: sink.topic wants a source with a broker, and '{self.source.type}' has none: answer into "
                "sink.table"
            )
        read = getattr(self.source, "topic", getattr(self.source, "stream", None))
        topics = [read, self.sink.topic, self.dead_letters_topic]
        tables = [getattr(self.source, "table", None), self.sink.table, self.dead_letters_table]
        for kind, names in (("topic", topics), ("table", tables)):
            present = [name for name in names if name is not None]
            if twice := next((name for name in present if present.count(name) > 1), None):
                raise ValueError(f"stream: '{twice}' is the {kind} of two things: messages, answers and dead letters "
                                 "need one each")  # fmt: skip
        if self.sink.topic is None and self.dead_letters.topic is not None:
            raise ValueError(
                "stream: dead_letters.topic wants sink.topic: both are written in one transaction; give the sink a "
                "topic, or keep the dead letters in dead_letters.table"
            )
        if self.sink.table is None and self.dead_letters.table is not None and self.sink.topic is None:
            raise ValueError("stream: dead_letters.table wants sink.topic or sink.table")
        return self

    @property
    def dead_letters_topic(self) -> str | None:
        """Topic of the dead letters; None where answers go to no topic."""
        if self.sink.topic is None:
            return None
        return self.dead_letters.topic or f"{self.sink.topic}.{DEAD_LETTERS}"

    @property
    def dead_letters_table(self) -> str | None:
        """Table of the dead letters; None where answers go to no table and none is named."""
        if self.dead_letters.table is not None or self.sink.table is None:
            return self.dead_letters.table
        return f"{self.sink.table}_{DEAD_LETTERS}"

    def tables(self) -> Iterator[str]:
        """Tables that the stream writes."""
        yield from filter(None, (self.sink.table, self.dead_letters_table))
