"""Reads messages into rows of the raw table; what is no event is refused with the reason, and never stops a stream."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import polars as pl

from ml_platform.features.rolling.spec import Rolling, microseconds
from ml_platform.features.stream_spec import ARRIVED, PARTITION, POSITION, TOO_LATE, ViewStream
from ml_platform.features.views.declared_types import DTYPES, UTC_MICROSECONDS
from ml_platform.json_keys import repeated_key
from ml_platform.spec.types import duration
from ml_platform.streams.protocols import Message

LARGEST = 2.0**53  # of a scaled value: what lies below is exact in a double, too
_FAULT = "__fault"
KEPT = 2**16  # bytes of a refused message that the quarantine keeps
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "number": float,
    "boolean": bool,
    "timestamp": Annotated[datetime, msgspec.Meta(tz=True)],
}


class Refused(NamedTuple):
    """A message that is no event."""

    partition: int
    position: int
    time: int
    reason: str
    text: str


class ReadEvents(NamedTuple):
    """The events of some messages, in order, and what was refused."""

    rows: pl.DataFrame
    refused: list[Refused]


class EventReader:
    """Reads the messages of one raw table.

    Parameters
    ----------
    stream
        The declaration.
    rollings
        The windows of all views of the table.
    newest
        Newest event time so far in microseconds, for `clock: events`.

    Examples
    --------
    >>> from ml_platform.spec.stream import KafkaSource
    >>> stream = ViewStream(
    ...     source=KafkaSource(topic="sales", servers="127.0.0.1:9092"),
    ...     columns={"shop": "string", "amount": "number", "sold_at": "timestamp"},
    ...     fields={"amount": "cart.total"},
    ... )
    >>> windows = Rolling(
    ...     source="raw/sales", time="sold_at", windows=["1 hour"],
    ...     aggregates={"sales": {"function": "count", "description": "Sales."}},
    ... )
    >>> value = b'{"shop": "A", "cart": {"total": 9.5}, "sold_at": "2024-05-01T12:00:00Z"}'
    >>> reader = EventReader(stream, [windows])
    >>> rows, refused = reader.read([Message(0, 7, value, None, 1714564801000000), Message(0, 8, b"{}", None, 0)])
    >>> rows.row(0)[:2], refused[0].reason
    (('A', 9.5), 'Object missing required field `shop`')
    """

    def __init__(self, stream: ViewStream, rollings: Sequence[Rolling], newest: int | None = None) -> None:
        self._stream = stream
        self.newest = newest
        paths = {name: stream.fields.get(name, name).split(".") for name in stream.columns}
        structure, attributes = _structure("Event", paths, stream.columns)
        self._decode = msgspec.json.Decoder(structure).decode
        self._keys = len({tuple(path[: depth + 1]) for path in paths.values() for depth in range(len(path))})
        self._values = attrgetter(*(attributes[name] for name in stream.columns), "__class__")
        self._schema = {
            **{name: DTYPES[kind] for name, kind in stream.columns.items()},
            ARRIVED: pl.Int64(),
            PARTITION: pl.Int64(),
            POSITION: pl.Int64(),
        }
        self._time = rollings[0].time
        self._bounds = sorted(
            {
                (item.column, item.decimals)
                for rolling in rollings
                for item in rolling.aggregates.values()
                if item.column is not None and item.decimals is not None
            }
        )
        lateness = microseconds(stream.lateness)
        self._fault = self._faults()
        self._late = (pl.col(ARRIVED) > pl.col(self._time).dt.epoch("us") + lateness).alias(TOO_LATE)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of the raw table and their types."""
        return {**{name: dtype for name, dtype in self._schema.items() if name != ARRIVED}, **_OWN}

    def read(self, messages: Sequence[Message]) -> ReadEvents:
        """Read messages in their order."""
        rows, refused = [], []
        for message in messages:
            try:
                if message.value is None:
                    raise ValueError("the message is empty")
                event = self._decode(message.value)
                if (repeated := repeated_key(message.value, self._keys)) is not None:
                    raise ValueError(f"{repeated[:40]}: appears twice")
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                refused.append(_refusal(message, str(error) or type(error).__name__))
                continue
            rows.append((*self._values(event)[:-1], message.time, message.partition, message.position))
        frame = pl.DataFrame(rows, schema=self._schema, orient="row")
        if self._stream.clock == "events":
            frame = self._without(frame.with_columns(self._fault), messages, refused)
            frame = self._arrived(frame).with_columns(pl.lit(None, pl.String).alias(_FAULT), self._late)
        else:
            frame = frame.with_columns(self._fault, self._late)
        frame = self._without(frame, messages, refused)
        return ReadEvents(frame.select(self._own()), refused)

    def _own(self) -> list[pl.Expr]:
        arrived = pl.from_epoch(ARRIVED, "us").dt.replace_time_zone("UTC").alias(ARRIVED)
        return [arrived if name == ARRIVED else pl.col(name) for name in self.schema]

    def _faults(self) -> pl.Expr:
        """Why a row is no event; null where it is one."""
        time = pl.col(self._time)
        missing = pl.when(time.is_null()).then(pl.lit(f"{self._time}: an event has a time, found null"))
        ahead = pl.lit(None, pl.String)
        if self._stream.clock == "broker":
            first = pl.col(ARRIVED) + microseconds(self._stream.ahead)
            told = f"{self._time}: more than {duration(self._stream.ahead)} ahead of its arrival"
            ahead = pl.when(time.dt.epoch("us") > first).then(pl.lit(told))
        large = [
            pl.when(pl.col(name).cast(pl.Float64).abs() * 10.0**decimals > LARGEST).then(
                pl.lit(f"{name}: too large for a sum with {decimals} decimals")
            )
            for name, decimals in self._bounds
        ]
        return pl.coalesce(missing, ahead, *large, pl.lit(None, pl.String)).alias(_FAULT)

    def _arrived(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Let events arrive at the newest time of any event so far."""
        if not frame.height:
            return frame
        times = frame.get_column(self._time).dt.epoch("us").cum_max()
        if self.newest is not None:
            times = times.clip(lower_bound=self.newest)
        self.newest = int(times[-1])
        return frame.with_columns(times.alias(ARRIVED))

    @staticmethod
    def _without(frame: pl.DataFrame, messages: Sequence[Message], refused: list[Refused]) -> pl.DataFrame:
        """Refuse the rows with a fault."""
        if frame.get_column(_FAULT).null_count() == frame.height:
            return frame
        by_place = {(message.partition, message.position): message for message in messages}
        wrong = frame.filter(pl.col(_FAULT).is_not_null()).select(PARTITION, POSITION, _FAULT)
        refused += [_refusal(by_place[partition, position], reason) for partition, position, reason in wrong.rows()]
        return frame.filter(pl.col(_FAULT).is_null())


_OWN: dict[str, pl.DataType] = {
    ARRIVED: UTC_MICROSECONDS,
    TOO_LATE: pl.Boolean(),
    PARTITION: pl.Int64(),
    POSITION: pl.Int64(),
}


def _refusal(message: Message, reason: str) -> Refused:
    text = (message.value or b"")[:KEPT].decode(errors="backslashreplace")
    return Refused(message.partition, message.position, message.time, reason, text)


def _structure(name: str, paths: dict[str, list[str]], types: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """Make the type of an event, objects within objects; also give the attribute path of each column."""
    below: dict[str, dict[str, list[str]]] = {}
    for column, path in paths.items():
        below.setdefault(path[0], {})[column] = path[1:]
    fields: list[tuple[str, Any]] = []
    renamed: dict[str, str] = {}
    attributes: dict[str, str] = {}
    for number, (field, columns) in enumerate(below.items()):
        attribute = f"f{number}"  # a field may have any name, an attribute may not
        renamed[attribute] = field
        inner = {column: path for column, path in columns.items() if path}
        if inner:
            kind, places = _structure(f"{name}.{field}", inner, types)
            attributes |= {column: f"{attribute}.{place}" for column, place in places.items()}
        else:
            kind = _TYPES[types[next(iter(columns))]] | None
        fields.append((attribute, kind))
        attributes |= {column: attribute for column, path in columns.items() if not path}
    return msgspec.defstruct(name, fields, rename=renamed), attributes
