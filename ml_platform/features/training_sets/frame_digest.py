"""A digest of rows: equal for equal values in the same order, whatever wrote, stored or read them."""

import hashlib

import numpy as np
import polars as pl

_CHUNK_ROWS = 200_000


def frame_digest(frame: pl.DataFrame) -> str:
    """SHA-256 over names, kinds of types and values of a frame's columns, and over the order of its rows.

    It does not depend on the order of columns, on how a frame is cut into chunks, or on a library's file format. A null
    and a NaN are two values, all NaN are one, and 0.0 and -0.0 are two, as models may tell them apart.

    Examples
    --------
    >>> rows = pl.DataFrame({"id": ["a", None], "value": [1.0, float("nan")]})
    >>> frame_digest(rows) == frame_digest(rows.select("value", "id")), frame_digest(rows) == frame_digest(rows[::-1])
    (True, False)
    """
    digest = hashlib.sha256(f"{frame.height}\n".encode())
    for name in sorted(frame.columns):
        column = frame.get_column(name)
        digest.update(f"{name}\0{_kind(column.dtype)}\n".encode())
        for start in range(0, max(frame.height, 1), _CHUNK_ROWS):
            for part in _bytes(column.slice(start, _CHUNK_ROWS)):
                digest.update(part)
    return digest.hexdigest()


def _kind(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"instant {dtype.time_zone or 'without zone'}"
    return "integer" if dtype.is_integer() else "number" if dtype.is_float() else str(dtype)


def _bytes(column: pl.Series) -> tuple[bytes, ...]:
    nulls = np.packbits(column.is_null().to_numpy()).tobytes()
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        values = column.dt.epoch("us").fill_null(0).to_numpy().astype("<i8")
    elif dtype.is_float():
        values = column.cast(pl.Float64).fill_null(0.0).to_numpy().astype("<f8")
        values = np.where(np.isnan(values), np.nan, values)  # NaN has many bit patterns
    elif dtype.is_integer() or dtype in (pl.Boolean, pl.Date):
        values = column.cast(pl.Int64).fill_null(0).to_numpy().astype("<i8")
    else:
        texts = [b"" if value is None else str(value).encode() for value in column.to_list()]
        lengths = np.fromiter(map(len, texts), dtype="<i8", count=len(texts))
        return nulls, lengths.tobytes(), b"".join(texts)
    return nulls, values.tobytes()
