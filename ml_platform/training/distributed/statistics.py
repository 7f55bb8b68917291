"""What a fit must know of all its rows, gathered while they pass by: counts, classes, weights, categories."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from ml_platform.inference.matrix import FeatureEncoder, choose_categories, encode_labels, label_classes
from ml_platform.registry.manifest import Label
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.cuts import RowRange, instant_of
from ml_platform.training.data.stored_rows import StoredRows
from ml_platform.training.distributed.slices import Slice, read_slices
from ml_platform.training.documents import Window
from ml_platform.training.objective import row_weights, weighted_rows

_VALUE, _ROWS, _SUM = "value", "rows", "sum"
_PENDING_VALUES = 200_000  # of a feature, as they come from batches, that are folded into one another


@dataclass
class RowStatistics:
    """Sums over the rows of some ranges that count in fitting.

    Attributes
    ----------
    slices
        Of the table.
    counts
        Rows of each range (first axis) in each slice (second).
    label_rows, label_weights
        Classifiers: label → its rows and the sum of their weights.
    label_sum, weight_sum
        Sums over all rows: of the labels, unless there are several classes, and of the weights.
    values
        Categorical feature → frames of its values with their rows and sum of labels.
    instants
        The first and the last timestamp; empty where there are no rows.
    """

    slices: Sequence[Slice]
    counts: np.ndarray
    label_rows: dict[Label, int] = field(default_factory=dict)
    label_weights: dict[Label, float] = field(default_factory=dict)
    label_sum: float = 0.0
    weight_sum: float = 0.0
    values: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    instants: list[datetime] = field(default_factory=list)

    @property
    def window(self) -> Window:
        """First and last instant, and how many rows there are."""
        first, last = self.instants
        return Window(first=first, last=last, rows=self.rows)

    @property
    def rows(self) -> int:
        """Rows of all ranges."""
        return int(self.counts.sum())

    @property
    def labels(self) -> tuple[Label, ...]:
        """Classes that occur, in their order."""
        return tuple(sorted(self.label_rows))

    def encoder(self, stored: StoredRows) -> FeatureEncoder:
        """Make the encoder that `FeatureEncoder.fit` would make of these rows."""
        is_multiclass, categories = stored.spec.task == "multiclass", {}
        for name, frames in self.values.items():
            known = _folded(frames).sort(_VALUE)
            categories[name] = choose_categories(
                known.get_column(_VALUE).to_list(),
                known.get_column(_ROWS).to_numpy(),
                None if is_multiclass else known.get_column(_SUM).to_numpy(),
                self.label_sum / max(1, self.rows),
            )
        return FeatureEncoder.of_categories(stored.ref.features, categories)

    def add(self, rows: pl.DataFrame, spec: ModelSpec) -> None:
        """Add rows that count to all sums but the counts (raises ValueError for a label that is not the task's)."""
        labels, weights = rows.get_column(spec.target), row_weights(rows, spec)
        classes = label_classes(labels) if spec.task == "multiclass" else ()
        y = encode_labels(labels, spec, classes)
        at = [instant_of(rows, spec.timestamp, newest=newest) for newest in (False, True)]
        self.instants = [min(at + self.instants), max(at + self.instants)]
        self.weight_sum += float(len(y) if weights is None else weights.sum())
        if spec.task != "multiclass":
            self.label_sum += float(y.sum())
        if spec.task != "regression":
            names: Sequence[Label] = classes or (0, 1)
            sizes = np.bincount(y.astype(np.int64), minlength=len(names))
            totals = np.bincount(y.astype(np.int64), weights=weights, minlength=len(names))
            for name, size, total in zip(names, sizes.tolist(), totals.tolist(), strict=True):
                if size:
                    self.label_rows[name] = self.label_rows.get(name, 0) + size
                    self.label_weights[name] = self.label_weights.get(name, 0.0) + total
        for name, frames in self.values.items():
            value = rows.select(pl.col(name).cast(pl.String).alias(_VALUE), pl.Series(_SUM, y)).drop_nulls(_VALUE)
            frames.append(value.group_by(_VALUE).agg(pl.len().cast(pl.Int64).alias(_ROWS), pl.col(_SUM).sum()))
            if sum(frame.height for frame in frames) > _PENDING_VALUES + 2 * frames[0].height:
                frames[:] = [_folded(frames)]


def row_statistics(stored: StoredRows, slices: Sequence[Slice], ranges: Sequence[RowRange]) -> RowStatistics:
    """Read the labels, weights and categories of some ranges of rows once, some ten thousand rows at a time.

    Parameters
    ----------
    stored
        The training set.
    slices
        Of its table.
    ranges
        Rows to fit, without those of weight 0; they do not overlap.

    Raises
    ------
    ValueError
        When a label is not one of the task's, or the categorical features are no strings.
    """
    spec = stored.spec
    categorical = [info.name for info in stored.ref.features if info.kind == "categorical"]
    found = RowStatistics(slices, np.zeros((len(ranges), len(slices)), dtype=np.int64))
    found.values = {name: [_NO_VALUES] for name in categorical}
    columns = [*fit_columns(spec), *categorical]
    for position, frame in read_slices(stored.lake, stored.ref.table, slices, columns):
        usable = weighted_rows(frame, spec)
        for number, rows in enumerate(ranges):
            part = usable.filter(rows.where(spec))
            if part.height:
                found.counts[number, position] += part.height
                found.add(part, spec)
    return found


def fit_columns(spec: ModelSpec) -> list[str]:
    """Columns that are read beside the features: what decides whether a row is fitted, and how."""
    named = [spec.timestamp, spec.label_available_at, spec.target, *([spec.weight] if spec.weight else [])]
    return list(dict.fromkeys(named))


_NO_VALUES = pl.DataFrame(schema={_VALUE: pl.String, _ROWS: pl.Int64, _SUM: pl.Float64})


def _folded(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by(_VALUE).agg(pl.col(_ROWS).sum(), pl.col(_SUM).sum())
