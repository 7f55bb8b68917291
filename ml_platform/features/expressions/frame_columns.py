"""The columns of a Polars frame for portable expressions: arrays are taken as they are, not by way of Python values."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from ml_platform.features.expressions.column_operations import Column, NotVectorised, bounds_of
from ml_platform.features.expressions.columns import Columns


class FrameColumns(Columns):
    """Rows of a frame, at least one, whose columns have the declared types.

    Parameters
    ----------
    rows
        The rows.
    kinds
        Column → declared type.

    Examples
    --------
    >>> from ml_platform.features.expressions.columns import compile_columns
    >>> twice = {"op": "multiply", "args": [{"op": "column", "name": "n"}, {"op": "literal", "value": 2}]}
    >>> columns = FrameColumns(pl.DataFrame({"n": [1, 2]}), {"n": "integer"})
    >>> columns.derive(compile_columns([("twice", twice)]))
    >>> columns.vector("twice").values.tolist()
    [2, 4]
    """

    def __init__(self, rows: pl.DataFrame, kinds: Mapping[str, str]) -> None:
        super().__init__({}, kinds, rows.height)
        self._rows = rows

    def vector(self, name: str) -> Column:
        """A column as an array (raises NotVectorised)."""
        if name not in self._vectors and name in self._rows.columns:
            self._vectors[name] = _vector(self._rows.get_column(name), self._kinds.get(name, ""))
        return super().vector(name)

    def objects(self, name: str) -> list[object]:
        """A column as Python values."""
        if name not in self.lists and name in self._rows.columns:
            self.lists[name] = self._rows.get_column(name).to_list()
        return super().objects(name)

    def _values(self) -> dict[str, list[object]]:
        return {name: self.objects(name) for name in self._rows.columns} | self.lists


def _vector(values: pl.Series, kind: str) -> Column:
    if kind not in ("timestamp", "integer", "number") or values.null_count():
        raise NotVectorised
    array = values.to_physical().to_numpy()
    if kind == "number":
        if np.isnan(array).any():
            raise NotVectorised
        return Column("number", array)
    return Column("timestamp" if kind == "timestamp" else "integer", array, bounds_of(array))
