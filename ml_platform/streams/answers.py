"""What a stream writes: an answer per message, or a dead letter with the reason; both are one JSON object."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

# Why a message is a dead letter: no JSON object, or without what the mapping names; an input that is missing, of a
# wrong type or against its rules, or a key that appears twice; features that cannot be derived; later than
# `late_after`; an error nobody foresaw.
Kind = Literal["broken", "contract", "features", "late", "failed"]


class StreamAnswer(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The answer to one message.

    `partition` and `position` are those of the message; `request_id` and `row` are its place in the inference log. `id`
    is the model's own, `key` what `mapping.key` names or the message's key. Instants are UTC: `event_at` of the event,
    `arrived_at` when the broker got the message, `scored_at` of the scoring.
    """

    model: str
    version: int
    partition: int
    position: int
    request_id: str
    row: int
    key: Any = None
    id: str | int | float | None = None
    prediction: bool | int | float | str
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    event_at: datetime
    arrived_at: datetime
    scored_at: datetime
    flags: Sequence[Mapping[str, Any]] | None = None  # inputs that break the contract and were answered all the same
    degraded: Sequence[str] | None = None  # what failed: online_store
    truncated: Sequence[str] | None = None  # fields that were too long for a broker, and have their beginning


class Fault(msgspec.Struct, gc=False):
    """One thing that is wrong with a message."""

    field: str | None
    message: str


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A message that was not answered, and why.

    `value` is the message as text; of one that is no UTF-8 `value_base64` has the bytes. Where `truncated` is true,
    the beginning of a very long value or key is kept; the reason says of which.
    """

    model: str
    partition: int
    position: int
    kind: Kind
    reason: str
    faults: Sequence[Fault] = ()
    key: Any = None
    value: str | None = None
    value_base64: bytes | None = None  # msgspec writes bytes as base64
    truncated: bool = False
    arrived_at: datetime
    refused_at: datetime


class Letter(NamedTuple):
    """A dead letter, wherever it is kept."""

    partition: int
    position: int
    kind: str
    reason: str
    key: str | None
    value: bytes | None
    truncated: bool
    refused_at: datetime

    @property
    def place(self) -> str:
        """How commands name it: `<partition>:<position>`."""
        return f"{self.partition}:{self.position}"
