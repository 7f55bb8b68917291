"""Topics as source and sink: what is read after what, who is fenced, how a successor finds its place."""

import secrets

import pytest

from ml_platform.spec.stream import KafkaSource
from ml_platform.streams.kafka_sink import KafkaAnswers
from ml_platform.streams.kafka_source import KafkaTopic
from ml_platform.streams.protocols import Fenced, Outcome, Resume, StreamMisfit, StreamUnavailable
from ml_platform_tests.kafka_broker import KafkaBroker, by_position
from ml_platform_tests.ports import free_port


def topics(broker: KafkaBroker, partitions: int = 1) -> tuple[KafkaSource, KafkaAnswers]:
    name = f"t{secrets.token_hex(4)}"
    broker.create(name, f"{name}.answers", f"{name}.dead", partitions=partitions)
    source = KafkaSource(topic=name, servers=broker.servers)
    return source, KafkaAnswers(source, "model", f"{name}.answers", f"{name}.dead")


def read_all(source: KafkaTopic, wanted: int) -> list[tuple[int, int, bytes | None]]:
    messages: list = []
    for _ in range(400):
        messages += source.read(1000, 0.1)
        if len(messages) >= wanted:
            break
    return [(one.partition, one.position, one.value) for one in messages]


def outcomes(partition: int, *positions: int, dead: tuple[int, ...] = ()) -> list[Outcome]:
    return [Outcome(partition, one, b"{}", "late" if one in dead else "") for one in positions]


def test_messages_come_in_order_from_where_answers_end(kafka_broker):
    spec, _ = topics(kafka_broker, partitions=2)
    for partition in (0, 1):
        kafka_broker.send(spec.topic, [b"%d-%d" % (partition, n) for n in range(5)], partition=partition)
    source = KafkaTopic(spec)
    assert source.partitions() == [0, 1]
    source.assign({0: Resume(2), 1: Resume(0, frozenset({2}))})
    rows = read_all(source, 5)
    assert sorted(rows) == [(0, 3, b"0-3"), (0, 4, b"0-4"), (1, 1, b"1-1"), (1, 3, b"1-3"), (1, 4, b"1-4")]
    assert {number: (lag.position, lag.end, lag.waiting) for number, lag in source.lag().items()} == {
        0: (4, 5, 0),
        1: (4, 5, 0),
    }
    source.close()
    source.close()


def test_a_stream_begins_with_all_or_with_new_messages(kafka_broker):
    spec, _ = topics(kafka_broker)
    kafka_broker.send(spec.topic, [b"old"])
    newest = KafkaTopic(spec.model_copy(update={"start": "latest"}))
    newest.assign({0: Resume()})
    kafka_broker.send(spec.topic, [b"new", None])
    assert read_all(newest, 2) == [(0, 1, b"new"), (0, 2, None)]
    oldest = KafkaTopic(spec)
    oldest.assign({0: Resume()})
    assert len(read_all(oldest, 3)) == 3
    # Answers that are there without those before them: the first transaction was interrupted.
    newest.assign({0: Resume(-1, frozenset({1}))})
    assert read_all(newest, 1) == [(0, 2, None)]
    for source in (newest, oldest):
        source.close()


def test_markers_of_transactions_do_not_wait(kafka_broker):
    spec, sink = topics(kafka_broker)
    sink.open([0])
    sink.write(outcomes(0, 0, 1, 2))
    sink.flush()
    answers = KafkaTopic(spec.model_copy(update={"topic": f"{spec.topic}.answers"}), patient=True)
    answers.assign({0: Resume()})
    assert len(read_all(answers, 3)) == 3
    for _ in range(400):  # the markers have offsets of their own, and come when they come
        if not (lag := answers.lag()[0]).waiting:
            break
        assert list(answers.read(1000, 0.1)) == []
    assert lag.waiting == 0
    sink.write(outcomes(0, 3))
    sink.flush()
    assert len(read_all(answers, 1)) == 1
    sink.close()
    answers.close()


def test_a_topic_that_was_made_anew_is_told_with_how_much_is_gone(kafka_broker):
    spec, _ = topics(kafka_broker)
    kafka_broker.send(spec.topic, [b"{}"] * 3)
    source = KafkaTopic(spec)
    for resume in (Resume(99), Resume(-1, frozenset({98, 99})), Resume(1, frozenset({99}))):
        with pytest.raises(StreamMisfit, match=r"goes to offset 99, the topic ends at 2, 97 messages earlier"):
            source.assign({0: resume})
    source.assign({0: Resume(2)})  # all of it was read
    assert source.lag()[0].waiting == 0
    source.close()


def test_a_broker_that_comes_back_with_less_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("ml_platform.streams.kafka_source._LOOK_SECONDS", 0.1)
    broker = KafkaBroker(tmp_path)  # keeps its topics in memory
    spec, _ = topics(broker)
    broker.send(spec.topic, [b"{}"] * 5)
    source = KafkaTopic(spec)
    source.assign({0: Resume()})
    assert len(read_all(source, 5)) == 5
    assert [source.read(10, 0.2) for _ in range(3)] == [[], [], []]
    broker.close()
    assert [source.read(10, 0.2) for _ in range(3)] == [[], [], []]
    broker = KafkaBroker(tmp_path, broker.port)
    broker.create(spec.topic)
    broker.send(spec.topic, [b"{}"] * 2)
    with pytest.raises(StreamMisfit, match=r"was made anew|does not have the next message"):
        read_all(source, 10**6)
    source.close()
    broker.close()


def test_what_is_not_there_is_told(kafka_broker, monkeypatch):
    spec, sink = topics(kafka_broker)
    missing = KafkaTopic(spec.model_copy(update={"topic": "no.such"}))
    with pytest.raises(StreamMisfit, match=r"no topic 'no\.such'"):
        missing.partitions()
    with pytest.raises(StreamMisfit, match=r"has 1 partitions, and lacks \[1\]"):
        sink.open([0, 1])
    unset = KafkaTopic(spec.model_copy(update={"options": {"sasl.password": "${NO_SUCH_PASSWORD}"}}))
    with pytest.raises(StreamMisfit, match=r"'sasl\.password' wants \$NO_SUCH_PASSWORD"):
        unset.partitions()
    monkeypatch.setenv("BROKER", kafka_broker.servers)
    assert KafkaTopic(spec.model_copy(update={"servers": "$BROKER"})).partitions() == [0]
    monkeypatch.setattr("ml_platform.streams.kafka_client.ANSWER_SECONDS", 0.2)
    nobody = KafkaTopic(spec.model_copy(update={"servers": f"127.0.0.1:{free_port()}"}))
    with pytest.raises(StreamUnavailable, match="does not answer"):
        nobody.partitions()


def test_answers_have_partition_and_position_and_a_successor_goes_on(kafka_broker):
    spec, sink = topics(kafka_broker, partitions=2)
    assert sink.open([0, 1]) == {0: Resume(), 1: Resume()}
    sink.write([*outcomes(0, 0, 1, 2, dead=(1,)), *outcomes(1, 0)])
    sink.write(outcomes(0, 3, dead=(3,)))
    assert by_position(kafka_broker.rows(f"{spec.topic}.answers", 0)).keys() == {0, 2}
    assert by_position(kafka_broker.rows(f"{spec.topic}.dead", 0)).keys() == {1, 3}
    assert by_position(kafka_broker.rows(f"{spec.topic}.answers", 1)).keys() == {0}
    successor = KafkaAnswers(spec, "model", f"{spec.topic}.answers", f"{spec.topic}.dead")
    assert successor.open([0]) == {0: Resume(3)}
    with pytest.raises(Fenced, match="another process"):
        sink.write(outcomes(0, 4))
    sink.write(outcomes(1, 1))  # which the successor has not taken
    successor.write(outcomes(0, 4))
    successor.close()
    sink.close()
    assert by_position(kafka_broker.rows(f"{spec.topic}.answers", 0)).keys() == {0, 2, 4}


def test_positions_that_an_interrupted_transaction_left_out_are_answered(kafka_broker):
    spec, sink = topics(kafka_broker)
    kafka_broker.send(f"{spec.topic}.answers", [b"{}"] * 4, keys=[b"10", b"11", b"14", b"15"])
    kafka_broker.send(f"{spec.topic}.dead", [b"{}"], keys=[b"17"])
    # The answers begin at 10: what came before may have been deleted, or be the rest of a first transaction.
    assert sink.open([0]) == {0: Resume(-1, frozenset({10, 11, 14, 15, 17}))}
    kafka_broker.send(f"{spec.topic}.answers", [b"{}"] * 10, keys=[b"%d" % n for n in range(10)])
    assert sink.open([0]) == {0: Resume(11, frozenset({14, 15, 17}))}
    sink.close()


def test_a_topic_of_somebody_else_is_not_taken_for_answers(kafka_broker):
    spec, sink = topics(kafka_broker)
    kafka_broker.send(f"{spec.topic}.answers", [b"{}"], keys=[b"customer-7"])
    with pytest.raises(StreamMisfit, match="which no stream wrote"):
        sink.open([0])
    sink.close()


def test_an_answer_that_is_refused_for_its_size_is_named_and_not_sent_again(kafka_broker):
    spec, _ = topics(kafka_broker)
    small = spec.model_copy(update={"options": {"message.max.bytes": 2000}})
    sink = KafkaAnswers(small, "model", f"{spec.topic}.answers", f"{spec.topic}.dead")
    sink.open([0])
    sink.write(outcomes(0, 0))
    with pytest.raises(StreamMisfit, match=rf"{spec.topic}\.dead' takes no message of 5,000 bytes, .* offset 2 of"):
        sink.write([*outcomes(0, 1), Outcome(0, 2, bytes(5000), "broken")])
    sink.close()
