"""A training set that stays in the lake: of its rows only those are held that somebody asks for."""

from dataclasses import dataclass
from typing import Final, Self

import polars as pl

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.training_sets.sampling import sample_filter
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.cuts import RowRange

CHECKED_ROWS: Final = 400_000
HELD_ROWS: Final = 200_000  # newest training rows that are searched on, where `tuning.sample_rows` is absent


@dataclass(frozen=True)
class StoredRows:
    """The pinned version of a training set's table.

    Attributes
    ----------
    lake
        Where the table is; also workers on other machines can read it.
    spec
        The model.
    ref
        Document of the set.
    """

    lake: Lake
    spec: ModelSpec
    ref: TrainingSetRef

    @classmethod
    def of(cls, lake: Lake, spec: ModelSpec, ref: TrainingSetRef) -> Self | None:
        """Give the handle of a set that several workers are to train on; None for one that this process is to hold."""
        return cls(lake, spec, ref) if spec.training.distributes(ref.rows * len(ref.features)) else None

    def scan(self) -> pl.LazyFrame:
        """Scan the rows lazily, in the order of the table."""
        return self.lake.read(self.ref.table, version=self.ref.version)

    def read(self, rows: RowRange) -> pl.DataFrame:
        """Read some rows, by timestamp and id."""
        spec = self.spec
        return self.scan().filter(rows.where(spec)).collect(engine="streaming").sort(spec.timestamp, spec.id)

    def newest(self, rows: RowRange, count: int) -> pl.DataFrame:
        """Read the newest of some rows that count in fitting, by timestamp and id."""
        spec = self.spec
        kept = self.scan().filter(rows.where(spec))
        if spec.weight is not None:
            kept = kept.filter(pl.col(spec.weight) > 0)
        by = [spec.timestamp, spec.id]
        return kept.top_k(count, by=by).collect(engine="streaming").sort(by)


def rows_to_check(lake: Lake, spec: ModelSpec, ref: TrainingSetRef) -> tuple[pl.LazyFrame, pl.DataFrame]:
    """Give all rows of a training set lazily, and those that are held to look for leaks in, oldest first.

    Of a set that several workers are to train on these are the newest, and as many of the others by chance, up to
    `CHECKED_ROWS` together; else all.
    """
    stored = StoredRows.of(lake, spec, ref)
    if stored is None:
        frame = lake.read(ref.table, version=ref.version).collect()
        return frame.lazy(), frame
    rows, half = stored.scan(), CHECKED_ROWS // 2
    newest = stored.newest(RowRange(), half)
    if newest.height == ref.rows:
        return rows, newest
    older = rows.join(newest.lazy().select(spec.id), on=spec.id, how="anti")
    share = min(1.0, half / (ref.rows - newest.height))
    drawn = older.filter(sample_filter(pl.col(spec.id), share * spec.sample)).collect(engine="streaming")
    return rows, pl.concat([drawn.sort(spec.timestamp, spec.id), newest])


def held_rows(spec: ModelSpec) -> int:
    """How many of the training rows are held for the search."""
    return spec.tuning.sample_rows or HELD_ROWS
