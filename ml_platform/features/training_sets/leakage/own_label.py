"""Features that are means of labels, the row's own among them, or of all others of its group: target encoding.

Whether a feature is such a mean must hold for every group of a key, so a few whole groups tell nearly always that it is
not one. Only what passes there is looked at in all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.features.training_sets.leakage.history import group_keys
from ml_platform.features.training_sets.leakage.measures import FEWEST_ROWS, SEED, Floats, squared_correlation

_FEWEST_GROUPS = 10
_SMALLEST_SHARE = 0.2  # of the rows, which must be in groups of several
_EXACT = 1e-6  # of the label's standard deviation: what rounding leaves between a mean and itself
_SCREENED_ROWS = 5_000


@dataclass(frozen=True)
class _Groups:
    """Rows of some whole groups of a key, sorted by group, and the number of each row's group."""

    rows: np.ndarray
    group: np.ndarray


class OwnLabels:
    """The search for features that hold their row's own label.

    Found by its values is a mean label of any grouping, also where it is drawn towards a prior; and by the given groups
    also one where each row leaves itself out.

    Parameters
    ----------
    frame
        Rows with known labels.
    labels
        Numeric labels (rows,), of several classes one for each.
    groups
        Categorical columns by which rows may be grouped.
    """

    def __init__(self, frame: pl.DataFrame, labels: Sequence[Floats], groups: Sequence[str]) -> None:
        self._frame, self._labels = frame, labels
        self._keys = group_keys(frame, groups)
        self._screens = [_some_groups(frame.get_column(key)) for key in self._keys]

    def hold(self, name: str) -> bool:
        """Tell whether a feature is the mean label of a group that the row itself is in, or of all others of it."""
        feature = self._frame.get_column(name).cast(pl.Float64)
        return any(self._holds(feature, label) for label in self._labels)

    def _holds(self, feature: pl.Series, label: Floats) -> bool:
        known = feature.is_finite().fill_null(value=False).to_numpy() & np.isfinite(label)
        spread = float(np.std(label[known], ddof=1)) if known.sum() >= FEWEST_ROWS else 0.0
        if spread == 0.0:
            return False
        values = feature.to_numpy()
        passing = [
            key
            for key, some in zip(self._keys, self._screens, strict=True)
            if _may_be_mean(values, label, known, some, spread)
        ]
        of_values = _may_be_mean_of_equals(feature, label, known, spread)
        if not passing and not of_values:
            return False
        # Numbered, since a column may be called as one of those here.
        keys = {f"group {number}": self._frame.get_column(key) for number, key in enumerate(passing)}
        table = pl.DataFrame({"f": feature, "y": label, **keys}).filter(pl.Series(known))
        if _is_the_label(table):
            return False
        grouped = [_group_sums(table, key) for key in keys]
        return any(_is_mean_of_others(sums, spread) for sums in grouped) or any(
            _is_group_mean(sums, table.height, spread)
            for sums in (*grouped, *([_group_sums(table, "f")] if of_values else []))
        )


def _some_groups(key: pl.Series) -> _Groups:
    """Draw groups until there are enough rows; at least one group."""
    codes = key.cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
    sizes = np.bincount(codes)
    order = np.random.default_rng(SEED).permutation(len(sizes))
    order = order[sizes[order] > 1]  # what is said of single rows holds for any feature
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[order[: 1 + int(np.searchsorted(np.cumsum(sizes[order]), _SCREENED_ROWS))]] = True
    rows = np.flatnonzero(chosen[codes])
    rows = rows[np.argsort(codes[rows], kind="stable")]
    return _Groups(rows, codes[rows])


def _may_be_mean(values: np.ndarray, label: np.ndarray, known: np.ndarray, groups: _Groups, spread: float) -> bool:
    """Whether some groups leave it open that a feature is their mean, or the mean of the others for each row."""
    use = known[groups.rows]
    rows, group = groups.rows[use], groups.group[use]
    if not len(rows):
        return True
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    counts = np.diff(np.append(starts, len(rows)))
    f, y, bound = values[rows], label[rows], _EXACT * spread
    differ = _span(f, starts)
    if (differ[counts > 1] <= bound).all():
        return True
    as_others = _span(f * (np.repeat(counts, counts) - 1) + y, starts) / counts
    return bool((as_others[(counts > 2) & (differ > 0)] <= bound).all())


def _may_be_mean_of_equals(feature: pl.Series, label: np.ndarray, known: np.ndarray, spread: float) -> bool:
    """Whether the rows of some values leave it open that each value is the mean label of the rows that have it."""
    there = feature.filter(pl.Series(known))
    drawn = there.sample(min(len(there), _SCREENED_ROWS // 5), seed=SEED)
    some = (feature.is_in(drawn.unique().implode()).fill_null(value=False)).to_numpy() & known
    values, group, counts = np.unique(feature.to_numpy()[some], return_inverse=True, return_counts=True)
    several = counts > 1
    in_several = several[np.searchsorted(values, drawn.to_numpy())].mean()
    if in_several < _SMALLEST_SHARE / 2:  # of a thousand rows: by chance never, if it is the wanted share of all
        return False
    counts, sums = counts[several], np.bincount(group, label[some])[several]
    residual = _unexplained(values[several], counts, sums)
    # What the best line for all groups leaves of some of them, the best one for these leaves less of in sum.
    bound = _EXACT * spread * float(np.sqrt((counts.astype(np.float64) ** 2).sum()))
    return bool((np.abs(residual) <= bound).all())


def _span(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Largest less smallest value of each group of neighbours."""
    span: np.ndarray = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
    return span


def _unexplained(means: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """What a line leaves of n·mean − sum, which is 0 of a mean, and m·(prior − mean) of one drawn to a prior by m."""
    left = counts * means - sums
    design = np.column_stack([means, np.ones(len(means))])
    residual: np.ndarray = left - design @ np.linalg.lstsq(design, left, rcond=None)[0]
    return residual


def _group_sums(table: pl.DataFrame, key: str) -> pl.DataFrame:
    # The sum of a group, as each of its rows sees it from the others.
    total = pl.col("f") * (pl.len() - 1) + pl.col("y")
    return table.group_by(key).agg(
        pl.len().alias("n"),
        pl.col("y").sum().alias("sum"),
        pl.col("f").first().alias("mean"),
        (pl.col("f").max() - pl.col("f").min()).alias("differ"),
        ((total.max() - total.min()) / pl.len()).alias("differ_as_others"),
    )


def _is_group_mean(sums: pl.DataFrame, rows: int, spread: float) -> bool:
    several = sums.filter(pl.col("n") > 1)
    if several.height < _FEWEST_GROUPS or several["n"].sum() < _SMALLEST_SHARE * rows:
        return False
    if np.std((several["sum"] / several["n"]).to_numpy()) < 0.05 * spread:  # all groups alike: any number fits
        return False
    if (several["differ"].to_numpy() > _EXACT * spread).any():
        return False
    counts = several["n"].to_numpy()
    residual = _unexplained(several["mean"].to_numpy(), counts, several["sum"].to_numpy())
    return bool((np.abs(residual / counts) <= _EXACT * spread).all())


def _is_mean_of_others(sums: pl.DataFrame, spread: float) -> bool:
    several = sums.filter(pl.col("n") > 2, pl.col("differ") > 0)
    differ = several["differ_as_others"].to_numpy()
    return len(differ) >= _FEWEST_GROUPS and bool((differ <= _EXACT * spread).all())


def _is_the_label(table: pl.DataFrame) -> bool:
    """Whether the values are those of the label itself, which is another finding."""
    return squared_correlation(table["f"].to_numpy(), table["y"].to_numpy()) > 1 - _EXACT
