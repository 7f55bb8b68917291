"""What was used and what it cost, by model, asset, run, team, key, job, kind or day."""

from collections.abc import Sequence
from typing import Literal, get_args

import polars as pl

from ml_platform.cost.config import CostConfig
from ml_platform.cost.prices import priced

By = Literal["model", "asset", "run", "team", "key", "job", "day", "kind"]
BY: tuple[By, ...] = get_args(By)
OTHER = "(none)"
# Whose time is that of runs as a whole; of the others it is their steps'.
_OF_RUNS = ("run", "job", "day", "kind", "key")


def cost_report(uses: pl.DataFrame, config: CostConfig, by: By) -> pl.DataFrame:
    """Sum use by something, the dearest first.

    Parameters
    ----------
    uses
        Rows of `ml_platform.cost.use_table.SCHEMA`.
    config
        Rates and currency.
    by
        What to sum by.

    Returns
    -------
    polars.DataFrame
        A row for each: `<by>`, `cpu_seconds`, `peak_bytes` (the most at any time), `gib_hours` of memory, `bytes_read`,
        `bytes_written`, `seconds`, `runs`, `requests`, `rows`, `price`.
    """
    name = "date" if by == "day" else by
    timed = pl.col("step") == "" if by in _OF_RUNS else pl.col("step") != ""
    if by == "asset":  # what the run itself used, outside its steps, is nobody's in particular
        keys = pl.when(pl.col("asset") == "").then(pl.lit(OTHER)).otherwise(pl.col("asset"))
    elif by == "day":
        keys = pl.col("date").cast(pl.String)
    else:
        keys = pl.when(pl.col(name) == "").then(pl.lit(OTHER)).otherwise(pl.col(name))
    return (
        priced(uses, config.rate_history)
        .with_columns(keys.alias(by))
        .group_by(by)
        .agg(
            pl.sum("cpu_seconds"),
            pl.max("peak_bytes"),
            (pl.sum("byte_seconds") / 2**30 / 3600).alias("gib_hours"),
            pl.sum("bytes_read"),
            pl.sum("bytes_written"),
            pl.col("seconds").filter(timed).sum(),
            pl.col("run").filter(pl.col("run") != "").n_unique().cast(pl.Int64).alias("runs"),
            pl.sum("requests"),
            pl.sum("rows"),
            pl.sum("price"),
        )
        .sort(by if by == "day" else "price", by, descending=[by != "day", False])
    )


def text_table(report: pl.DataFrame, currency: str) -> list[str]:
    """Return the report as lines of a table.

    Examples
    --------
    >>> from ml_platform.cost.use_table import SCHEMA
    >>> text_table(cost_report(pl.DataFrame(schema=SCHEMA), CostConfig(), "model"), "EUR")[0].split()[:3]
    ['model', 'CPU', 's']
    """
    by = report.columns[0]
    head = [by, "CPU s", "peak MiB", "GiB h", "read MiB", "written MiB", "seconds", "runs", "requests", currency]
    rows = [
        [
            str(row[by]),
            f"{row['cpu_seconds']:,.1f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['gib_hours']:,.3f}",
            f"{row['bytes_read'] / 2**20:,.1f}",
            f"{row['bytes_written'] / 2**20:,.1f}",
            f"{row['seconds']:,.0f}",
            f"{row['runs']:,}",
            f"{row['requests']:,}",
            f"{row['price']:,.4f}",
        ]
        for row in report.iter_rows(named=True)
    ]
    return aligned([head, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in cells)
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
