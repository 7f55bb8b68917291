"""Reads the rows of a view that count at an instant, whoever wrote them: publishing, a push or a stream."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ml_platform.features.online.store import Key, OnlineStore, Row, to_micros
from ml_platform.features.streaming.timeline import newer, row_at, stream_view


def rows_at(store: OnlineStore, view: str, keys: Sequence[Key], at: datetime | None = None) -> list[Row | None]:
    """Read the rows of a view's entities that count at an instant (now when None), in one round trip.

    Examples
    --------
    >>> import tempfile
    >>> import polars as pl
    >>> from ml_platform.features.online.open import open_online_store
    >>> first = datetime(2024, 5, 1, tzinfo=UTC)
    >>> with open_online_store(f"sqlite:///{tempfile.mkdtemp()}/online.db") as store:
    ...     frame = pl.DataFrame({"shop": ["a"], "event_time": [first], "sales_1h": [3]})
    ...     _ = store.write("shop_sales", ("shop",), frame)
    ...     [row and row.values for row in rows_at(store, "shop_sales", [("a",), ("b",)])]
    [{'sales_1h': 3}, None]
    """
    micros = to_micros(at or datetime.now(UTC))
    read = store.read([(name, key) for name in (view, stream_view(view)) for key in keys])
    timelines = [None if row is None else row_at(row, micros) for row in read[len(keys) :]]
    return [newer(*both) for both in zip(read[: len(keys)], timelines, strict=True)]
