"""Columns as real tables have them, clean and dirty: what drift must neither cry wolf on nor be blinded by."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from ml_platform.monitoring.comparison import Column

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _with(share: float, value: float, draw: Draw) -> Draw:
    """Some of the values replaced by one."""

    def drawn(rng: np.random.Generator, rows: int) -> np.ndarray:
        return np.where(rng.random(rows) < share, value, draw(rng, rows))

    return drawn


def _normal(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=rows)


def _flag(share: float) -> Draw:
    return lambda rng, rows: (rng.random(rows) < share).astype(float)


def _zipf(levels: int) -> Draw:
    weights = 1 / np.arange(1, levels + 1)
    return lambda rng, rows: rng.choice(levels, rows, p=weights / weights.sum())


NUMERIC: Mapping[str, Draw] = {
    "normal": _normal,
    "lognormal": lambda rng, rows: rng.lognormal(0, 1, rows),
    "cauchy": lambda rng, rows: rng.standard_cauchy(rows),
    "uniform": lambda rng, rows: rng.uniform(size=rows),
    "tiny": lambda rng, rows: rng.normal(0, 1e-5, rows),
    "large_offset": lambda rng, rows: 1e9 + rng.normal(size=rows),
    "integer_few": lambda rng, rows: rng.poisson(3, rows).astype(float),
    "integer_many": lambda rng, rows: rng.poisson(40, rows).astype(float),
    "rounded": lambda rng, rows: np.round(rng.normal(size=rows), 1),
    "prices": lambda rng, rows: np.round(rng.lognormal(3, 1, rows), 2),
    "flag_rare": _flag(0.001),
    "flag_1": _flag(0.01),
    "flag_50": _flag(0.5),
    "sentinel": _with(0.01, -999.0, _normal),
    "sentinel_rare": _with(0.001, 1e6, _normal),
    "zeros": _with(0.9, 0.0, lambda rng, rows: rng.lognormal(0, 1, rows)),
    "missing": _with(0.02, np.nan, _normal),
    "infinite": _with(0.01, np.inf, _normal),
    "constant": lambda rng, rows: np.full(rows, 0.3),
    "float_noise": lambda rng, rows: np.where(rng.random(rows) < 0.2, 0.1 + 0.2, 0.3),
}
CATEGORICAL: Mapping[str, Draw] = {
    "levels_5": _zipf(5),
    "levels_50": _zipf(50),
    "levels_300": _zipf(300),
    "levels_5000": lambda rng, rows: rng.integers(0, 5_000, rows),
    "long_tail": lambda rng, rows: rng.zipf(1.6, rows),
    "ids": lambda rng, rows: rng.integers(0, 2**60, rows),
}
COLUMNS = [Column(name, "numeric") for name in NUMERIC] + [Column(name, "categorical") for name in CATEGORICAL]


def draw(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    """Independent columns of every kind."""
    numbers = {name: column(rng, rows) for name, column in NUMERIC.items()}
    texts = {name: column(rng, rows).astype(str) for name, column in CATEGORICAL.items()}
    return pl.DataFrame({**numbers, **texts})
