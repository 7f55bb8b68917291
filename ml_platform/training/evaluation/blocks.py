"""Blocks of rows that are taken for independent of one another: days, weeks, the values of a column, or single rows."""

import numpy as np
import polars as pl

from ml_platform.spec.promotion import BLOCK_UNITS

DAY, WEEK, ROWS = BLOCK_UNITS


def block_ids(rows: pl.DataFrame, block: str, timestamp: str) -> np.ndarray:
    """Number the block of each row.

    Parameters
    ----------
    rows
        With the column `timestamp` (UTC) and, where `block` names one, that column.
    block
        "day" or "week" (ISO, from Monday) of the timestamp in UTC, "rows" for each row by itself, or a column whose
        equal values make a block; its nulls make one together.
    timestamp
        Column with the instant of each row.

    Returns
    -------
    numpy.ndarray
        Integers (rows,), equal where the block is.

    Raises
    ------
    ValueError
        When `block` is neither a unit nor a column of the rows.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> at = pl.Series([datetime(2026, 5, day, hour, tzinfo=UTC) for day, hour in ((3, 1), (3, 23), (4, 0))])
    >>> block_ids(pl.DataFrame({"at": at}), "day", "at").tolist()
    [0, 0, 1]
    """
    if block == ROWS:
        return np.arange(rows.height)
    if block in (DAY, WEEK):
        ids = rows.get_column(timestamp).dt.truncate("1d" if block == DAY else "1w")
    elif block in rows.columns:
        ids = rows.get_column(block)
    else:
        raise ValueError(
            f"promotion.block: '{block}' is neither day, week nor rows, and the rows have no such column; they have "
            f"{', '.join(rows.columns)}"
        )
    return ids.rank("dense").fill_null(0).cast(pl.Int64).to_numpy() - 1


def blocks_in_words(count: int, block: str) -> str:
    """Say how many blocks there are.

    Examples
    --------
    >>> blocks_in_words(28, "day"), blocks_in_words(40, "customer"), blocks_in_words(1, "rows")
    ('28 days', '40 values of customer', '1 row')
    """
    units = {DAY: ("day", "days"), WEEK: ("week", "weeks"), ROWS: ("row", "rows")}
    one, several = units.get(block, (f"value of {block}", f"values of {block}"))
    return f"{count:,} {one if count == 1 else several}"
