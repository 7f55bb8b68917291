"""Down-sampling that draws the same rows every time."""

from collections.abc import Mapping
from typing import Any

import polars as pl

_SEED = 2013
_ALL = 2.0**64  # one more than the largest hash


def kept(identity: pl.Expr, share: float | Mapping[Any, float], label: str | None = None) -> pl.Expr:
    """Say which rows stay: those whose identity hashes into the share.

    Where the identity is a column, a row stays or goes whatever other rows there are, and a smaller share is part of
    a larger one.

    Parameters
    ----------
    identity
        What tells rows apart.
    share
        Part of the rows to keep, in (0, 1], or a part for each value of the label.
    label
        Column that a mapping's keys are values of.

    Raises
    ------
    ValueError
        If a share is not in (0, 1], or a mapping comes without a label.

    Examples
    --------
    >>> frame = pl.DataFrame({"id": range(1000), "late": [n % 10 == 0 for n in range(1000)]})
    >>> frame.filter(kept(pl.col("id"), {False: 0.1}, "late"))["late"].sum()
    100
    """
    shares = list(share.values()) if isinstance(share, Mapping) else [share]
    if wrong := [value for value in shares if not 0 < value <= 1]:
        raise ValueError(f"sample: wanted shares in (0, 1], found {wrong}")
    if not isinstance(share, Mapping):
        return pl.lit(value=True) if share == 1 else identity.hash(_SEED) < share * _ALL
    if label is None:
        raise ValueError("sample: shares per value need the label that they are values of")
    limit = pl.lit(_ALL)
    for value, part in share.items():
        limit = pl.when(pl.col(label) == value).then(part * _ALL).otherwise(limit)
    return identity.hash(_SEED) < limit
