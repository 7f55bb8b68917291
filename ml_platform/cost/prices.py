"""What use is worth, by the rates of the day it was used on."""

from collections.abc import Sequence

import polars as pl

from ml_platform.cost.config import Rates

GIB, HOUR = 2**30, 3600.0


def price(
    rates: Rates,
    *,
    cpu_seconds: float = 0.0,
    byte_seconds: float = 0.0,
    bytes_read: float = 0,
    bytes_written: float = 0,
) -> float:
    """Return the price of some use, in the currency of the rates.

    Examples
    --------
    >>> price(Rates(cpu_hour=0.04), cpu_seconds=7200)
    0.08
    """
    return (
        cpu_seconds / HOUR * rates.cpu_hour
        + byte_seconds / GIB / HOUR * rates.memory_gib_hour
        + bytes_read / GIB * rates.read_gib
        + bytes_written / GIB * rates.written_gib
    )


def priced(uses: pl.DataFrame, history: Sequence[Rates]) -> pl.DataFrame:
    """Add the column `price` to rows of use: each by the rates of its day.

    Parameters
    ----------
    uses
        Columns `date`, `cpu_seconds`, `byte_seconds`, `bytes_read`, `bytes_written`.
    history
        Rates in the order of their days. Days before the first have the first.
    """
    worth = _price(history[0])
    for rates in history[1:]:
        worth = pl.when(pl.col("date") >= rates.since).then(_price(rates)).otherwise(worth)
    return uses.with_columns(price=worth)


def _price(rates: Rates) -> pl.Expr:
    return (
        pl.col("cpu_seconds") / HOUR * rates.cpu_hour
        + pl.col("byte_seconds") / GIB / HOUR * rates.memory_gib_hour
        + pl.col("bytes_read") / GIB * rates.read_gib
        + pl.col("bytes_written") / GIB * rates.written_gib
    )


def storage_price(rates: Rates, size: float, days: float = 30.0) -> float:
    """Return what it costs to store bytes for some days.

    Examples
    --------
    >>> storage_price(Rates(storage_gib_month=0.02), 100 * 2**30)
    2.0
    """
    return size / GIB * rates.storage_gib_month * days / 30
