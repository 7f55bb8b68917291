"""Numeric labels that can hardly be right: a few values far beyond all others, as a sentinel or another unit gives."""

from collections.abc import Callable

import numpy as np
import polars as pl

from ml_platform.spec.model import ModelSpec

_TIMES_AS_FAR = 20.0  # of the farthest other row, and of the span of the middle nine tenths
_LARGEST_SHARE = 0.01  # of the rows: more of them are a part of the data, not a mistake
_SHOWN = 3


def label_outliers(frame: pl.DataFrame | pl.LazyFrame, spec: ModelSpec) -> tuple[str, ...]:
    """Name the rows of a regression whose labels are far beyond all others; they stay where they are.

    Parameters
    ----------
    frame
        Labelled rows with `spec.id` and `spec.target`; of lazy ones the labels alone are held.
    spec
        The model.

    Returns
    -------
    tuple[str, ...]
        One sentence for each of the farthest; empty where there are none, and for classes.
    """
    if spec.task != "regression":
        return ()
    rows = frame.lazy()

    def row_name(place: int) -> str:
        return f"the row with {spec.id} {rows.select(spec.id).slice(place, 1).collect().item()!r}"

    return outlier_sentences(rows.select(spec.target).collect().to_series(), row_name)


def outlier_sentences(labels: pl.Series, row_name: Callable[[int], str]) -> tuple[str, ...]:
    """Say which of some labels are outliers; `row_name` says of which row a label at a place is."""
    values = labels.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    found = outliers(values)
    median = float(np.nanmedian(values)) if len(found) else 0.0
    sentences = [
        f"{labels.name} {values[place]:g} in {row_name(int(place))}, where the median is {median:g}"
        for place in found[:_SHOWN]
    ]
    more = len(found) - len(sentences)
    return (*sentences, *([f"and {more:,} more such rows"] if more else []))


def outliers(values: np.ndarray) -> np.ndarray:
    """Places of values that lie far beyond all others, the farthest first.

    A few values count as outliers where each is at least twenty times as far from the median as the farthest of the
    rest, and as the middle nine tenths reach. Values that grow by and by, as those of a heavy tail, are none.

    Parameters
    ----------
    values
        Numbers (rows,); NaN and infinite ones are left out.

    Examples
    --------
    >>> outliers(np.array([*range(1, 101), 1e12])).tolist(), outliers(np.exp(np.arange(100.0))).tolist()
    ([100], [])
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 2:
        return known[:0]
    distance = np.abs(values[known] - np.median(values[known]))
    most = max(1, int(_LARGEST_SHARE * len(known)))
    order = np.argsort(-distance, kind="stable")[: most + 1]
    low, high = np.quantile(values[known], [0.05, 0.95], method="nearest")
    farthest = distance[order]
    span = high - low or float(np.median(distance[distance > 0])) if distance.any() else 0.0  # of labels mostly equal
    rest = np.maximum(farthest[1:], span)
    gaps = np.flatnonzero((rest > 0) & (farthest[:-1] >= _TIMES_AS_FAR * rest))
    return known[order[: gaps[-1] + 1]] if len(gaps) else known[:0]
