"""Reads messages: the fields that a mapping names become a row of the model, an instant and a key."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from ml_platform.instants import read_instant
from ml_platform.json_keys import repeated_key
from ml_platform.spec.stream import StreamMapping
from ml_platform.streams.answers import Kind
from ml_platform.streams.protocols import Message

_Value = msgspec.Raw | msgspec.UnsetType
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_END = 10**11  # of the year 5138; numbers from here on count milliseconds
_encode = msgspec.json.Encoder().encode
_instant = msgspec.json.Decoder(datetime | int | float).decode
_decode = msgspec.json.Decoder().decode


class Unreadable(Exception):
    """A message that cannot be read as a row; `field` is the message's, None for the whole of it."""

    def __init__(self, field: str | None, message: str, kind: Kind = "broken") -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field, self.message, self.kind = field, message, kind


class MessageRow(NamedTuple):
    """What a message says."""

    row: bytes  # JSON object with the inputs
    key: Any
    event_at: datetime


class MessageReader:
    """Reads messages as rows of a model.

    Other fields of a message are not looked at: a producer may add some at any time.

    Parameters
    ----------
    inputs
        Names of the inputs.
    mapping
        Which field is which input.

    Examples
    --------
    >>> reader = MessageReader(["age", "city"], StreamMapping(inputs={"age": "person.age"}, timestamp="at"))
    >>> value = b'{"city": "Bonn", "person": {"age": 7, "name": "x"}, "at": "2024-01-01T00:00:00Z"}'
    >>> row, key, event_at = reader.read(Message(0, 0, value, b"k", 0))
    >>> row, key, event_at.isoformat()
    (b'{"age":7,"city":"Bonn"}', 'k', '2024-01-01T00:00:00+00:00')
    """

    def __init__(self, inputs: Sequence[str], mapping: StreamMapping) -> None:
        paths = [mapping.inputs.get(name, name) for name in inputs]
        wanted = list(dict.fromkeys([*paths, *filter(None, (mapping.key, mapping.timestamp))]))
        self._decode = msgspec.json.Decoder(_struct(wanted)).decode
        self._inputs = _taker(wanted, paths)
        self._key = None if mapping.key is None else _taker(wanted, [mapping.key])
        self._timestamp = None if mapping.timestamp is None else _taker(wanted, [mapping.timestamp])
        self._timestamp_name = mapping.timestamp
        self._row = msgspec.defstruct(
            "Row",
            [(f"field_{number}", _Value, msgspec.UNSET) for number in range(len(inputs))],
            rename={f"field_{number}": name for number, name in enumerate(inputs)},
            gc=False,
        )

    def read(self, message: Message) -> MessageRow:
        """Take from a message what the mapping names (raises Unreadable)."""
        if message.value is None:
            raise Unreadable(None, "wanted a JSON object, found a message without a value")
        try:
            fields = self._decode(message.value)
            repeated = repeated_key(message.value, _count_keys(fields))
        except msgspec.ValidationError as error:
            told, _, path = str(error).partition(" - at `$.")
            if not path:
                raise Unreadable(None, f"wanted a JSON object in UTF-8: {error}") from error
            raise Unreadable(path.rstrip("`"), f"{told}: the mapping leads into it", "contract") from error
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise Unreadable(None, f"wanted a JSON object in UTF-8: {error}") from error
        if repeated is not None:
            raise Unreadable(repeated[:40], "appears twice", "contract")
        row = _encode(self._row(*self._inputs(fields)))
        if self._key is None:
            key = None if message.key is None else message.key.decode(errors="replace")
        else:
            key = _json(self._key(fields)[0])
        if self._timestamp is None:
            return MessageRow(row, key, _EPOCH + timedelta(microseconds=message.time))
        return MessageRow(row, key, self._event_at(self._timestamp(fields)[0]))

    def _event_at(self, raw: Any) -> datetime:
        if raw is msgspec.UNSET:
            raise Unreadable(self._timestamp_name, "wanted the instant of the event, found no such field")
        try:
            value = _instant(raw)
            if isinstance(value, datetime):
                return (value if value.tzinfo is not None else read_instant(_decode(raw))).astimezone(UTC)
            return _EPOCH + timedelta(seconds=value if abs(value) < _SECONDS_END else value / 1000)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError, OverflowError) as error:
            found = bytes(raw)[:60].decode(errors="replace")
            raise Unreadable(
                self._timestamp_name,
                "wanted an instant with an offset (2024-01-31T12:00:00Z), or seconds or milliseconds since 1970, "
                f"found {found}",
            ) from error


def _count_keys(fields: Any) -> int:
    """How many of the wanted keys, and of the objects on the way to them, a message has."""
    values = msgspec.structs.astuple(fields)
    count = len(values) - values.count(msgspec.UNSET)
    for value in values:
        if isinstance(value, msgspec.Struct):
            count += _count_keys(value)
    return count


def _json(raw: Any) -> Any:
    """The value of a field that identifies a message."""
    if raw is msgspec.UNSET:
        return None
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return bytes(raw).decode(errors="replace")


def _struct(paths: Sequence[str]) -> Any:
    """A struct of the wanted fields, each as it was sent; of objects on the way there is a struct too."""
    fields: list[Any] = []
    names = {}
    for number, (head, inner) in enumerate(_heads(paths).items()):
        kind: Any = (_struct(inner) | None | msgspec.UnsetType) if inner else _Value
        fields.append((f"field_{number}", kind, msgspec.UNSET))
        names[f"field_{number}"] = head
    return msgspec.defstruct("Fields", fields, rename=names, gc=False, frozen=True)


def _heads(paths: Sequence[str]) -> dict[str, list[str]]:
    """First names of paths, each with the rests of the paths that lead through it."""
    heads: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        heads.setdefault(head, []).extend([rest] if rest else [])
    return heads


def _taker(wanted: Sequence[str], paths: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes the values of paths from a struct of `_struct(wanted)`."""
    places = [_places(wanted, path) for path in paths]
    if all(len(place) == 1 for place in places):
        numbers = [place[0] for place in places]

        def take(fields: Any) -> tuple[Any, ...]:
            values = msgspec.structs.astuple(fields)
            return tuple([values[number] for number in numbers])

        return take
    names = [[f"field_{number}" for number in place] for place in places]

    def take_deep(fields: Any) -> tuple[Any, ...]:
        values = []
        for path in names:
            value = fields
            for name in path:
                value = msgspec.UNSET if value is None or value is msgspec.UNSET else getattr(value, name)
            values.append(value)
        return tuple(values)

    return take_deep


def _places(wanted: Sequence[str], path: str) -> list[int]:
    """Numbers of the fields on the way to a path's value, from the outermost struct in."""
    heads = _heads(wanted)
    head, _, rest = path.partition(".")
    return [list(heads).index(head), *(_places(heads[head], rest) if rest else [])]
