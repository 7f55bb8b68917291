"""Down-sampling that draws the same rows every time."""

from collections.abc import Mapping
from typing import Any

import polars as pl

_SEED = 2013
_ALL = 2.0**64  # one more than the largest hash


def sample_filter(identity: pl.Expr, share: float | Mapping[Any, float], label: str | None = None) -> pl.Expr:
    """Make the condition by which rows are kept: the hash of their identity is below the share.

    Whether a row is kept does not depend on the other rows, and the rows of a smaller share are part of those of a
    larger one.

    Parameters
    ----------
    identity
        Expression that identifies rows, usually a column.
    share
        Part of the rows to keep, in (0, 1], or a part for each value of the label.
    label
        Column whose values are the keys of a mapping.

    Raises
    ------
    ValueError
        If a share is not in (0, 1], or a mapping comes without a label.

    Examples
    --------
    >>> frame = pl.DataFrame({"id": range(1000), "late": [n % 10 == 0 for n in range(1000)]})
    >>> frame.filter(sample_filter(pl.col("id"), {False: 0.1}, "late"))["late"].sum()
    100
    """
    shares = list(share.values()) if isinstance(share, Mapping) else [share]
    if wrong := [value for value in shares if not 0 < value <= 1]:
        raise ValueError(f"sample: wanted shares in (0, 1], found {wrong}")
    if not isinstance(share, Mapping):
        return pl.lit(value=True) if share == 1 else identity.hash(_SEED) < share * _ALL
    if label is None:
        raise ValueError("sample: shares per value need a `label`, the column that has these values")
    limit = pl.lit(_ALL)
    for value, part in share.items():
        limit = pl.when(pl.col(label) == value).then(part * _ALL).otherwise(limit)
    return identity.hash(_SEED) < limit
