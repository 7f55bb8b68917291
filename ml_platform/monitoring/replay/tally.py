"""Sums over rows that come in batches: exact where sums can be, a bounded sample where rows themselves are needed."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ml_platform.monitoring.replay.documents import Difference
from ml_platform.spec.types import Task

_QUANTILES = {"p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_ALL = 2**64


class BoundedSample:
    """Rows whose key hashes low: the same ones whatever their order, and never more than about `most`.

    Examples
    --------
    >>> sample = BoundedSample(most=100)
    >>> for start in range(0, 1000, 10):
    ...     sample.add(pl.DataFrame({"key": range(start, start + 10)}).with_columns(hash=pl.col("key").hash(1)))
    >>> 25 < sample.rows().height <= 100, sample.is_whole
    (True, False)
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, _ALL
        self._frames: list[pl.DataFrame] = []
        self._held = 0

    @property
    def is_whole(self) -> bool:
        """Whether no row was left out."""
        return self._limit == _ALL

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows with the column `hash` (unsigned, 64 bits)."""
        kept = self._below(rows)
        self._frames.append(kept)
        self._held += kept.height
        while self._held > self._most:
            self._limit //= 2
            self._frames = [self._below(pl.concat(self._frames))]
            self._held = self._frames[0].height

    def rows(self) -> pl.DataFrame:
        """The sample; an empty frame without columns before the first row."""
        return pl.concat(self._frames) if self._frames else pl.DataFrame()

    def _below(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows if self.is_whole else rows.filter(pl.col("hash") < self._limit)


@dataclass
class Tally:
    """Differences between two versions' answers, summed up."""

    task: Task
    rows: int = 0
    weight: float = 0.0
    unscored: int = 0
    refused: int = 0
    answered: int = 0
    logged: int = 0
    logged_weight: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    incomparable: Counter[str] = field(default_factory=Counter)
    _sums: np.ndarray = field(default_factory=lambda: np.zeros(7))
    _largest: float = 0.0
    _changes: np.ndarray = field(default_factory=lambda: np.zeros(3))
    _sample: BoundedSample = field(default_factory=lambda: BoundedSample(100_000))

    def add(
        self, champion: np.ndarray, challenger: np.ndarray, weights: np.ndarray, decided: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Add finite scores of both, (rows,) or (rows × classes) over the same classes, with their decisions."""
        if not len(weights):
            return
        if self.task == "multiclass":
            apart = 0.5 * np.abs(challenger - champion).sum(axis=1)
        else:
            apart = challenger - champion
            moments = [champion, challenger, champion**2, challenger**2, champion * challenger]
            self._sums[2:] += [float(values @ weights) for values in moments]
        self.rows += len(weights)
        self.weight += float(weights.sum())
        self._sums[:2] += [float(apart @ weights), float(np.abs(apart) @ weights)]
        self._largest = max(self._largest, float(np.abs(apart).max()))
        before, after = decided
        changed = before != after
        turned = changed & (after == True) if self.task == "binary" else changed  # noqa: E712 - an array
        self._changes += [float(part @ weights) for part in (changed, turned, changed & ~turned)]
        number = pl.int_range(self.rows - len(weights), self.rows, eager=True)
        self._sample.add(pl.DataFrame({"apart": apart, "weight": weights, "hash": number.hash(seed=7)}))

    def difference(self) -> Difference | None:
        """What the rows come to; None without any."""
        if not self.rows or not self.weight:
            return None
        share = self._changes / self.weight
        decides = self.task != "regression"
        return Difference(
            rows=self.rows,
            weight=self.weight,
            mean=float(self._sums[0] / self.weight),
            mean_absolute=float(self._sums[1] / self.weight),
            largest=self._largest,
            quantiles=self._quantiles(),
            correlation=self._correlation(),
            changed=float(share[0]) if decides else None,
            to_true=float(share[1]) if self.task == "binary" else None,
            to_false=float(share[2]) if self.task == "binary" else None,
        )

    def _quantiles(self) -> dict[str, float]:
        rows = self._sample.rows().sort("apart")
        cumulative = rows.get_column("weight").cum_sum().to_numpy()
        values = rows.get_column("apart").to_numpy()
        places = {name: np.searchsorted(cumulative, at * cumulative[-1]) for name, at in _QUANTILES.items()}
        return {name: float(values[min(place, len(values) - 1)]) for name, place in places.items()}

    def _correlation(self) -> float | None:
        if self.task == "multiclass":
            return None
        one, other, one2, other2, both = self._sums[2:] / self.weight
        spread = (one2 - one**2) * (other2 - other**2)
        return float((both - one * other) / np.sqrt(spread)) if spread > 1e-24 else None
