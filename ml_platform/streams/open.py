"""Opens what `stream:` declares: the source of a kind, and the sink of its answers."""

from ml_platform.spec.stream import KafkaSource, Stream, StreamSource
from ml_platform.streams.protocols import AnswerSink, Source


def open_source(spec: StreamSource) -> Source:
    """The source of messages that a spec declares; it connects when it is used."""
    if isinstance(spec, KafkaSource):
        from ml_platform.streams.kafka_source import KafkaTopic

        return KafkaTopic(spec)
    raise NotImplementedError(f"no source of type {spec.type}")  # a type of the spec without an implementation


def open_topic_sink(stream: Stream, name: str) -> AnswerSink:
    """The sink that writes the answers of the stream `name` to the topics that it declares."""
    assert stream.sink.topic is not None
    assert stream.dead_letters_topic is not None
    if isinstance(stream.source, KafkaSource):
        from ml_platform.streams.kafka_sink import KafkaAnswers

        return KafkaAnswers(stream.source, name, stream.sink.topic, stream.dead_letters_topic)
    raise NotImplementedError(f"no topics for answers at a source of type {stream.source.type}")


def describe_source(spec: StreamSource) -> str:
    """Name a source in few words."""
    return f"topic {spec.topic}"
