"""Time-ordered split of a training set: no row is judged by a model that could have known its future."""

from dataclasses import dataclass
from typing import Self

import polars as pl

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.cuts import Cuts, cut_by_time, instant_of, refit_range
from ml_platform.training.data.stored_rows import StoredRows, held_rows
from ml_platform.training.documents import SplitBounds, Window


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
        Its rows; of those of the training part only the newest, where the rest stays in the lake.
    stored, cuts
        The whole set and the bounds of its parts, where it is to be trained on by several workers.
    """

    ref: TrainingSetRef
    parts: Parts
    stored: StoredRows | None = None
    cuts: Cuts | None = None

    @classmethod
    def read(cls, lake: Lake, spec: ModelSpec, ref: TrainingSetRef) -> Self:
        """Read a training set at its pinned version and split it (raises ValueError, see `split_by_time`)."""
        stored = StoredRows.of(lake, spec, ref)
        if stored is None:
            return cls(ref, split_by_time(lake.read(ref.table, version=ref.version).collect(), spec))
        cuts = cut_by_time(stored.scan(), spec)
        train = stored.newest(cuts.train, held_rows(spec))
        validation, holdout = stored.read(cuts.validation), stored.read(cuts.holdout)
        return cls(ref, Parts(train, validation, holdout, cuts.bounds), stored, cuts)


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
    cuts, frame = cut_by_time(frame.lazy(), spec), frame.sort(spec.timestamp, spec.id)
    train, validation, holdout = (
        frame.filter(part.where(spec)) for part in (cuts.train, cuts.validation, cuts.holdout)
    )
    return Parts(train, validation, holdout, cuts.bounds)


def refit_rows(frame: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    """All labelled rows, by timestamp and id: as far back as training and validation parts together, where that ends.

    Parameters
    ----------
    frame
        The whole training set, as `split_by_time` takes it.
    """
    newest = instant_of(frame, spec.timestamp, newest=True)
    return frame.sort(spec.timestamp, spec.id).filter(refit_range(newest, spec).where(spec))


def window(rows: pl.DataFrame, spec: ModelSpec) -> Window:
    """First and last timestamp of some rows, which must not be empty."""
    return Window(
        first=instant_of(rows, spec.timestamp, newest=False),
        last=instant_of(rows, spec.timestamp, newest=True),
        rows=rows.height,
    )
