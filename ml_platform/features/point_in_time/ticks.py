"""Instants as whole ticks of a view's clock, so that both engines of the join compare the same integers.

No instant is too early or too late, and no TTL too long: what a spine's row may use is computed in 128 bits and cut to
the ticks that the view can have.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

AT, FROM = "__at", "__from"  # latest and earliest tick of the view that a row may use, both inclusive
_NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000}  # in a tick
_DAY = 86_400 * 10**9
_TICKS = (-(2**63), 2**63 - 1)


def usable_ticks(timestamps: pl.Series, clock: pl.DataType, ttl: timedelta | None) -> list[pl.Series]:
    """Say which ticks of a view's time column each timestamp may use: `AT`, and with a TTL also `FROM`.

    Parameters
    ----------
    timestamps
        Instants or dates of any unit.
    clock
        Type of the view's time column.
    ttl
        Age up to which a row may be used, inclusive; unlimited when None.

    Examples
    --------
    >>> at = pl.Series([datetime(1, 1, 1), datetime(1970, 1, 2)])
    >>> [ticks.to_list() for ticks in usable_ticks(at, pl.Datetime("ms"), timedelta(hours=1))]
    [[-62135596800000, 86400000], [-62135600400000, 82800000]]
    """
    unit = _nanoseconds(clock)
    instant = pl.col("at").to_physical().cast(pl.Int128) * _nanoseconds(timestamps.dtype)
    ticks = [(instant // unit).alias(AT)]
    if ttl is not None:
        age = pl.lit(ttl // timedelta(microseconds=1) * 1_000, dtype=pl.Int128)
        ticks.append(((instant - age + (unit - 1)) // unit).alias(FROM))  # rounded up
    frame = timestamps.alias("at").to_frame().select(tick.clip(*_TICKS).cast(pl.Int64) for tick in ticks)
    return frame.get_columns()


def between(column: pl.Expr, clock: pl.DataType, first: object, last: object) -> pl.Expr:
    """Select the rows between two ticks (some more may pass), by literals that Parquet's statistics can be read with.

    A tick that Python has no instant for sets no bound; without ticks no row is selected.
    """
    if not isinstance(first, int) or not isinstance(last, int):
        return pl.lit(value=False)
    low, high = _literal(first, clock, 0), _literal(last, clock, 1)
    selected = pl.lit(value=True) if low is None else column >= low
    return selected if high is None else selected & (column < high)


def _nanoseconds(dtype: pl.DataType) -> int:
    """Nanoseconds of a tick."""
    return _NANOSECONDS[dtype.time_unit] if isinstance(dtype, pl.Datetime) else _DAY


def _literal(ticks: int, clock: pl.DataType, more: int) -> date | None:
    """The instant of a tick, rounded down to Python's resolution, or the next one."""
    try:
        if not isinstance(clock, pl.Datetime):
            return date(1970, 1, 1) + timedelta(days=ticks + more)
        microseconds = ticks * _nanoseconds(clock) // 1_000 + more * max(1, _nanoseconds(clock) // 1_000)
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
        return instant.astimezone(ZoneInfo(clock.time_zone)) if clock.time_zone else instant.replace(tzinfo=None)
    except OverflowError:
        return None
