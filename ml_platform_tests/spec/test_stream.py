"""`stream:` in a model's YAML: what it derives, and what it refuses."""

import pytest
from pydantic import ValidationError

from ml_platform.spec.stream import Stream
from ml_platform_tests.toy_world import shop_spec

SOURCE = {"type": "kafka", "topic": "requests", "servers": "localhost:9092"}


def stream(**keys):
    return Stream.model_validate({"source": SOURCE, "sink": {"topic": "answers"}, **keys})


def test_dead_letters_follow_the_sink():
    assert stream().dead_letters_topic == "answers.dead_letters"
    assert stream().dead_letters_table is None
    both = stream(sink={"topic": "answers", "table": "streams/flights"})
    assert both.dead_letters_table == "streams/flights_dead_letters"
    assert list(both.tables()) == ["streams/flights", "streams/flights_dead_letters"]
    own = stream(dead_letters={"topic": "poison", "table": "streams/poison"})
    assert (own.dead_letters_topic, own.dead_letters_table) == ("poison", "streams/poison")
    assert stream(sink={"table": "streams/flights"}).dead_letters_topic is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sink": {}}, "wanted a topic, a table or both"),
        ({"sink": {"topic": "requests"}}, "'requests' is the topic of two things"),
        ({"sink": {"topic": "answers"}, "dead_letters": {"topic": "answers"}}, "'answers' is the topic of two"),
        ({"sink": {"table": "a/b"}, "dead_letters": {"table": "a/b"}}, "'a/b' is the table of two things"),
        ({"sink": {"table": "a/b"}, "dead_letters": {"topic": "poison"}}, "wants sink.topic: both are written in one"),
        ({"sink": {"table": "b"}}, "String should match pattern"),
        ({"sink": {"table": "a/b", "commit_every": "1 day"}}, "wanted 0.5 seconds to 1 hour"),
        ({"mapping": {"inputs": {"a": "x..y"}}}, "fields joined by dots, found 'x..y'"),
        ({"mapping": {"inputs": {"a": "x"}, "key": "x.y"}}, "'x' is a value, and 'x.y' is taken from inside it"),
        ({"source": {**SOURCE, "type": "carrier_pigeon"}}, "'carrier_pigeon' found .* 'kafka', 'nats'"),
        ({"source": {"type": "table", "table": "raw/a"}}, "sink.topic wants a source with a broker"),
        ({"source": {"type": "table", "table": "a/b"}, "sink": {"table": "a/b"}}, "'a/b' is the table of two things"),
        ({"source": {"type": "folder", "path": "in", "pattern": "*.xml"}, "sink": {"table": "a/b"}}, "should match"),
        ({"source": {"type": "nats", "servers": "nats://h", "stream": "S", "subjects": ["a b"]}}, "found 'a b'"),
        ({"source": {"type": "nats", "servers": "nats://h", "stream": "S", "subjects": ["a", "a"]}}, "more than once"),
        ({"late_after": "yesterday"}, "wanted a number and a unit"),
    ],
)
def test_what_cannot_be_is_refused_in_words(keys, told):
    with pytest.raises(ValidationError, match=told):
        stream(**keys)


def test_the_mapping_names_inputs_of_the_model():
    mapped = {"source": SOURCE, "sink": {"topic": "answers"}, "mapping": {"inputs": {"wieght": "kg"}}}
    with pytest.raises(ValidationError, match=r"stream.mapping.inputs: \['wieght'\] are no inputs of the model"):
        shop_spec(stream=mapped)
