"""The bounds of a training set's parts, found without holding its rows: instants, and when labels were known."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import SplitBounds, Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RowRange:
    """Rows of a training set by their instant, and by when their label was known.

    Attributes
    ----------
    after, until
        Microseconds since 1970 between which the instant lies, the first excluded; None for no bound.
    known_before
        Instant before which the label was available; None for no bound.
    """

    after: int | None = None
    until: int | None = None
    known_before: datetime | None = None

    def where(self, spec: ModelSpec) -> pl.Expr:
        """Condition of these rows."""
        at, condition = _microseconds(spec.timestamp), pl.lit(value=True)
        if self.after is not None:
            condition &= at > self.after
        if self.until is not None:
            condition &= at <= self.until
        if self.known_before is not None:
            condition &= pl.col(spec.label_available_at) < self.known_before
        return condition


@dataclass(frozen=True)
class Cuts:
    """Which rows belong to the three parts of a training set."""

    train: RowRange
    validation: RowRange
    holdout: RowRange
    bounds: SplitBounds


def cut_by_time(rows: pl.LazyFrame, spec: ModelSpec) -> Cuts:
    """Find the bounds of the three parts of `split_by_time`, without holding the rows (raises ValueError, see there).

    Parameters
    ----------
    rows
        Labelled rows, of which only the two columns of instants are read.
    """
    split, whole = spec.split, find_window(rows, spec)
    if whole is None:
        raise ValueError(f"{spec.name}: the training set has no rows; materialise it over a longer range")
    holdout_from = _back(_ticks(whole.last), split.holdout)
    validation_until = _back(holdout_from, split.gap)
    validation_from = _back(validation_until, split.validation)
    train_until = _back(validation_from, split.gap)
    train_from = None if split.history is None else _back(train_until, split.history)
    parts: dict[str, tuple[RowRange, Window | None]] = {}
    following: Window | None = None
    for name, after, until in (
        ("holdout", holdout_from, None),
        ("validation", validation_from, validation_until),
        ("training", train_from, train_until),
    ):
        part = RowRange(after, until, None if following is None else following.first)
        following = find_window(rows.filter(part.where(spec)), spec)
        parts[name] = part, following
    ranges, windows = {}, {}
    for name in ("training", "validation", "holdout"):
        ranges[name], found = parts[name]
        if found is None:
            raise ValueError(
                f"{spec.name}: no rows are left for the {name} part. The split wants {split.validation} of validation, "
                f"{split.holdout} of holdout and twice {split.gap} of gap before the training rows; the training set "
                f"has {whole.rows} rows from {whole.first:%Y-%m-%d} to {whole.last:%Y-%m-%d}. Materialise a longer "
                "range or shorten `split` in defs.yaml"
            )
        windows[name] = found
    bounds = SplitBounds(train=windows["training"], validation=windows["validation"], holdout=windows["holdout"])
    return Cuts(ranges["training"], ranges["validation"], ranges["holdout"], bounds)


def refit_range(newest: datetime, spec: ModelSpec) -> RowRange:
    """Rows of `refit_rows`, where `newest` is the last instant of the training set."""
    split = spec.split
    if split.history is None:
        return RowRange()
    first = _ticks(newest)
    for span in (split.history, split.gap, split.validation):
        first = _back(first, span)
    return RowRange(after=first)


def find_window(rows: pl.LazyFrame, spec: ModelSpec) -> Window | None:
    """First and last timestamp of some rows that are not held; None where there are none."""
    at = pl.col(spec.timestamp)
    found = rows.select(first=at.min(), last=at.max(), rows=pl.len()).collect(engine="streaming")
    if not found.item(0, "rows"):
        return None
    first, last = (instant_of(found, name, newest=True, shown=spec.timestamp) for name in ("first", "last"))
    return Window(first=first, last=last, rows=found.item(0, "rows"))


def _microseconds(column: str) -> pl.Expr:
    """Instants as microseconds since 1970: of these a span of any length can be taken."""
    return pl.col(column).dt.epoch("us")


def _ticks(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _back(ticks: int, span: timedelta) -> int:
    """Go back by a span, at most to what is before every instant of 64 bits."""
    return max(ticks - span // timedelta(microseconds=1), -(2**63))


def instant_of(rows: pl.DataFrame, column: str, *, newest: bool, shown: str = "") -> datetime:
    """Newest or oldest instant of a column (raises ValueError for other values)."""
    values = rows.get_column(column)
    found = values.max() if newest else values.min()
    if not isinstance(found, datetime):
        raise ValueError(f"column '{shown or column}': wanted timestamps (UTC), found {values.dtype}; correct the spine")
    return found
