"""When the rows of a source become known: what is left of a table when it is read as it was at an earlier instant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

UTC_MICROSECONDS = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Arrives:
    """When the rows of a table, or some of their columns, become known.

    Attributes
    ----------
    at
        Column with the instant (or the day, from midnight UTC) from which a row is there; None: rows are there from the
        beginning. A row without a value in it is there from the beginning, too.
    after
        How long after `at` that is.
    filled
        For rows that are completed later, as an order is by its delivery: column with an instant → columns that are
        null until then, as the instant itself is.

    Examples
    --------
    >>> from datetime import UTC
    >>> flights = pl.LazyFrame(
    ...     {"flight": [1, 2], "landed": [datetime(2013, 1, 1, 9, tzinfo=UTC), datetime(2013, 1, 1, 11, tzinfo=UTC)],
    ...      "delay": [5, 7]}
    ... )
    >>> Arrives(filled={"landed": ["delay"]}).known(flights, datetime(2013, 1, 1, 10, tzinfo=UTC)).collect()["delay"]
    ... # doctest: +NORMALIZE_WHITESPACE
    shape: (2,)
    Series: 'delay' [i64]
    [ 5 null ]
    """

    at: str | None = None
    after: timedelta = timedelta(0)
    filled: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def known(self, rows: pl.LazyFrame, instant: datetime) -> pl.LazyFrame:
        """Give a table as it was at an instant (with time zone).

        Raises
        ------
        AssertionError
            If the table has no such column, or one that is neither an instant nor a day.
        """
        schema = rows.collect_schema()
        if self.at is not None:
            rows = rows.filter((_instant(schema, self.at) + self.after <= instant).fill_null(value=True))
        for column, others in self.filled.items():
            is_known = (_instant(schema, column) <= instant).fill_null(value=True)
            rows = rows.with_columns(pl.when(is_known).then(pl.col(name)).alias(name) for name in (column, *others))
        return rows

    def instants(self, rows: pl.LazyFrame) -> pl.Series:
        """Every instant at which something in a table became known (UTC, microseconds), each once."""
        schema = rows.collect_schema()
        moments = [] if self.at is None else [_instant(schema, self.at) + self.after]
        moments += [_instant(schema, column) for column in self.filled]
        parts = [rows.select(moment.alias("instant")).collect().get_column("instant") for moment in moments]
        return pl.concat(parts).drop_nulls().unique() if parts else pl.Series("instant", [], dtype=UTC_MICROSECONDS)


def default_arrival(table: str, schema: pl.Schema) -> Arrives | None:
    """Say when a table's rows become known if nobody has: at their only instant, or day; None for a table without one.

    Raises
    ------
    AssertionError
        If there are several to choose from.

    Examples
    --------
    >>> default_arrival("raw/weather", pl.Schema({"day": pl.Date(), "observed_at": pl.Datetime("us", "UTC")})).at
    'observed_at'
    >>> default_arrival("raw/shops", pl.Schema({"shop": pl.String()})) is None
    True
    """
    instants = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    candidates = instants or [name for name, dtype in schema.items() if dtype == pl.Date]
    if len(candidates) > 1:
        raise AssertionError(
            f"wanted to know when the rows of {table} become known; it has {len(candidates)} times to choose from: "
            f"{', '.join(candidates)}. Say it where the sample is made: sample_home(…, arrives={{'{table}': "
            f"Arrives('{candidates[0]}')}}), or Arrives(filled={{…}}) for rows that are completed later"
        )
    return Arrives(candidates[0]) if candidates else None


def _instant(schema: pl.Schema, name: str) -> pl.Expr:
    """Read a column as UTC instants (raises AssertionError)."""
    dtype = schema.get(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return pl.col(name).dt.convert_time_zone("UTC").cast(UTC_MICROSECONDS)
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    is_there = "there is no such column" if dtype is None else f"it is {dtype}"
    times = [other for other, found in schema.items() if found.is_temporal()]
    raise AssertionError(
        f"Arrives: wanted '{name}' to be an instant or a day; {is_there}. Choose among: {', '.join(times)}"
    )
