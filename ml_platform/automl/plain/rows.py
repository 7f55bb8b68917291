"""Reading the table, its labels, and the matrix."""

from typing import Any

import numpy as np
import polars as pl


def read_rows(uri: str, version: int, target: str, sort_by: list[str]) -> pl.DataFrame:
    """Read the labelled rows of one version of the table, always in the same order."""
    rows = pl.read_delta(uri, version=version).filter(pl.col(target).is_not_null())
    if rows.schema[target].is_float():
        rows = rows.filter(pl.col(target).is_finite())
    return rows.sort(sort_by, maintain_order=True)


def binary_labels(labels: pl.Series, positive: Any) -> np.ndarray:
    """Turn labels into 1 where they are the positive value, else 0."""
    return (labels == positive).cast(pl.Float64).to_numpy()


def class_labels(labels: pl.Series, classes: list[Any]) -> np.ndarray:
    """Turn labels into positions in the list of classes."""
    names = [str(one) for one in classes]
    return np.array([names.index(label) for label in labels.cast(pl.String)], dtype=np.float64)


def number_labels(labels: pl.Series) -> np.ndarray:
    """Turn labels into numbers."""
    return labels.cast(pl.Float64).to_numpy()


def input_columns(rows: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """Take the inputs: numbers as floats, categories as texts; a number may be stored as text."""
    as_kind = {
        "number": lambda name: pl.col(name).cast(pl.Float64),
        "parsed_number": lambda name: pl.col(name).str.strip_chars().cast(pl.Float64, strict=False),
        "category": lambda name: pl.col(name).cast(pl.String),
    }
    return rows.select(as_kind[kind](name) for name, kind in columns.items())


def learn_categories(values: pl.Series, y: np.ndarray | None) -> list[str]:
    """List the categories seen in 20 rows or more, the 256 most frequent, ordered by their mean label.

    The mean is shrunk to that of all rows (with the weight of 20 rows). Without labels the order is the alphabet's.
    """
    names = values.drop_nulls().unique().sort().to_list()
    position = {name: number for number, name in enumerate(names)}
    codes = np.array([position.get(value, -1) for value in values], dtype=np.int64)
    present = codes >= 0
    counts = np.bincount(codes[present], minlength=len(names))
    frequent = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))[:256]
    kept = sorted(i for i in frequent if counts[i] >= 20)
    if y is None:
        return [names[i] for i in kept]
    sums = np.bincount(codes[present], weights=y[present], minlength=len(names))
    means = (sums + 20.0 * y.mean()) / (counts + 20.0)
    return [names[i] for i in sorted(kept, key=lambda i: (means[i], names[i]))]


def make_matrix(inputs: pl.DataFrame, categories: dict[str, list[str]]) -> np.ndarray:
    """Make the matrix: numbers, NaN for null; categories by position, -1 for an unknown and -2 for a missing one."""
    matrix = np.empty((inputs.height, inputs.width), dtype=np.float64)
    for number, column in enumerate(inputs.iter_columns()):
        if column.name in categories:
            position = {name: place for place, name in enumerate(categories[column.name])}
            matrix[:, number] = [-2.0 if value is None else position.get(value, -1.0) for value in column]
        else:
            matrix[:, number] = column.fill_null(float("nan")).to_numpy()
    return np.where(np.isinf(matrix), np.nan, matrix)
