"""What is read from a message, and what cannot be."""

import json

import pytest

from ml_platform.spec.stream import StreamMapping
from ml_platform.stream_scoring.messages import MessageReader, Unreadable
from ml_platform.streams.protocols import Message


def message(value, key: bytes | None = None, time: int = 0) -> Message:
    return Message(0, 0, value if value is None or isinstance(value, bytes) else json.dumps(value).encode(), key, time)


def test_fields_lead_into_objects_and_others_are_passed_over():
    mapping = StreamMapping(inputs={"a": "p.q.a", "b": "p.b"}, key="p.q.k", timestamp="at")
    reader = MessageReader(["a", "b", "c"], mapping)
    said = reader.read(message({"p": {"q": {"a": 1, "k": [7]}, "b": None, "x": 2}, "c": "t", "at": 1_700_000_000}))
    assert json.loads(said.row) == {"a": 1, "b": None, "c": "t"}
    assert (said.key, said.event_at.isoformat()) == ([7], "2023-11-14T22:13:20+00:00")
    absent = reader.read(message({"p": None, "at": 1_700_000_000_500}))
    assert (json.loads(absent.row), absent.key) == ({}, None)
    assert absent.event_at.isoformat() == "2023-11-14T22:13:20.500000+00:00"


def test_values_are_passed_on_as_they_were_sent():
    reader = MessageReader(["n", "t"], StreamMapping())
    row = reader.read(message(b'{"n": 12345678901234567890.125, "t": "a\\u0020\\"}]"}', b"key", 1_000_000)).row
    assert row == b'{"n":12345678901234567890.125,"t":"a\\u0020\\"}]"}'
    assert reader.read(message({}, b"\xff")).key == "�"
    assert reader.read(message({}, None, 1_500_000)).event_at.isoformat() == "1970-01-01T00:00:01.500000+00:00"


def test_names_that_are_no_identifiers_are_read():
    reader = MessageReader(["class", "a b", "_x", "ö"], StreamMapping())
    values = {"class": 1, "a b": 2, "_x": 3, "ö": 4}
    assert json.loads(reader.read(message(values)).row) == values


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "a message without a value"),
        (b"", "wanted a JSON object in UTF-8"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": 1}{"a": 2}', "trailing characters"),
        (b'{"a": 1},{"a": 2', "trailing characters"),
        (b"[" * 100_000, "wanted a JSON object"),
        ({"a": 1}, "at: wanted the instant of the event, found no such field"),
        ({"at": None}, "at: wanted an instant with an offset .* found null"),
        ({"at": "2024-01-01T00:00:00"}, "wanted an instant with an offset"),
        (b'{"at": 1e300}', "found 1e300"),
    ],
)
def test_what_cannot_be_read_is_told(value, told):
    reader = MessageReader(["a", "b"], StreamMapping(inputs={"b": "p.b"}, timestamp="at"))
    with pytest.raises(Unreadable, match=told):
        reader.read(message(value))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": 1, "\\u0061": 2}', "a"),
        (b'{"a": 1, "p": {"b": 1, "b": 2}}', "b"),
        (b'{"a": 1, "p": {}, "p": {"b": 1}}', "p"),
        (b'{"a": 1, "other": [{"x": 1, "x": 2}], "big": 1e999}', "x"),
    ],
)
def test_a_key_that_appears_twice_breaks_the_contract_as_over_http(value, field):
    reader = MessageReader(["a", "b"], StreamMapping(inputs={"b": "p.b"}))
    with pytest.raises(Unreadable, match=f"^{field}: appears twice$") as refusal:
        reader.read(message(value))
    assert refusal.value.kind == "contract"


@pytest.mark.parametrize(("value", "field"), [({"p": "x"}, "p"), ({"p": {"q": [1]}}, "p.q"), (b'{"a b": 7}', "a b")])
def test_a_field_that_should_lead_further_breaks_the_contract(value, field):
    reader = MessageReader(["a", "b"], StreamMapping(inputs={"a": "p.q.a", "b": "a b.c"}))
    with pytest.raises(Unreadable, match=rf"^{field}: Expected `object \| null`, got .*the mapping leads") as refusal:
        reader.read(message(value))
    assert (refusal.value.kind, refusal.value.field) == ("contract", field)


def test_marks_of_keys_within_texts_are_no_keys():
    reader = MessageReader(["a", "b"], StreamMapping(inputs={"b": "p.b"}))
    value = b'{"a": "x\\":\\"a\\":", "p": {"b": 1, "a": 2}, "big": 1e999, "other": {"a": [{"b": 3}]}}'
    assert json.loads(reader.read(message(value)).row) == {"a": 'x":"a":', "b": 1}
