"""Weights of rows as a spine gives them: what is no weight is refused, with the row."""

import polars as pl

from ml_platform.spec.model import ModelSpec


def check_weights(frame: pl.DataFrame, spec: ModelSpec) -> dict[str, float]:
    """Check the column that `weight` names, and summarise it.

    Parameters
    ----------
    frame
        Labelled rows with that column and the id.
    spec
        The model.

    Returns
    -------
    dict
        Smallest, mean and largest weight, and the number of equally weighted rows that would tell as much (Kish's
        effective sample size); empty for a model without weights.

    Raises
    ------
    ValueError
        When the column is not numeric, a weight is null, not finite or negative, or all are 0.
    """
    if spec.weight is None:
        return {}
    refuse_wrong_weights(frame, spec.weight, spec.id)
    return summarise_weights(frame.get_column(spec.weight))


def refuse_wrong_weights(frame: pl.DataFrame, weight: str, id_column: str) -> None:
    """Refuse what is no weight (raises ValueError with the first such row)."""
    column = frame.get_column(weight)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise ValueError(f"weight '{weight}': wanted numbers, found {column.dtype}; cast it in the spine's query")
    weights = column.cast(pl.Float64)
    wrong = ~(weights.is_finite() & (weights >= 0)).fill_null(value=False)
    if wrong.any():
        first = frame.filter(wrong).row(0, named=True)
        raise ValueError(
            f"weight '{weight}': wanted finite numbers from 0 on, found {first[weight]} in the row with "
            f"{id_column} {first[id_column]!r} (of {wrong.sum():,} such rows); correct the spine's query, or leave "
            "these rows out there"
        )


def summarise_weights(column: pl.Series) -> dict[str, float]:
    """Summarise weights (raises ValueError where all are 0)."""
    weights = column.cast(pl.Float64)
    total = float(weights.sum())
    if total == 0:
        raise ValueError(f"weight '{column.name}': all {len(weights):,} rows have weight 0, so none is left to fit")
    values = weights.to_numpy()
    return {
        "smallest": float(values.min()),
        "mean": total / len(values),
        "largest": float(values.max()),
        "effective_rows": total**2 / float(values @ values),
    }
