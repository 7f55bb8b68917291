"""What every source with a broker and every sink of answers in one promises, on real brokers."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ml_platform.streams.protocols import Fenced, Outcome, Resume, StreamMisfit, StreamUnavailable
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.streams.brokered import Brokered, nats_stream, read_all, redis_stream

KINDS = {"nats": nats_stream, "redis": redis_stream}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def stream(kind, request) -> Brokered:
    return KINDS[kind](request.getfixturevalue(f"{kind}_broker"))


def values(start: int, end: int) -> list[bytes]:
    return [b'{"n": %d}' % number for number in range(start, end)]


def outcomes(messages) -> list[Outcome]:
    return [
        Outcome(one.partition, one.position, one.value, refused="broken" if one.value.endswith(b"7}") else "")
        for one in messages
    ]


def test_messages_come_in_order_and_keep_their_positions(stream):
    stream.produce(values(0, 2500))
    source = stream.source()
    assert list(source.partitions()) == [0]
    before = time.time()
    source.assign({0: Resume()})
    first = read_all(source, 2500)
    positions = [one.position for one in first]
    assert [one.value for one in first] == values(0, 2500)
    assert positions == sorted(set(positions))
    assert abs(first[0].time / 1e6 - before) < 600
    assert source.lag()[0].waiting == 0
    source.assign({0: Resume(positions[99])})
    assert [(one.position, one.value) for one in read_all(source, 2400)] == [(m.position, m.value) for m in first[100:]]
    done = frozenset(positions[2401:2500:2])
    source.assign({0: Resume(positions[2399], done)})
    assert [one.position for one in read_all(source, 50)] == positions[2400:2500:2]
    stream.produce(values(2500, 2503))
    assert [one.value for one in read_all(source, 3)] == values(2500, 2503)
    source.close()
    source.close()


def test_latest_begins_behind_what_is_there(kind, stream):
    stream.produce(values(0, 5))
    source = type(stream.source())(stream.spec.model_copy(update={"start": "latest"}))
    source.assign({0: Resume()})
    assert source.read(10, 0.1) == []
    stream.produce(values(5, 7))
    assert [one.value for one in read_all(source, 2)] == values(5, 7)


def test_answers_and_positions_are_kept_together_and_a_predecessor_is_fenced(stream):
    stream.produce(values(0, 2300))
    source, first = stream.source(), stream.sink()
    assert first.open([0]) == {0: Resume(-1)}
    source.assign({0: Resume()})
    messages = read_all(source, 2300)
    first.write(outcomes(messages[:1500]))
    second = stream.sink()
    assert second.open([0]) == {0: Resume(messages[1499].position)}
    with pytest.raises(Fenced):
        first.write(outcomes(messages[1500:]))
    first.close()
    second.write(outcomes(messages[1500:2298]))
    second.write(outcomes(messages[2298:]))  # the last one is a dead letter
    second.close()
    third = stream.sink()
    assert third.open([0]) == {0: Resume(messages[-1].position)}
    third.close()
    assert stream.answers() == values(0, 2300)


def test_two_partitions_are_two_workers(kind, request):
    stream = KINDS[kind](request.getfixturevalue(f"{kind}_broker"), 2)
    stream.produce(values(0, 50), 0)
    stream.produce(values(100, 150), 1)
    assert list(stream.source().partitions()) == [0, 1]
    both, sink = stream.source(), stream.sink()
    both.assign(sink.open([0, 1]))
    messages = read_all(both, 100)
    assert [one.value for one in messages if one.partition == 1] == values(100, 150)
    sink.write(outcomes(messages))
    stream.produce(values(150, 160), 1)
    other_sink, other = stream.sink(), stream.source()
    other.assign(other_sink.open([1]))
    assert [(one.partition, one.value) for one in read_all(other, 10)] == [(1, value) for value in values(150, 160)]
    with pytest.raises(Fenced):
        sink.write([Outcome(1, messages[-1].position + 1, b"{}")])


def test_a_broker_that_is_killed_is_waited_for(stream):
    stream.produce(values(0, 10))
    source, sink = stream.source(), stream.sink()
    source.assign(sink.open([0]))
    messages = read_all(source, 10)
    stream.broker.kill()
    assert source.read(10, 0.1) == []
    with pytest.raises(StreamUnavailable):
        sink.write(outcomes(messages))
    sink.close()
    with pytest.raises(StreamUnavailable):
        stream.sink().open([0])
    assert source.read(10, 0.1) == []
    stream.broker.start()
    sink = stream.sink()
    assert sink.open([0]) == {0: Resume(-1)}
    sink.write(outcomes(messages))
    stream.produce(values(10, 15))
    more = read_all(source, 5)
    sink.write(outcomes(more))
    assert stream.answers() == values(0, 15)


def test_a_broker_that_is_down_and_what_is_not_there_are_told_apart(stream):
    missing = stream.spec.model_copy(update={"stream": "CARGO"})
    with pytest.raises(StreamMisfit, match="no stream 'CARGO'"):
        type(stream.source())(missing).partitions()
    stream.broker.kill()
    with pytest.raises(StreamUnavailable, match="does not answer"):
        stream.source().partitions()
    stream.broker.start()


def test_what_was_deleted_unread_is_said(stream):
    stream.produce(values(0, 20))
    source = stream.source()
    source.assign({0: Resume()})
    last = read_all(source, 20)[-1].position
    time.sleep(1.1)  # a Redis reader notes the length once a second
    source.read(10, 0.05)
    source.close()
    stream.produce(values(20, 50))
    source = stream.source()
    source.assign({0: Resume(last)})  # nothing is missing yet
    source.close()
    stream.trim(10)
    with pytest.raises(StreamMisfit, match=r"up to 20 (messages|entries) .* were (deleted|removed) before"):
        stream.source().assign({0: Resume(last)})


def test_what_is_deleted_while_a_worker_lags_is_said(kind, stream):
    stream.produce(values(0, 20))
    source = stream.source()
    source.assign({0: Resume()})
    read_all(source, 20)
    if kind == "nats":  # its messages are on their way before they can be deleted
        stream.broker.kill()
        assert source.read(5, 0.1) == []
        stream.broker.start()
    stream.produce(values(20, 50))
    stream.trim(3)
    with pytest.raises(StreamMisfit, match=r"were (deleted|removed) before they were answered"):
        read_all(source, 10**6)


def test_a_stream_that_was_made_anew_is_said(stream):
    stream.produce(values(0, 5))
    source = stream.source()
    source.assign({0: Resume()})
    last = read_all(source, 5)[-1].position
    source.close()
    with pytest.raises(StreamMisfit, match="was made anew"):
        stream.source().assign({0: Resume(last + 10**6)})


def test_credentials_come_from_the_environment(kind, stream, monkeypatch):
    name = "servers" if kind == "nats" else "url"
    spec = stream.spec.model_copy(update={name: "$STREAM_TEST_ADDRESS"})
    with pytest.raises(StreamMisfit, match="a variable of the environment that is not set"):
        type(stream.source())(spec).partitions()
    monkeypatch.setenv("STREAM_TEST_ADDRESS", getattr(stream.spec, name))
    stream.produce(values(0, 1))
    assert list(type(stream.source())(spec).partitions()) == [0]


def test_answers_have_streams_of_their_own(kind, stream):
    stream.produce(values(0, 1))
    sink = stream.sink()
    sink.open([0])
    sink.write([Outcome(0, 1 << 40, b"{}")])
    sink.close()
    if kind == "redis":
        import redis

        with redis.Redis.from_url(stream.spec.url) as client:
            client.xadd("answers", {"value": b"of somebody else"})
    else:
        from ml_platform.streams.nats_client import NatsConnection

        connection = NatsConnection(stream.spec)
        connection.run(connection.client.jetstream().publish("answers", b"of somebody else"))
        connection.close()
    with pytest.raises(StreamMisfit, match="of their own"):
        stream.sink().open([0])


def test_an_answer_larger_than_the_server_takes_is_named(nats_broker):
    stream = nats_stream(nats_broker)
    sink = stream.sink()
    sink.open([0])
    with pytest.raises(StreamMisfit, match="position 17 of partition 0 has 2,000,000 bytes, more than"):
        sink.write([Outcome(0, 16, b"{}"), Outcome(0, 17, bytes(2_000_000), "broken")])
    sink.close()


WORKER = """
import sys
from ml_platform.streams.protocols import Outcome, StreamUnavailable

if sys.argv[1] == "nats":
    from ml_platform.spec.stream_sources import NatsSource as Spec
    from ml_platform.streams.nats_sink import NatsAnswers as Answers
    from ml_platform.streams.nats_source import NatsMessages as Messages
else:
    from ml_platform.spec.stream_sources import RedisSource as Spec
    from ml_platform.streams.redis_sink import RedisAnswers as Answers
    from ml_platform.streams.redis_source import RedisMessages as Messages
spec = Spec.model_validate_json(sys.argv[2])
while True:
    sink, source = Answers(spec, "flight_delay", "answers", "answers.dead_letters"), Messages(spec)
    try:
        source.assign(sink.open(source.partitions()))
        print("reading", flush=True)
        while True:
            messages = source.read(50, 0.2)
            if messages:
                sink.write([
                    Outcome(m.partition, m.position, m.value, refused="broken" * m.value.endswith(b"7}"))
                    for m in messages
                ])
    except StreamUnavailable:
        pass
    finally:
        source.close()
        sink.close()
"""


@pytest.mark.slow
def test_kills_of_workers_and_of_the_broker_lose_and_double_nothing(kind, stream):
    """A worker is killed in the middle of what it does, while messages come; every third time the broker is, too."""
    command = [sys.executable, "-c", WORKER, kind, stream.spec.model_dump_json()]
    stream.produce(values(0, 100))
    count, rounds = 100, int(os.environ.get("KILLS", "9"))
    for number in range(rounds):
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT_ROOT)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"reading\n"
        stream.produce(values(count, count + 700))
        count += 700
        if number % 3 == 2:
            stream.broker.kill()
            stream.broker.start()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
    sink, source = stream.sink(), stream.source()
    resume = sink.open([0])
    source.assign(resume)
    left = count - len(stream.answers())
    sink.write(outcomes(read_all(source, left)) if left else [])
    assert stream.answers() == values(0, count)
