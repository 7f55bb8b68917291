"""Columns as real tables have them, clean and dirty: what drift must neither cry wolf on nor be blinded by."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from ml_platform.monitoring.drift.column_tests import Kind
from ml_platform.monitoring.drift.comparison import DriftColumn

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


def _poisson(mean: float) -> Draw:
    return lambda rng, rows: rng.poisson(mean, rows).astype(float)


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
COLUMNS = [DriftColumn(name, "numeric") for name in NUMERIC] + [
    DriftColumn(name, "categorical") for name in CATEGORICAL
]


def _categories(shares: np.ndarray) -> Draw:
    return lambda rng, rows: rng.choice(len(shares), rows, p=shares / shares.sum())


def _ids(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 2**60, rows)


_rare = np.concatenate([[0.5, 0.3], np.full(100, 0.002)])  # none common enough to be compared by itself
_seldom = np.concatenate([[0.4, 0.3], np.full(20, 0.015)])


def _report(kind: Kind, draws: Mapping[str, Draw]) -> dict[str, tuple[Kind, Draw]]:
    return {name: (kind, one) for name, one in draws.items()}


# Reports whose columns are all of one kind, so that no other kind's tests share the significance; and the mixed one.
REPORTS: Mapping[str, Mapping[str, tuple[Kind, Draw]]] = {
    "normal": _report("numeric", {f"normal_{number}": _normal for number in range(12)}),
    "heavy tails": _report(
        "numeric",
        {
            f"{name}_{number}": NUMERIC[name]
            for name in ("cauchy", "lognormal", "sentinel_rare", "zeros", "prices", "infinite")
            for number in range(2)
        },
    ),
    "flags": _report(
        "numeric",
        {f"flag_{share}": _flag(share) for share in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5)},
    ),
    "few values": _report(
        "numeric",
        {f"poisson_{mean}": _poisson(mean) for mean in (0.05, 0.2, 0.5, 1, 2, 3, 4, 5)},
    ),
    "rare categories": _report(
        "categorical",
        {
            "zipf_50": _zipf(50),
            "zipf_300": _zipf(300),
            "zipf_1000": _zipf(1_000),
            "rare": _categories(_rare),
            "seldom": _categories(_seldom),
            "few": _categories(np.array([0.9, 0.05, 0.02, 0.01, 0.01, 0.005, 0.005])),
        },
    ),
    "uniform 5,000": _report("categorical", {f"uniform_{number}": CATEGORICAL["levels_5000"] for number in range(5)}),
    "ids": _report(
        "categorical",
        {
            "ids": _ids,
            "other_ids": _ids,
            "long_tail": CATEGORICAL["long_tail"],
            "longer_tail": lambda rng, rows: rng.zipf(1.3, rows),
        },
    ),
    "mixed": {**_report("numeric", NUMERIC), **_report("categorical", CATEGORICAL)},
}


def report_columns(name: str) -> list[DriftColumn]:
    """What a report compares."""
    return [DriftColumn(column, kind) for column, (kind, _) in REPORTS[name].items()]


def draw_report(name: str, rng: np.random.Generator, rows: int) -> pl.DataFrame:
    """Rows of a report, its columns independent."""
    columns = {}
    for column, (kind, values) in REPORTS[name].items():
        drawn = values(rng, rows)
        columns[column] = drawn.astype(str) if kind == "categorical" else drawn
    return pl.DataFrame(columns)


def draw(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    """Independent columns of every kind."""
    numbers = {name: column(rng, rows) for name, column in NUMERIC.items()}
    texts = {name: column(rng, rows).astype(str) for name, column in CATEGORICAL.items()}
    return pl.DataFrame({**numbers, **texts})
