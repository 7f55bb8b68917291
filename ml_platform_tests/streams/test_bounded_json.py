"""No answer and no dead letter is larger than what brokers take, whatever the message was."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ml_platform.streams.answers import DeadLetter, Fault, StreamAnswer
from ml_platform.streams.bounded_json import LARGEST_VALUE, encode_answer, encode_dead_letter

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ONE_MB = 1_000_000


def letter(**changes: Any) -> DeadLetter:
    fields = {"model": "m", "partition": 0, "position": 7, "kind": "broken", "reason": "why", **changes}
    return DeadLetter(**fields, arrived_at=NOW, refused_at=NOW)


def answer(**changes: Any) -> StreamAnswer:
    return StreamAnswer(
        model="m", version=2, partition=0, position=7, request_id="stream-0-7", row=0, prediction=True, event_at=NOW,
        arrived_at=NOW, scored_at=NOW, **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        bytes(180_000),
        bytes(990_000),
        b"\xff" * 990_000,
        "ü".encode() * 495_000,
        "😀".encode() * 247_000,
        b'"\\' * 495_000,
        b"a" * 500_000 + bytes(490_000),
    ],
)
def test_of_a_large_message_the_beginning_is_kept(value):
    encoded = encode_dead_letter(letter(key="\x00" * 990_000, faults=[Fault("f", "m" * 1000)] * 990), value)
    kept = msgspec.json.decode(encoded, type=DeadLetter)
    beginning = kept.value.encode() if kept.value is not None else kept.value_base64
    assert len(encoded) < 0.7 * ONE_MB
    assert beginning
    assert value.startswith(beginning)
    assert len(msgspec.json.encode(kept.value or kept.value_base64)) > LARGEST_VALUE - 8
    assert kept.truncated
    assert kept.reason == "why (of value and key the beginning is kept)"
    assert set(kept.key) == {"\x00"}
    assert 0 < len(kept.faults) < 990


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", bytes(87_000), b"a" * 520_000])
def test_of_others_all_is_kept(value):
    kept = msgspec.json.decode(encode_dead_letter(letter(key={"a": [1]}), value), type=DeadLetter)
    assert (kept.value_base64 if value == b"\xff" else kept.value and kept.value.encode()) == (value or kept.value)
    assert (kept.truncated, kept.reason, kept.key) == (False, "why", {"a": [1]})


def test_long_reasons_are_cut():
    kept = msgspec.json.decode(encode_dead_letter(letter(reason="\x00" * 990_000), b"{}"), type=DeadLetter)
    assert len(msgspec.json.encode(kept.reason)) < 20_000
    assert not kept.truncated


def test_answers_name_what_was_cut():
    flags = [{"field": "f", "message": "m" * 1000}] * 990
    encoded = encode_answer(answer(key={"k": ["\x00" * 180_000]}, id="\x01" * 180_000, flags=flags))
    kept = msgspec.json.decode(encoded, type=StreamAnswer)
    assert len(encoded) < 0.3 * ONE_MB
    assert kept.truncated == ["key", "id", "flags"]
    assert kept.key.startswith('{"k":["')
    assert set(str(kept.id)) == {"\x01"}
    small = answer(key="k", id=7, flags=flags[:1])
    assert encode_answer(small) == msgspec.json.encode(small)
    assert b"truncated" not in encode_answer(small)
