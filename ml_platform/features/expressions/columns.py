"""Portable expressions over many rows at once: arithmetic of dates and numbers in numpy, the rest row by row.

The results equal those of `compile.evaluator` for every row, which a test checks. Columns with a null, operations
without a counterpart here, and numbers near the limits of 64 bits are computed row by row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from ml_platform.features.expressions.column_operations import (
    OPERATIONS,
    Bounds,
    Column,
    NotVectorised,
    bounds_of,
    literal,
)
from ml_platform.features.expressions.compile import Tree, evaluator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT_SECONDS = 2**32  # years 1834 to 2106: float seconds hold microseconds exactly

Vector = Callable[["Columns"], Column]


class Columns:
    """The rows of one request by column: the inputs, and derived features as they are added.

    Examples
    --------
    >>> trees = [("hours", {"op": "divide", "args": [{"op": "column", "name": "minutes"}, {"op": "literal",
    ...           "value": 60}], "by_constant": True})]
    >>> columns = Columns({"minutes": [30.0, 90.0]}, {"minutes": "number"}, 2)
    >>> columns.derive(compile_columns(trees))
    >>> columns.objects("hours")
    [0.5, 1.5]
    """

    def __init__(self, inputs: Mapping[str, list[Any]], kinds: Mapping[str, str], count: int) -> None:
        self.count = count
        self.lists = dict(inputs)  # columns as Python values: the inputs, and others once they are asked for
        self._kinds = kinds
        self._vectors: dict[str, Column] = {}
        self._distinct: dict[tuple[str, ...], tuple[list[Any], np.ndarray]] = {}
        self.shared: dict[str, Column] = {}  # results of subexpressions, which several features may share

    def derive(self, features: Sequence["ColumnFeature"]) -> None:
        """Add derived features (raises what the row-by-row evaluation raises)."""
        rows: list[dict[str, Any]] | None = None
        for feature in features:
            try:
                if feature.vector is None:
                    raise NotVectorised
                self._vectors[feature.name] = feature.vector(self)
            except NotVectorised:
                if rows is None:
                    values = self._values()
                    names = tuple(values)
                    rows = [dict(zip(names, row, strict=True)) for row in zip(*values.values(), strict=True)]
                    for name in self._vectors:
                        _spread(rows, name, self.objects(name))
                self.lists[feature.name] = [feature.evaluate(row) for row in rows]
            if rows is not None:
                _spread(rows, feature.name, self.objects(feature.name))

    def _values(self) -> Mapping[str, list[Any]]:
        """The columns from which rows are evaluated one by one."""
        return self.lists

    def vector(self, name: str) -> Column:
        """A column as an array (raises NotVectorised)."""
        vector = self._vectors.get(name)
        if vector is None:
            vector = self._vectors[name] = _vector(self._kinds.get(name, ""), self.lists[name])
        return vector

    def objects(self, name: str) -> list[Any]:
        """A column as Python values."""
        values = self.lists.get(name)
        if values is None:
            values = self.lists[name] = _objects(self._vectors[name], self.count)
        return values

    def distinct(self, *names: str) -> tuple[list[Any], np.ndarray]:
        """Distinct values of a column (tuples of several columns), and the position of each row's value among them.

        Examples
        --------
        >>> Columns({"carrier": ["UA", "AA", "UA"]}, {"carrier": "string"}, 3).distinct("carrier")
        (['UA', 'AA'], array([0, 1, 0]))
        """
        distinct = self._distinct.get(names)
        if distinct is None:
            several = len(names) > 1
            values = list(zip(*map(self.objects, names), strict=True)) if several else self.objects(names[0])
            places = {value: place for place, value in enumerate(dict.fromkeys(values))}
            index = np.fromiter(map(places.__getitem__, values), np.intp, self.count)
            distinct = self._distinct[names] = list(places), index
        return distinct

    def floats(self, name: str) -> Any:
        """A column as numbers, NaN for null, or one number for all rows."""
        vector = self._vectors.get(name)
        if vector is not None and vector.kind in ("integer", "number"):
            return vector.values
        return np.array(self.objects(name), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ColumnFeature:
    """A derived feature, compiled for one row and for columns; `vector` is None when numpy cannot compute it."""

    name: str
    evaluate: Callable[[Mapping[str, Any]], Any]
    vector: Vector | None


def compile_columns(trees: Sequence[tuple[str, Tree]]) -> tuple[ColumnFeature, ...]:
    """Compile derived features (name, tree); each may use those before it."""
    compiled = []
    for name, tree in trees:
        try:
            vector: Vector | None = _compile(tree)
        except NotVectorised:
            vector = None
        compiled.append(ColumnFeature(name, evaluator(tree), vector))
    return tuple(compiled)


def _spread(rows: list[dict[str, Any]], name: str, values: Sequence[Any]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[name] = value


def _vector(kind: str, values: list[Any]) -> Column:
    try:
        if kind == "timestamp":
            return Column("timestamp", *_instants(values))
        if kind == "integer":
            integers = np.array(values, dtype=np.int64)
            return Column("integer", integers, bounds_of(integers))
    except TypeError as error:  # a null
        raise NotVectorised from error
    if kind != "number" or np.isnan(numbers := np.array(values, dtype=np.float64)).any():
        raise NotVectorised
    return Column("number", numbers)


def microseconds(instants: Sequence[datetime]) -> np.ndarray:
    """Exact microseconds since 1970 of datetimes with a time zone."""
    return _instants(instants)[0] if len(instants) else np.empty(0, dtype=np.int64)


def _instants(instants: Sequence[datetime]) -> tuple[np.ndarray, Bounds]:
    """Exact microseconds since 1970 of datetimes with a time zone, one at least, and the first and last of them."""
    seconds = np.fromiter(map(datetime.timestamp, instants), np.float64, len(instants))
    first, last = float(seconds.min()), float(seconds.max())
    if first > -_EXACT_SECONDS and last < _EXACT_SECONDS:
        return np.rint(seconds * 1e6).astype(np.int64), (round(first * 1e6), round(last * 1e6))
    exact = np.array([(instant - EPOCH) // timedelta(microseconds=1) for instant in instants], dtype=np.int64)
    return exact, bounds_of(exact)


def _objects(column: Column, count: int) -> list[Any]:
    values = np.broadcast_to(column.values, count).tolist()
    if column.kind == "timestamp" and column.wall is None:
        return [EPOCH + timedelta(microseconds=value) for value in values]
    if column.kind in ("integer", "number"):
        return values
    raise NotVectorised


def _compile(tree: Tree) -> Vector:
    op, parameters = tree["op"], {key: value for key, value in tree.items() if key not in {"op", "args"}}
    if op == "column":
        return lambda columns: columns.vector(tree["name"])
    if op == "literal":
        constant = literal(tree)
        return lambda columns: constant  # noqa: ARG005 - a constant is an evaluator like any other
    if op not in OPERATIONS:
        raise NotVectorised
    compute = OPERATIONS[op](**parameters)
    arguments = [_compile(argument) for argument in tree["args"]]
    key = msgspec.json.encode(tree, order="deterministic").decode()

    def evaluate(columns: Columns) -> Column:
        result = columns.shared.get(key)
        if result is None:
            result = columns.shared[key] = compute(*[argument(columns) for argument in arguments])
        return result

    return evaluate
