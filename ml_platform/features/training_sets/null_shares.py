"""Shares of nulls of a training set's features, against those of the last set that was accepted.

A jump says that an input was incomplete when the set was made. All rows are compared, and the newest ones by
themselves: what is missing from a few recent weeks hardly shows in years.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import polars as pl

from ml_platform.instants import bounded
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import InputChecks

TABLE = "governance/training_inputs"
Part = Literal["all rows", "newest rows"]
_SCHEMA: dict[str, Any] = {
    "model": pl.String(),
    "version": pl.Int64(),  # of the training set's table
    "part": pl.String(),
    "feature": pl.String(),
    "rows": pl.Int64(),
    "nulls": pl.Int64(),
    "accepted_at": pl.Datetime("us", "UTC"),
}


class NullCount(NamedTuple):
    """How many of some rows have no value of a feature."""

    part: Part
    feature: str
    rows: int
    nulls: int

    @property
    def share(self) -> float:
        """Share of nulls."""
        return self.nulls / max(self.rows, 1)


class NullJump(NamedTuple):
    """A feature whose share of nulls rose by more than chance and by more than is allowed."""

    now: NullCount
    before: NullCount
    p_value: float

    @property
    def reason(self) -> str:
        """What rose by how much."""
        now, before = self.now, self.before
        words = f"{'all' if now.part == 'all rows' else 'the newest'} {now.rows:,}"
        return (
            f"{now.feature}: {now.share:.1%} of {words} rows are null, in the last accepted set "
            f"{before.share:.1%} of {before.rows:,}"
        )


def count_nulls(
    frame: pl.DataFrame | pl.LazyFrame, features: Sequence[str], *, timestamp: str, newest: timedelta
) -> list[NullCount]:
    """Count nulls (and NaN) of features in all rows, and in those of a span up to the newest timestamp."""
    rows = frame.lazy()
    types, at = rows.collect_schema(), pl.col(timestamp)
    is_recent = at > at.max() - bounded(newest)
    is_null = {
        name: pl.col(name).fill_nan(None).is_null() if types[name].is_float() else pl.col(name).is_null()
        for name in features
    }
    counts = rows.select(
        pl.len().alias("all rows"),
        is_recent.sum().alias("newest rows"),
        *(nulls.sum().alias(f"all rows/{name}") for name, nulls in is_null.items()),
        *((nulls & is_recent).sum().alias(f"newest rows/{name}") for name, nulls in is_null.items()),
    ).collect(engine="streaming")
    parts: tuple[Part, ...] = ("all rows", "newest rows")
    return [
        NullCount(part, name, counts.item(0, part), counts.item(0, f"{part}/{name}"))
        for part in parts
        for name in features
    ]


def last_accepted(lake: Lake, model: str) -> list[NullCount]:
    """Counts of the last accepted training set of a model; none before the first."""
    if not lake.exists(TABLE):
        return []
    rows = lake.read(TABLE).filter(pl.col("model") == model).collect()
    return [NullCount(*row) for row in rows.select("part", "feature", "rows", "nulls").iter_rows()]


def accept(lake: Lake, model: str, version: int, counts: Sequence[NullCount]) -> None:
    """Make a training set the one with which the next is compared."""
    now = datetime.now(UTC)
    rows = [{"model": model, "version": version, "accepted_at": now, **count._asdict()} for count in counts]
    where = f"model = '{model}'" if lake.exists(TABLE) else None
    lake.replace(TABLE, pl.DataFrame(rows, schema=_SCHEMA), where=where, partition_by=("model",), add_columns=True)


def find_jumps(now: Sequence[NullCount], before: Sequence[NullCount], limits: InputChecks) -> list[NullJump]:
    """Find the features whose share of nulls rose: a one-sided test of two proportions, and a minimal difference.

    Parameters
    ----------
    now, before
        Counts of this set and of the last accepted one.
    limits
        `max_null_increase`, `significance` over all comparisons (Bonferroni), `min_rows` of both sets.

    Examples
    --------
    >>> def counts(nulls):
    ...     return [NullCount("all rows", "weight", 1000, nulls)]
    >>> [jump.reason for jump in find_jumps(counts(800), counts(10), InputChecks())]
    ['weight: 80.0% of all 1,000 rows are null, in the last accepted set 1.0% of 1,000']
    >>> find_jumps(counts(40), counts(10), InputChecks())
    []
    """
    known = {(count.part, count.feature): count for count in before}
    pairs = [(count, known[count.part, count.feature]) for count in now if (count.part, count.feature) in known]
    pairs = [(new, old) for new, old in pairs if min(new.rows, old.rows) >= limits.min_rows]
    jumps = [NullJump(new, old, _p_value(new, old)) for new, old in pairs]
    return [
        jump
        for jump in jumps
        if jump.now.share - jump.before.share >= limits.max_null_increase
        and jump.p_value < limits.significance / len(pairs)
    ]


def wholly_null(counts: Sequence[NullCount]) -> list[str]:
    """Features without any value."""
    return [count.feature for count in counts if count.part == "all rows" and count.rows == count.nulls > 0]


def _p_value(now: NullCount, before: NullCount) -> float:
    """Probability of such a rise by chance, if rows are drawn from one population."""
    pooled = (now.nulls + before.nulls) / (now.rows + before.rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / now.rows + 1 / before.rows))
    return 1.0 if error == 0 else math.erfc((now.share - before.share) / error / math.sqrt(2)) / 2
