"""Encodes answers and dead letters so that no broker refuses them for their size.

Brokers take messages of 1 MB unless told otherwise. What counts is what is sent: JSON writes a control character as six
bytes, so 180 kB of a message may become 1.1 MB.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ml_platform.streams.answers import DeadLetter, StreamAnswer

# Bytes of JSON, at most; a dead letter has a value, a key, a reason and faults: together 2/3 of 1 MB.
LARGEST_VALUE = 2**19
LARGEST_KEY = LARGEST_FAULTS = LARGEST_FLAGS = 2**16
LARGEST_REASON = 2**14
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


def encode_answer(answer: StreamAnswer) -> bytes:
    """Encode an answer; `truncated` names what was cut.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> now = datetime(2024, 1, 1, tzinfo=UTC)
    >>> answer = StreamAnswer(
    ...     model="m", version=2, partition=0, position=7, request_id="stream-0-7", row=0, prediction=True,
    ...     id="x" * 900_000, event_at=now, arrived_at=now, scored_at=now,
    ... )
    >>> kept = msgspec.json.decode(encode_answer(answer))
    >>> len(kept["id"]), kept["truncated"]
    (65534, ['id'])
    """
    cut = []
    answer.key, is_cut = _bounded(answer.key, LARGEST_KEY)
    if is_cut:
        cut.append("key")
    answer.id, is_cut = _bounded(answer.id, LARGEST_KEY)
    if is_cut:
        cut.append("id")
    if answer.flags:
        answer.flags, is_cut = _first(answer.flags, LARGEST_FLAGS)
        if is_cut:
            cut.append("flags")
    answer.truncated = cut or None
    return _encode(answer)


def encode_dead_letter(letter: DeadLetter, value: bytes | None) -> bytes:
    """Encode a dead letter with the message it is about; `truncated` says whether value or key was cut.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> now = datetime(2024, 1, 1, tzinfo=UTC)
    >>> letter = DeadLetter(
    ...     model="m", partition=0, position=7, kind="broken", reason="no JSON", arrived_at=now, refused_at=now
    ... )
    >>> encoded = encode_dead_letter(letter, bytes(180_000))
    >>> kept = msgspec.json.decode(encoded, type=DeadLetter)
    >>> len(encoded) < 530_000, len(kept.value), kept.truncated, kept.reason
    (True, 87381, True, 'no JSON (of value the beginning is kept)')
    """
    cut = []
    try:
        letter.value, is_cut = _bounded(None if value is None else value.decode(), LARGEST_VALUE)
    except UnicodeDecodeError:
        assert value is not None
        letter.value_base64 = value[: LARGEST_VALUE * 3 // 4]  # which base64 makes longer by a third
        is_cut = len(letter.value_base64) < len(value)
    if is_cut:
        cut.append("value")
    letter.key, is_cut = _bounded(letter.key, LARGEST_KEY)
    if is_cut:
        cut.append("key")
    letter.reason, _ = _bounded(letter.reason, LARGEST_REASON)
    letter.faults, _ = _first(letter.faults, LARGEST_FAULTS)
    letter.truncated = bool(cut)
    if cut:
        letter.reason += f" (of {' and '.join(cut)} the beginning is kept)"
    return _encode(letter)


def _bounded(value: Any, most: int) -> tuple[Any, bool]:
    """A value whose JSON has at most so many bytes, the beginning of it as a text else; and whether it was cut."""
    if value is None or isinstance(value, (bool, int, float)):
        return value, False
    if isinstance(value, str) and 6 * len(value) + 2 <= most:  # as long as it can get
        return value, False
    encoded = _encode(value)
    if len(encoded) <= most:
        return value, False
    text = value if isinstance(value, str) else encoded.decode()
    kept = bisect_right(range(1, min(len(text), most) + 1), most, key=lambda count: len(_encode(text[:count])))
    return text[:kept], True


def _first(values: Sequence[T], most: int) -> tuple[Sequence[T], bool]:
    """The first values whose JSON has at most so many bytes together; and whether others were left out."""
    kept, size = list[T](), 0
    for value in values:
        size += len(_encode(value)) + 1
        if size > most:
            return kept, True
        kept.append(value)
    return values, False
