"""Runs the compiled SQL of trailing windows for a part of the keys at a time, so that not all rows are held at once."""

from collections.abc import Iterator

import duckdb
import polars as pl

from ml_platform.features.rolling.arrival_sql import compiled_sql
from ml_platform.features.rolling.spec import Rolling, microseconds
from ml_platform.lake.names import quoted

ROWS = 2_000_000  # rows computed at a time, about


def compute_parts(
    connection: duckdb.DuckDBPyConnection, rolling: Rolling, entity: tuple[str, ...], event_time: str
) -> Iterator[pl.DataFrame]:
    """Give the rows of `Rolling.sql` in one or more frames; all rows of a key are in the same one.

    Parameters
    ----------
    connection
        Where the source is attached.
    rolling
        The declaration.
    entity, event_time
        Columns of the result.
    """
    keys = ", ".join(map(quoted, entity))
    events, number, oldest, newest = (
        connection.sql(
            f"SELECT count(*) FILTER (__counts), approx_count_distinct(hash({keys})), min(__us), max(__us) "
            f"FROM ({rolling.events_sql(entity)})"
        )
        .pl()
        .row(0)
    )
    if not events:
        yield connection.sql(compiled_sql(rolling, entity, event_time)).pl()
        return
    if rolling.every is None:
        rows = events * len(rolling.shifts())
    else:
        tick, longest = microseconds(rolling.every), microseconds(max(rolling.windows))
        rows = min(events * (longest // tick + 1), number * ((newest - oldest) // tick + 1))
    parts = -(-rows // ROWS)
    for part in range(parts):
        chosen = f"hash({keys}) % {parts} = {part}"
        yield connection.sql(compiled_sql(rolling, entity, event_time, chosen=chosen, newest=newest)).pl()
