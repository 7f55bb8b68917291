"""Time-ordered split of a training set: no row is judged by a model that could have known its future."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import polars as pl

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import SplitBounds, Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Parts:
    """Rows of the three parts, each sorted by timestamp and id."""

    train: pl.DataFrame
    validation: pl.DataFrame
    holdout: pl.DataFrame
    bounds: SplitBounds


def read_rows(lake: Lake, spec: ModelSpec, ref: TrainingSetRef) -> pl.DataFrame:
    """Read a training set at its pinned version, sorted by timestamp and id so that training is repeatable."""
    return lake.read(ref.table, version=ref.version).sort(spec.timestamp, spec.id).collect()


@dataclass(frozen=True)
class TrainingRows:
    """A training set that was read once, and split: what search, training and evaluation take.

    Attributes
    ----------
    ref
        Document of the set.
    parts
        Its rows.
    """

    ref: TrainingSetRef
    parts: Parts

    @classmethod
    def read(cls, lake: Lake, spec: ModelSpec, ref: TrainingSetRef) -> Self:
        """Read a training set at its pinned version and split it (raises ValueError, see `split_by_time`)."""
        return cls(ref, split_by_time(lake.read(ref.table, version=ref.version).collect(), spec))


def split_by_time(frame: pl.DataFrame, spec: ModelSpec) -> Parts:
    """Split rows as `spec.split` says: … train | gap | validation | gap | holdout, ending at the newest row.

    A row belongs to training (or validation) only if its label was available before the next part's first row:
    otherwise the model would learn from what nobody knew yet at the time it is tested on.

    Parameters
    ----------
    frame
        Labelled rows with `spec.timestamp` and `spec.label_available_at` (both UTC).

    Raises
    ------
    ValueError
        When a part is left without rows, naming what the split wants and what the data spans.
    """
    split, at, known = spec.split, _microseconds(spec.timestamp), pl.col(spec.label_available_at)
    frame = frame.sort(spec.timestamp, spec.id)
    if frame.is_empty():
        raise ValueError(f"{spec.name}: the training set has no rows; materialise it over a longer range")
    last = _instant(frame, spec.timestamp, newest=True)
    holdout_from = _back(_ticks(last), split.holdout)
    validation_until = _back(holdout_from, split.gap)
    validation_from = _back(validation_until, split.validation)
    train_until = _back(validation_from, split.gap)
    holdout = frame.filter(at > holdout_from)
    validation = frame.filter((at > validation_from) & (at <= validation_until))
    train = frame.filter(at <= train_until)
    if split.history is not None:
        train = train.filter(at > _back(train_until, split.history))
    validation = _known_before(validation, known, holdout, spec)
    train = _known_before(train, known, validation, spec)
    for name, part in (("training", train), ("validation", validation), ("holdout", holdout)):
        if part.is_empty():
            first = _instant(frame, spec.timestamp, newest=False)
            raise ValueError(
                f"{spec.name}: no rows are left for the {name} part. The split wants {split.validation} of validation, "
                f"{split.holdout} of holdout and twice {split.gap} of gap before the training rows; the training set "
                f"has {frame.height} rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}. Materialise a longer range or "
                "shorten `split` in defs.yaml"
            )
    bounds = SplitBounds(train=window(train, spec), validation=window(validation, spec), holdout=window(holdout, spec))
    return Parts(train, validation, holdout, bounds)


def refit_rows(frame: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    """All labelled rows, by timestamp and id: as far back as training and validation parts together, where that ends.

    Parameters
    ----------
    frame
        The whole training set, as `split_by_time` takes it.
    """
    frame, split = frame.sort(spec.timestamp, spec.id), spec.split
    if split.history is None:
        return frame
    first = _ticks(_instant(frame, spec.timestamp, newest=True))
    for span in (split.history, split.gap, split.validation):
        first = _back(first, span)
    return frame.filter(_microseconds(spec.timestamp) > first)


def window(rows: pl.DataFrame, spec: ModelSpec) -> Window:
    """First and last timestamp of some rows, which must not be empty."""
    return Window(
        first=_instant(rows, spec.timestamp, newest=False),
        last=_instant(rows, spec.timestamp, newest=True),
        rows=rows.height,
    )


def _known_before(rows: pl.DataFrame, known: pl.Expr, following: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    if following.is_empty():
        return rows
    return rows.filter(known < _instant(following, spec.timestamp, newest=False))


def _microseconds(column: str) -> pl.Expr:
    """Instants as microseconds since 1970: of these a span of any length can be taken."""
    return pl.col(column).dt.epoch("us")


def _ticks(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _back(ticks: int, span: timedelta) -> int:
    """Go back by a span, at most to what is before every instant of 64 bits."""
    return max(ticks - span // timedelta(microseconds=1), -(2**63))


def _instant(rows: pl.DataFrame, column: str, *, newest: bool) -> datetime:
    values = rows.get_column(column)
    found = values.max() if newest else values.min()
    if not isinstance(found, datetime):
        raise ValueError(f"column '{column}': wanted timestamps (UTC), found {values.dtype}; correct the spine")
    return found
