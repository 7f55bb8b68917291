"""Opens what `stream:` declares: the source of a kind, and the sink of its answers."""

from typing import TYPE_CHECKING

from ml_platform.spec.stream import KafkaSource, Stream, StreamSource
from ml_platform.streams.protocols import AnswerSink, Source

if TYPE_CHECKING:
    from ml_platform.streams.table_sink import TopicCopy


def open_source(spec: StreamSource, *, patient: bool = False) -> Source:
    """The source of messages that a spec declares; it connects when it is used.

    A patient one is read every few seconds, and may save CPU at the price of half a second.
    """
    if isinstance(spec, KafkaSource):
        from ml_platform.streams.kafka_source import KafkaTopic

        return KafkaTopic(spec, patient=patient)
    raise NotImplementedError(f"no source of type {spec.type}")  # a type of the spec without an implementation


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
    raise NotImplementedError(f"no topics for answers at a source of type {stream.source.type}")


def open_topic(source: StreamSource, topic: str) -> Source:
    """Another topic of a source's broker, from its beginning: what a scorer wrote, to be copied to a table."""
    return open_source(source.model_copy(update={"topic": topic, "start": "earliest"}), patient=True)


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
            copies.append(TopicCopy(f"topic {topic}", open_topic(stream.source, topic), writer, rows))
    return copies


def describe_source(spec: StreamSource) -> str:
    """Name a source in few words."""
    return f"topic {spec.topic}"


def describe_sink(stream: Stream) -> str:
    """Name in few words where a scorer writes."""
    return f"topic {stream.sink.topic}" if stream.sink.topic is not None else f"table {stream.sink.table}"
