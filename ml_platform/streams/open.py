"""Opens what `stream:` declares: the source of a kind, and the sink of its answers."""

from typing import TYPE_CHECKING

from ml_platform.settings import Settings
from ml_platform.spec.stream import KafkaSource, Stream, StreamSource
from ml_platform.spec.stream_sources import FolderSource, NatsSource, RedisSource, TableSource
from ml_platform.streams.protocols import AnswerSink, Source, StreamMisfit

if TYPE_CHECKING:
    from ml_platform.streams.table_sink import TopicCopy


def open_source(spec: StreamSource, name: str = "", settings: Settings | None = None) -> Source:
    """The source of messages that a spec declares; it connects when it is used.

    Parameters
    ----------
    spec
        What is read.
    name
        Of what reads it.
    settings
        Where the lake is, and where the index of a folder is kept; read from the environment when None.

    Raises
    ------
    StreamMisfit
        When the path of a folder cannot be.
    """
    if isinstance(spec, NatsSource):
        from ml_platform.streams.nats_source import NatsMessages

        return NatsMessages(spec)
    if isinstance(spec, RedisSource):
        from ml_platform.streams.redis_source import RedisMessages

        return RedisMessages(spec, name)
    settings = settings or Settings()
    if isinstance(spec, TableSource):
        from ml_platform.lake.storage.tables import Lake
        from ml_platform.streams.table_source import TableRows

        return TableRows(spec, Lake(settings.lake_uri))
    if isinstance(spec, FolderSource):
        from ml_platform.streams.folder_source import FolderRows

        return FolderRows(spec, settings.streams_dir / name / "folder.index")
    from ml_platform.streams.kafka_source import KafkaTopic

    return KafkaTopic(spec)


def open_answer_sink(stream: Stream, name: str, lake_uri: str) -> AnswerSink:
    """The sink into which the scorer of the stream `name` writes: topics where it has some, else tables."""
    if stream.sink.topic is None:
        from ml_platform.lake.storage.tables import Lake
        from ml_platform.streams.table_sink import TableAnswers

        assert stream.sink.table is not None
        assert stream.dead_letters_table is not None
        seconds = stream.sink.commit_every.total_seconds()
        return TableAnswers(Lake(lake_uri), name, stream.sink.table, stream.dead_letters_table, seconds)
    assert stream.dead_letters_topic is not None
    if isinstance(stream.source, KafkaSource):
        from ml_platform.streams.kafka_sink import KafkaAnswers

        return KafkaAnswers(stream.source, name, stream.sink.topic, stream.dead_letters_topic)
    if isinstance(stream.source, NatsSource):
        from ml_platform.streams.nats_sink import NatsAnswers

        return NatsAnswers(stream.source, name, stream.sink.topic, stream.dead_letters_topic)
    if isinstance(stream.source, RedisSource):
        from ml_platform.streams.redis_sink import RedisAnswers

        return RedisAnswers(stream.source, name, stream.sink.topic, stream.dead_letters_topic)
    raise _no_broker(stream.source)


def open_topic(stream: Stream, topic: str, name: str = "listing") -> Source:
    """What the scorer of the stream `name` wrote to one of its topics, from the beginning: to be copied to a table."""
    earliest = stream.source.model_copy(update={"start": "earliest"})
    if isinstance(earliest, NatsSource):
        from ml_platform.streams.nats_source import NatsMessages

        return NatsMessages(earliest, (stream.sink.topic or topic, topic))
    if isinstance(earliest, RedisSource):
        from ml_platform.streams.redis_source import RedisMessages

        return RedisMessages(earliest.model_copy(update={"field": "value"}), f"table.{name}", topic)
    if isinstance(earliest, KafkaSource):
        from ml_platform.streams.kafka_source import KafkaTopic

        # It is read every few seconds, so that half a second more costs nothing and saves fetches.
        return KafkaTopic(earliest.model_copy(update={"topic": topic}), patient=True)
    raise _no_broker(stream.source)


def _no_broker(source: StreamSource) -> StreamMisfit:
    """What the spec refuses."""
    return StreamMisfit(f"a source of type {source.type} has no broker that could hold answers")


def open_copies(stream: Stream, name: str, lake_uri: str) -> list["TopicCopy"]:
    """What copies the topics of a stream's scorer to the tables that it declares."""
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.streams.table_rows import answer_rows, dead_letter_rows
    from ml_platform.streams.table_sink import TopicCopy
    from ml_platform.streams.table_writer import TableWriter

    copies = []
    for topic, table, rows in (
        (stream.sink.topic, stream.sink.table, answer_rows),
        (stream.dead_letters_topic, stream.dead_letters_table, dead_letter_rows),
    ):
        if topic is not None and table is not None:
            writer = TableWriter(Lake(lake_uri), table, f"stream/{name}/{topic}")
            copies.append(TopicCopy(f"topic {topic}", open_topic(stream, topic, name), writer, rows))
    return copies


def describe_source(spec: StreamSource) -> str:
    """Name a source in few words.

    Examples
    --------
    >>> describe_source(TableSource(type="table", table="raw/orders"))
    'table raw/orders'
    """
    if isinstance(spec, NatsSource | RedisSource):
        return f"stream {spec.stream}"
    if isinstance(spec, TableSource):
        return f"table {spec.table}"
    return f"folder {spec.path}" if isinstance(spec, FolderSource) else f"topic {spec.topic}"


def describe_sink(stream: Stream) -> str:
    """Name in few words where a scorer writes."""
    return f"topic {stream.sink.topic}" if stream.sink.topic is not None else f"table {stream.sink.table}"
