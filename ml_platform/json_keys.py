"""Finds keys that appear twice in an object of a JSON text, of which parsers silently take the last."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

_KEY = b'":'
_SPACES = b" \t\r\n"  # may stand between a key and its colon
_LONG = 2_000  # bytes
_CONTAINERS = (dict, list)  # quicker to test for than their union


def key_marks(body: bytes) -> int:
    """Number of `":` in a JSON text, whatever spaces stand between: one for each key, and those within texts.

    When a text has as many marks as the parsed document has keys, no
    key appears twice.

    Examples
    --------
    >>> key_marks(b'{"a": 1, "a" : 2, "b": "12:00"}')
    3
    """
    if any(space in body for space in (b" ", b"\n", b"\t", b"\r")):
        body = body.translate(None, _SPACES)
    return body.count(_KEY) if len(body) < _LONG else _count_pairs(body)


def objects_of(document: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document, without recursion: JSON parsers accept deeper nesting than Python's stack."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            value = value.values()
        elif not isinstance(value, list):
            continue
        waiting += [one for one in value if isinstance(one, _CONTAINERS)]


def repeated_key(text: bytes, keys: int = -1) -> str | None:
    """A key that appears twice in some object of a JSON text; None when there is none.

    Parameters
    ----------
    text
        The JSON text.
    keys
        How many different keys were read of it. When it has no more, it is not parsed.

    Raises
    ------
    ValueError, RecursionError
        When the text is parsed and is no JSON in UTF-8, or is nested too deeply.

    Examples
    --------
    >>> repeated_key(b'{"a": {"b": 1, "c": 2, "b": 3}}'), repeated_key(b'{"a": {"b": 1}, "b": 2}')
    ('b', None)
    """
    marks = key_marks(text)
    if marks == keys:
        return None
    try:
        if marks == sum(map(len, objects_of(msgspec.json.decode(text)))):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # numbers beyond 64 bits, which the standard library reads
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            repeated.append(Counter(name for name, _ in pairs).most_common(1)[0][0])

    json.loads(text.decode(), object_pairs_hook=note)
    return repeated[0] if repeated else None


def _count_pairs(body: bytes) -> int:
    """Count `":` in a long body; `bytes.count` takes four times as long."""
    key = int.from_bytes(_KEY, "little")
    pairs = np.frombuffer(body, "<u2", len(body) // 2), np.frombuffer(body, "<u2", (len(body) - 1) // 2, 1)
    return sum(int(np.count_nonzero(pair == key)) for pair in pairs)
