"""What the online stores share: packing the rows of a frame for writing, and unpacking what was read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from ml_platform.features.online.store import Mark, Row, ViewSchema, check_published_rows

if TYPE_CHECKING:
    import polars as pl

_PART = 50_000  # rows turned into Python values at a time

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


class PackedRows(NamedTuple):
    """Rows to write."""

    frame: "pl.DataFrame"
    entity: tuple[str, ...]
    columns: tuple[str, ...]
    event_time: str

    def parts(self, *prefix: str) -> Iterator[tuple[Iterable[bytes], list[int], Iterable[bytes]]]:
        """Give keys (with `prefix` first), times (see `to_micros`) and values, for a part of the rows at a time."""
        times = self.frame.get_column(self.event_time).dt.epoch("us")
        for start in range(0, self.frame.height, _PART):
            part = self.frame.slice(start, _PART)
            keys = (encode((*prefix, *key)) for key in part.select(self.entity).iter_rows())
            values = part.select(self.columns).iter_rows() if self.columns else repeat((), part.height)
            yield keys, times.slice(start, _PART).to_list(), map(encode, values)


class PackedStore(ABC):
    """An `OnlineStore` that packs rows with msgpack, values in the order of the definition's columns."""

    def write(
        self,
        view: str,
        entity: tuple[str, ...],
        frame: "pl.DataFrame",
        event_time: str = "event_time",
        *,
        view_hash: str = "",
        schema: ViewSchema | None = None,
        whole_since: Mark | None = None,
    ) -> int:
        """See `OnlineStore.write`.

        Raises
        ------
        Overtaken
            See `OnlineStore.write`.
        ValueError
            If a row has no key or no event time.
        sqlite3.Error, redis.RedisError
            If the store cannot be reached or refuses the write; Redis may then hold a part of the rows, and writing
            them again is safe.
        """
        check_published_rows(view, entity, frame, event_time)
        columns = tuple(name for name in frame.columns if name not in {*entity, event_time})
        return self._write(view, view_hash, schema, PackedRows(frame, entity, columns, event_time), whole_since)

    @abstractmethod
    def _write(
        self, view: str, view_hash: str, schema: ViewSchema | None, rows: PackedRows, whole_since: Mark | None
    ) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def unpack(columns: Sequence[str], view_hash: str, micros: int, packed: bytes) -> Row:
    """Make the row of an entity from its stored values."""
    return Row(micros, dict(zip(columns, decode(packed), strict=True)), view_hash)
