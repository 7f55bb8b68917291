"""The backtest: code that runs here and is copied into notebooks as it stands."""

import numpy as np
import polars as pl


def bar_forecasts(rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """Forecasts that need no model: the newest value at the place in the season, and the mean of the series so far.

    Where that value is missing the seasonal naive takes the one a season before, then means.
    """
    naive = pl.coalesce("same_1", "same_2", "same_mean", "mean_4", "mean_all")
    return {
        "seasonal_naive": rows.select(naive).to_series().to_numpy(),
        "series_mean": rows.get_column("mean_all").to_numpy(),
    }


def known_rows(rows: pl.DataFrame, origin: int, stride: int, last: int) -> np.ndarray:
    """Numbers of the rows that training may see at an origin: those whose target's period had ended by then.

    Of their origins every `stride`-th is taken, counted back from the period `last`.
    """
    is_known = (pl.col("target_period") <= origin) & ((last - pl.col("origin")) % stride == 0)
    return rows.select(is_known.arg_true()).to_series().to_numpy().astype(np.int64)


def rows_of_origins(rows: pl.DataFrame, origins: list[int]) -> np.ndarray:
    """Numbers of the rows of some origins."""
    return rows.select(pl.col("origin").is_in(origins).arg_true()).to_series().to_numpy().astype(np.int64)
