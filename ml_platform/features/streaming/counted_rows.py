"""What the state of a stream is made anew from: rows of the raw table, in the order in which they counted."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from ml_platform.features.online.store import to_micros
from ml_platform.features.stream_spec import ARRIVED, ViewStream
from ml_platform.features.streaming.view_windows import ViewWindows
from ml_platform.lake.storage.tables import Lake

KNOWN = "__known"  # column: when an event began to count, in microseconds since 1970
_DAY = 86_400_000_000  # microseconds


def state_identity(table: str, stream: ViewStream, views: Sequence[ViewWindows]) -> str:
    """What the state depends on beside the events: other views, windows or columns want it made anew."""
    declared = [(one.view.name, one.view.hash, one.plan.inputs, one.plan.kinds) for one in views]
    text = repr((table, sorted(declared), stream.clock))
    return hashlib.sha256(text.encode()).hexdigest()


def counted_rows(
    lake: Lake, table: str, time: str, views: Sequence[ViewWindows], schema: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """Rows of the raw table that decide the values at its newest event, in the order in which they counted.

    Parameters
    ----------
    lake, table
        Where the rows are; the table is there.
    time
        Its column of event times.
    views
        The views that follow the stream.
    schema
        Columns that are read; those that the table lacks are null.

    Returns
    -------
    DataFrame
        The columns of `schema`, and `KNOWN`.
    """
    rows = lake.read(table)
    newest: Any = rows.select(pl.col(time).max()).collect().item()
    if newest is None:
        return rows.clear().collect().with_columns(pl.lit(0).alias(KNOWN))
    spans = [
        None if one.view.ttl is None else one.plan.longest + one.view.ttl // timedelta(microseconds=1) for one in views
    ]
    names = rows.collect_schema().names()
    arrived = pl.col(ARRIVED) if ARRIVED in names else pl.lit(None, pl.Datetime("us", "UTC"))
    known = pl.max_horizontal(pl.col(time), arrived).dt.epoch("us").alias(KNOWN)
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in names]
    if None not in spans:  # without a TTL the last row of an entity counts for ever
        oldest = to_micros(newest) - max(span for span in spans if span is not None) - _DAY
        rows = rows.filter(pl.col(time).dt.epoch("us") > oldest)
    return rows.with_columns(known, *lacking).select(*schema, KNOWN).sort(KNOWN, maintain_order=True).collect()
