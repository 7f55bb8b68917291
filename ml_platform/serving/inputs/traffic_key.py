"""Reads of a body the one value that chooses among versions, before any of them decodes the rest by its contract."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from ml_platform.instants import read_instant
from ml_platform.registry.manifest import Input
from ml_platform.serving.inputs.request_decoder import MANY
from ml_platform.spec.input_rules import FieldType

_TYPES: dict[FieldType, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "timestamp": Annotated[datetime, msgspec.Meta(tz=True)],
}


class TrafficKey:
    """The input whose value chooses the version: of the first row, as text.

    Nothing else of a body is read, so a body that some version would refuse is given to the version that its key
    chooses, and refused by that one, if at all.

    Examples
    --------
    >>> key = TrafficKey(Input(name="flight", type="integer"))
    >>> key.of(b'{"flight": 7, "carrier": "UA"}'), key.of(b'{"rows": [{"flight": 7.0}, {"flight": 8}]}')
    ('7', '7')
    >>> key.of(b'{"carrier": "UA"}'), key.of(b'{"flight": "seven"}'), key.of(b"no JSON")
    (None, None, None)
    """

    def __init__(self, field: Input) -> None:
        self.name = field.name
        self._kind = field.type
        optional = _TYPES[field.type] | None | msgspec.UnsetType
        row: Any = msgspec.defstruct("Row", [("key", optional, msgspec.UNSET)], rename={"key": field.name})
        many: Any = msgspec.defstruct("Rows", [("rows", list[row])])
        self._row: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
        self._many: Callable[[bytes], Any] = msgspec.json.Decoder(many).decode

    def of(self, body: bytes) -> str | None:
        """The value's text, the same for each spelling of a value; None where there is none that can be read."""
        is_many = MANY.match(body) is not None and self.name != "rows"
        try:
            value = self._many(body).rows[0].key if is_many else self._row(body).key
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
            value = self._as_spelled(body, is_many=is_many)
        if value is None or value is msgspec.UNSET:
            return None
        return str(value.astimezone(UTC) if isinstance(value, datetime) else value)

    def _as_spelled(self, body: bytes, *, is_many: bool) -> Any:
        """The value where it, or another row's, is written as only the slow way of decoding reads it; else None."""
        try:
            row = json.loads(body)
            value = (row["rows"][0] if is_many else row).get(self.name)
            if self._kind == "timestamp":
                return read_instant(value)
            if self._kind == "string":
                return value if isinstance(value, str) else None
            if self._kind == "integer":
                return int(value) if int(value) == value else None
            return float(value) if self._kind == "number" else {0: False, 1: True}.get(value)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            return None  # the version that is chosen without it refuses the body, and says why
