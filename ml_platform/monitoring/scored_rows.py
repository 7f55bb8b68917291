"""All rows that a model has scored: batch scores and the inference log as one lazy table."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from ml_platform.inference.recorded_columns import alike
from ml_platform.lake.storage.tables import Lake

CORE: dict[str, pl.DataType] = {
    "row_key": pl.String(),  # never null: the row's id, else the request and its row
    "id": pl.String(),
    "as_of": pl.Datetime("us", "UTC"),
    "scored_at": pl.Datetime("us", "UTC"),
    "model_version": pl.Int64(),
    "source": pl.String(),  # "batch" or "online"
    "score": pl.Float64(),
    "sample_weight": pl.Float64(),  # scored rows that this one stands for, where only a share of the answers is logged
}
_TABLES = {"batch": "predictions", "online": "inference_log"}


def scored_tables(lake: Lake, model: str) -> dict[str, str]:
    """Tables with scores of a model that exist: source → table."""
    return {source: f"{schema}/{model}" for source, schema in _TABLES.items() if lake.exists(f"{schema}/{model}")}


def scored_rows(
    lake: Lake,
    model: str,
    *,
    id_column: str,
    start: datetime | None = None,
    until: datetime | None = None,
    share: float = 1.0,
) -> pl.LazyFrame:
    """Rows scored in batch or online, one per id and version.

    A row scored more than once by the same version, in batch and again by a request say, counts once, as it was
    scored last. Online rows without an id cannot be matched with anything and each count.

    Parameters
    ----------
    lake
        Holds `predictions/<model>` and `inference_log/<model>`; either may be absent.
    model
        Name of the model.
    id_column
        Column of the batch scores that identifies a row, the spec's `id`.
    start, until
        Keep rows with start < as_of ≤ until (UTC); unbounded where None.
    share
        Keep about this share of the rows, chosen by a hash of their key: all scores of a row or none.

    Returns
    -------
    LazyFrame
        The columns of `CORE`, then the feature columns of both tables (null where one does not have it).

    Raises
    ------
    LookupError
        If nothing was ever scored.
    """
    tables = scored_tables(lake, model)
    if not tables:
        raise LookupError(
            f"Wanted scored rows of '{model}', found neither '{_TABLES['batch']}/{model}' nor "
            f"'{_TABLES['online']}/{model}' in {lake.uri}. Score a day in batch, or ask the server and ingest its log."
        )
    parts = []
    for source, table in tables.items():
        rows = lake.read(table)
        if start is not None:
            rows = rows.filter(pl.col("as_of") > start)
        if until is not None:
            rows = rows.filter(pl.col("as_of") <= until)
        typed = _typed(rows, source, id_column)
        parts.append(typed if share >= 1 else typed.filter(hashed_below(pl.col("row_key"), share, seed=0)))
    rows = pl.concat(alike(parts), how="diagonal_relaxed").sort("scored_at", "source", "row_key")
    same = ["row_key", "model_version"]
    if _is_sampled(lake, tables):  # a row that was scored in batch too is there for certain, and stands for itself
        rows = rows.with_columns(pl.col("sample_weight").min().over(same))
    return rows.unique(same, keep="last", maintain_order=True)


def equally_weighted(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """Thin out rows of smaller weight, by a hash of their key, until all weigh the same.

    What looks at rows without weights then sees what it would have seen of all rows.

    Examples
    --------
    >>> rows = pl.DataFrame({"key": range(1000), "sample_weight": [1.0] * 900 + [10.0] * 100})
    >>> kept = equally_weighted(rows, "key")["sample_weight"]
    >>> (kept == 10).sum(), 60 < (kept == 1).sum() < 130
    (100, True)
    """
    largest = rows.get_column("sample_weight").max()
    if largest is None or largest == rows.get_column("sample_weight").min():
        return rows
    return rows.filter(hashed_below(pl.col(key), pl.col("sample_weight") / largest, seed=1))


def hashed_below(key: pl.Expr, share: pl.Expr | float, *, seed: int) -> pl.Expr:
    """Whether a row is in a sample of about `share`, by a hash of its key: the same rows whatever their order.

    Samples of samples want another seed, or nothing is left out.
    """
    return key.cast(pl.String).hash(seed=seed) % 1_000_000 < share * 1_000_000


def newest_score(lake: Lake, model: str) -> datetime | None:
    """Newest `as_of` that was scored: the clock of the model's monitoring. None when nothing was.

    A request for a time that had not come when it was answered does not move the clock: a caller's typing error would
    otherwise leave every later window empty.
    """
    newest = [
        lake.read(table).filter(pl.col("as_of") <= pl.col("scored_at")).select(pl.col("as_of").max()).collect().item()
        for table in scored_tables(lake, model).values()
    ]
    return max((instant for instant in newest if instant is not None), default=None)


def _is_sampled(lake: Lake, tables: Mapping[str, str]) -> bool:
    """Whether any logged row has a weight other than 1."""
    if "online" not in tables:
        return False
    log = lake.read(tables["online"])
    if "sample_weight" not in log.collect_schema().names():
        return False
    return bool(log.select((pl.col("sample_weight") > 1).any()).collect().item())


def _typed(rows: pl.LazyFrame, source: str, id_column: str) -> pl.LazyFrame:
    """Bring one table into the shape of `CORE`, followed by its other columns except bookkeeping."""
    schema = rows.collect_schema()
    names = schema.names()
    kinds = {**CORE, "score": schema["score"] if isinstance(schema["score"], pl.List) else CORE["score"]}  # multiclass
    identifier = pl.col("id" if source == "online" or id_column not in names else id_column).cast(pl.String)
    if source == "online":
        key = pl.coalesce(identifier, pl.concat_str(pl.lit("request:"), "request_id", pl.lit(":"), "row"))
    else:
        key = identifier
    bookkeeping = {"request_id", "row", "caller", "inputs", "flags", "date", "prediction", id_column, *CORE}
    weight = pl.col("sample_weight").fill_null(1.0) if source == "online" and "sample_weight" in names else pl.lit(1.0)
    made = {"row_key": key, "id": identifier, "source": pl.lit(source), "sample_weight": weight}
    return rows.select(
        *(made.get(name, pl.col(name)).cast(kind).alias(name) for name, kind in kinds.items()),
        *(pl.col(name) for name in names if name not in bookkeeping and not name.startswith("prediction__as_")),
    )
