"""What order in time and groups say about a feature: a later row's label, or a mean that holds the row's own.

Also how well a label is predicted by the one before it, which tells a slow series from a feature that knows too much.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ml_platform.features.training_sets.leakage.measures import (
    FEWEST_ROWS,
    Floats,
    label_auc,
    numbers_of,
    squared_correlation,
)

_SHIFTS = 48  # rows, to both sides, in which a feature is looked for among the labels
_FEWEST_GROUPS = 10
_GROUP_KEYS = 6  # categorical features by which rows are grouped
_EXACT = 1e-6  # of the label's standard deviation: what rounding leaves between a mean and itself


def orders(rows: pl.DataFrame, timestamp: str, groups: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield orders of the rows by time: of all, and within the values of each group; with each row's group."""
    yield rows.get_column(timestamp).arg_sort().to_numpy(), np.zeros(rows.height, dtype=np.int64)
    for name in group_keys(rows, groups):
        order = rows.select(pl.arg_sort_by([name, timestamp])).to_series().to_numpy()
        codes = rows.get_column(name).cast(pl.String).fill_null("").rank("dense").to_numpy()[order]
        yield order, codes.astype(np.int64)


def group_keys(rows: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Columns that hold several rows of several groups, those with the most groups first."""
    counts = {name: rows.get_column(name).n_unique() for name in names}
    usable = [name for name, count in counts.items() if 2 <= count <= rows.height / 3]
    return sorted(usable, key=lambda name: -counts[name])[:_GROUP_KEYS]


def persistence(label: Floats, ordered: Sequence[tuple[np.ndarray, np.ndarray]], *, is_class: bool) -> float:
    """R² or AUC of the previous row's label for a row's own, in the best of the orders."""
    best = 0.0
    for order, group in ordered:
        values = label[order]
        same = group[1:] == group[:-1]
        before, after = values[:-1][same], values[1:][same]
        if len(after) >= FEWEST_ROWS:
            best = max(best, label_auc(before, after) if is_class else squared_correlation(before, after))
    return best


def later_label(
    feature: pl.Series, label: Floats, ordered: Sequence[tuple[np.ndarray, np.ndarray]], bound: float
) -> tuple[int, float] | None:
    """Find how many rows later a feature is the label, if it is more so than of the row itself or an earlier one.

    Returns
    -------
    tuple or None
        Rows later, and the R² of feature and label there; None where the best is below `bound`, or not of a later row.
    """
    numbers = numbers_of(feature)
    best: tuple[float, int] = (0.0, 0)
    for order, group in ordered:
        x, y = numbers[order], label[order]
        for shift in range(-_SHIFTS, _SHIFTS + 1):
            here, there = slice(max(-shift, 0), len(y) - max(shift, 0)), slice(max(shift, 0), len(y) + min(shift, 0))
            use = (group[here] == group[there]) & ~np.isnan(x[here])
            if use.sum() >= FEWEST_ROWS:
                best = max(best, (squared_correlation(x[here][use], y[there][use]), shift))
    value, shift = best
    return (shift, value) if shift > 0 and value >= bound else None


def holds_own_label(frame: pl.DataFrame, name: str, label: pl.Series, groups: Sequence[str]) -> bool:
    """Tell whether a feature is the mean label of a group that the row itself is in, or that of all others of it.

    Such a target encoding made of the rows that are trained on knows the label of small groups. Found by its values, of
    any grouping, also where it is drawn towards a prior; and by the given groups where each row leaves itself out.
    """
    # Numbered, since a column may be called as one of those here.
    keys = {f"group {number}": frame.get_column(group) for number, group in enumerate(group_keys(frame, groups))}
    table = pl.DataFrame({"f": frame.get_column(name).cast(pl.Float64), "y": label.cast(pl.Float64), **keys}).filter(
        pl.col("f").is_finite() & pl.col("y").is_finite()
    )
    spread = table["y"].std()
    if table.height < FEWEST_ROWS or not isinstance(spread, float) or spread == 0.0 or _is_the_label(table):
        return False
    grouped = [_group_sums(table, key) for key in keys]
    return any(_is_mean_of_others(sums, spread) for sums in grouped) or any(
        _is_group_mean(sums, table.height, spread) for sums in (*grouped, _group_sums(table, "f"))
    )


def _group_sums(table: pl.DataFrame, key: str) -> pl.DataFrame:
    total = pl.col("f") * (pl.len() - 1) + pl.col(
        "y"
    )  # the sum of a group, as each of its rows sees it from the others
    return table.group_by(key).agg(
        pl.len().alias("n"),
        pl.col("y").sum().alias("sum"),
        pl.col("f").first().alias("mean"),
        (pl.col("f").max() - pl.col("f").min()).alias("differ"),
        ((total.max() - total.min()) / pl.len()).alias("differ_as_others"),
    )


def _is_group_mean(sums: pl.DataFrame, rows: int, spread: float) -> bool:
    several = sums.filter(pl.col("n") > 1)
    if several.height < _FEWEST_GROUPS or several["n"].sum() < 0.2 * rows:
        return False
    if np.std((several["sum"] / several["n"]).to_numpy()) < 0.05 * spread:  # all groups alike: any number fits
        return False
    if (several["differ"].to_numpy() > _EXACT * spread).any():
        return False
    # n·mean − sum is 0 of a plain mean, and m·(prior − mean) of one that is drawn towards a prior by a weight m.
    means, counts = several["mean"].to_numpy(), several["n"].to_numpy()
    left = counts * means - several["sum"].to_numpy()
    design = np.column_stack([means, np.ones(len(means))])
    residual = left - design @ np.linalg.lstsq(design, left, rcond=None)[0]
    return bool((np.abs(residual / counts) <= _EXACT * spread).all())


def _is_mean_of_others(sums: pl.DataFrame, spread: float) -> bool:
    several = sums.filter(pl.col("n") > 2, pl.col("differ") > 0)
    differ = several["differ_as_others"].to_numpy()
    return len(differ) >= _FEWEST_GROUPS and bool((differ <= _EXACT * spread).all())


def _is_the_label(table: pl.DataFrame) -> bool:
    """Whether the values are those of the label itself, which is another finding."""
    return squared_correlation(table["f"].to_numpy(), table["y"].to_numpy()) > 1 - _EXACT
