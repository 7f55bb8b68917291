"""Columns in which tables of scored rows keep values whose kind changed between two versions of a model.

A feature (and the prediction) is kept under its own name. Once a table has that column with another type, values of the
new type go to a column beside it: numbers to `<name>__as_number`, texts to `<name>__as_text`, booleans to
`<name>__as_flag`. So neither is turned into the other, and the rows of both versions can be read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import polars as pl

from ml_platform.lake.exact_casts import is_text
from ml_platform.registry.manifest import Feature

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_SUFFIXES: dict[pl.DataType, str] = {
    pl.Float64(): "__as_number",
    pl.String(): "__as_text",
    pl.Boolean(): "__as_flag",
}
_NUMBER, _TEXT = _SUFFIXES[pl.Float64()], _SUFFIXES[pl.String()]


def recorded_column(name: str, dtype: pl.DataType, known: Mapping[str, pl.DataType]) -> str:
    """Name of the column for values of a type, in a table that has some columns already.

    Examples
    --------
    >>> recorded_column("zip", pl.String(), {}), recorded_column("zip", pl.String(), {"zip": pl.Float64()})
    ('zip', 'zip__as_text')
    """
    return name if known.get(name, dtype) == dtype else f"{name}{_SUFFIXES[dtype]}"


def as_recorded(frame: pl.DataFrame, names: Sequence[str], known: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Rename columns of a frame to those that a table keeps their types in."""
    return frame.rename({name: recorded_column(name, frame.schema[name], known) for name in names})


def of_features(rows: Frame, features: Sequence[Feature], *, column: Callable[[str], str] = str) -> Frame:
    """Give the features' columns the values of their own kind; features that were never recorded stay absent.

    Parameters
    ----------
    rows
        Rows of a table of scored rows, or others that have the features.
    features
        The features of one version.
    column
        Gives the name that a feature has in the rows.
    """
    schema = rows.lazy().collect_schema()
    chosen = []
    for feature in features:
        name, text = column(feature.name), feature.kind == "categorical"
        if name not in schema or schema[name] == pl.Null or is_text(schema[name]) == text:
            continue
        beside = f"{name}{_TEXT if text else _NUMBER}"
        absent = pl.lit(None, dtype=pl.String() if text else pl.Float64())
        chosen.append((pl.col(beside) if beside in schema else absent).alias(name))
    return rows.with_columns(chosen)


def alike(tables: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Rearrange tables that keep a name's numbers and texts the other way round, so that they can be concatenated."""
    schemas = [table.collect_schema() for table in tables]
    arranged = []
    for table, schema in zip(tables, schemas, strict=True):
        columns = []
        for name, dtype in schema.items():
            if is_text(dtype) and any(other.get(name, dtype).is_numeric() for other in schemas):
                number = f"{name}{_NUMBER}"
                numbers = pl.col(number) if number in schema else pl.lit(None, dtype=pl.Float64())
                columns += [numbers.alias(name), pl.col(name).alias(f"{name}{_TEXT}")]
        arranged.append(table.with_columns(columns))
    return arranged
