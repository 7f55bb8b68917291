"""Portable expressions over many rows at once: the arithmetic of dates and numbers in numpy, the rest row by row.

What comes out equals `ml_platform.features.expressions.evaluator` on every row, which a test holds it to. A column
with a null, an operation without a counterpart here, or numbers near the limits of 64 bits go the row-by-row way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np

from ml_platform.features.expressions import Tree, evaluator
from ml_platform.features.wall_clock import wall_clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_SAFE = 2**53  # up to here every integer is a double, and no sum or product of two checked ones leaves 64 bits
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, which datetime holds
_EXACT_SECONDS = 2**32  # years 1834 to 2106: microseconds survive the way through float seconds

Kind = Literal["timestamp", "duration", "integer", "number"]
Bounds = tuple[int, int]


class NotVectorised(Exception):
    """This expression over these values must go row by row."""


class Column(msgspec.Struct, frozen=True, gc=False):
    """A column without nulls: int64 (microseconds for times) or float64, or one such value for all rows.

    Integers and times carry bounds, known without a look at the values, between which all of them are: most operations
    are thereby seen not to overflow.
    """

    kind: Kind
    values: Any
    bounds: Bounds = (0, 0)  # means nothing for float64
    wall: Any = None  # of a time that was converted to a zone: microseconds that its clocks show


Vector = Callable[["Columns"], Column]


class Columns:
    """The rows of one request by column: inputs as lists, derived features added in their order.

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
        self.lists = dict(inputs)  # as Python values: what came so, and what was asked for so
        self._kinds = kinds
        self._vectors: dict[str, Column] = {}
        self._distinct: dict[tuple[str, ...], tuple[list[Any], np.ndarray]] = {}
        self.shared: dict[str, Column] = {}  # results of expressions that several features have in common

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
                    names = tuple(self.lists)
                    rows = [dict(zip(names, row, strict=True)) for row in zip(*self.lists.values(), strict=True)]
                    for name in self._vectors:
                        _spread(rows, name, self.objects(name))
                self.lists[feature.name] = [feature.evaluate(row) for row in rows]
            if rows is not None:
                _spread(rows, feature.name, self.objects(feature.name))

    def vector(self, name: str) -> Column:
        """A column for arithmetic (raises NotVectorised)."""
        found = self._vectors.get(name)
        if found is None:
            found = self._vectors[name] = _vector(self._kinds.get(name, ""), self.lists[name])
        return found

    def objects(self, name: str) -> list[Any]:
        """A column as Python values."""
        values = self.lists.get(name)
        if values is None:
            values = self.lists[name] = _objects(self._vectors[name], self.count)
        return values

    def distinct(self, *names: str) -> tuple[list[Any], np.ndarray]:
        """Distinct values of a column, or tuples of several, by first appearance, and the place of each row's in them.

        Examples
        --------
        >>> Columns({"carrier": ["UA", "AA", "UA"]}, {"carrier": "string"}, 3).distinct("carrier")
        (['UA', 'AA'], array([0, 1, 0]))
        """
        found = self._distinct.get(names)
        if found is None:
            several = len(names) > 1
            values = list(zip(*map(self.objects, names), strict=True)) if several else self.objects(names[0])
            places = {value: place for place, value in enumerate(dict.fromkeys(values))}
            index = np.fromiter(map(places.__getitem__, values), np.intp, self.count)
            found = self._distinct[names] = list(places), index
        return found

    def floats(self, name: str) -> Any:
        """A column as numbers, NaN for null, or one number for all rows."""
        found = self._vectors.get(name)
        if found is not None and found.kind in ("integer", "number"):
            return found.values
        return np.array(self.objects(name), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ColumnFeature:
    """A derived feature, compiled both ways; `vector` is None where numpy cannot do it."""

    name: str
    evaluate: Callable[[Mapping[str, Any]], Any]
    vector: Vector | None


def compile_columns(trees: Sequence[tuple[str, Tree]]) -> tuple[ColumnFeature, ...]:
    """Compile derived features (name, tree), each of which may use those before it."""
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
            instants = microseconds(values)
            return Column("timestamp", instants, _bounds(instants))
        if kind == "integer":
            integers = np.array(values, dtype=np.int64)
            return Column("integer", integers, _bounds(integers))
    except TypeError as error:  # a null
        raise NotVectorised from error
    if kind != "number" or np.isnan(numbers := np.array(values, dtype=np.float64)).any():
        raise NotVectorised
    return Column("number", numbers)


def _bounds(values: Any) -> Bounds:
    return int(values.min()), int(values.max())


def microseconds(instants: Sequence[datetime]) -> np.ndarray:
    """Microseconds since 1970 of datetimes with a zone, exactly."""
    seconds = np.fromiter(map(datetime.timestamp, instants), np.float64, len(instants))
    if not len(seconds) or (seconds.min() > -_EXACT_SECONDS and seconds.max() < _EXACT_SECONDS):
        return np.rint(seconds * 1e6).astype(np.int64)
    return np.array([(instant - EPOCH) // timedelta(microseconds=1) for instant in instants], dtype=np.int64)


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
        constant = _literal(tree)
        return lambda columns: constant  # noqa: ARG005 - a constant is an evaluator like any other
    if op not in _OPERATIONS:
        raise NotVectorised
    compute = _OPERATIONS[op](**parameters)
    arguments = [_compile(argument) for argument in tree["args"]]
    key = msgspec.json.encode(tree, order="deterministic").decode()

    def evaluate(columns: Columns) -> Column:
        found = columns.shared.get(key)
        if found is None:
            found = columns.shared[key] = compute(*[argument(columns) for argument in arguments])
        return found

    return evaluate


def _literal(tree: Tree) -> Column:
    value = tree["value"]
    if tree.get("type") == "duration":
        return Column("duration", np.int64(value), (value, value))
    if tree.get("type") is not None or isinstance(value, bool) or not isinstance(value, int | float):
        raise NotVectorised
    if isinstance(value, int) and abs(value) > _SAFE:
        raise NotVectorised
    if isinstance(value, int):
        return Column("integer", np.int64(value), (value, value))
    return Column("number", np.float64(value))


def _add_bounds(a: Bounds, b: Bounds) -> Bounds:
    return a[0] + b[0], a[1] + b[1]


def _subtract_bounds(a: Bounds, b: Bounds) -> Bounds:
    return a[0] - b[1], a[1] - b[0]


def _multiply_bounds(a: Bounds, b: Bounds) -> Bounds:
    products = [one * other for one in a for other in b]
    return min(products), max(products)


_COMBINE: dict[Any, Callable[[Bounds, Bounds], Bounds]] = {
    np.add: _add_bounds,
    np.subtract: _subtract_bounds,
    np.multiply: _multiply_bounds,
}


def _combined(kind: Kind, operation: Any, a: Column, b: Column, limits: Bounds) -> Column:
    """Result of an operation on integers that surely stays between two limits."""
    combine = _COMBINE[operation]
    low, high = combine(a.bounds, b.bounds)
    if low < limits[0] or high > limits[1]:
        low, high = combine(_bounds(a.values), _bounds(b.values))
        if low < limits[0] or high > limits[1]:
            raise NotVectorised
    return Column(kind, operation(a.values, b.values), (low, high))


def _sum(operation: Any) -> Callable[..., Callable[[Column, Column], Column]]:
    def compute(a: Column, b: Column) -> Column:
        if a.wall is not None or b.wall is not None:
            raise NotVectorised
        kinds = (a.kind, b.kind)
        if kinds == ("timestamp", "duration") or (kinds == ("duration", "timestamp") and operation is np.add):
            return _combined("timestamp", operation, a, b, (_FIRST, _LAST))
        if kinds == ("timestamp", "timestamp") and operation is np.subtract:
            return _combined("duration", operation, a, b, (_FIRST - _LAST, _LAST - _FIRST))
        return _arithmetic(operation)(a, b)

    return lambda: compute


def _arithmetic(operation: Any) -> Callable[[Column, Column], Column]:
    def compute(a: Column, b: Column) -> Column:
        if a.kind == b.kind == "integer":
            return _combined("integer", operation, a, b, (-_SAFE, _SAFE))
        return Column("number", operation(_as_float(a), _as_float(b)))

    return compute


def _divide(*, by_constant: bool) -> Callable[[Column, Column], Column]:
    def compute(a: Column, b: Column) -> Column:
        top, bottom = _as_float(a), _as_float(b)
        if not np.all(bottom):
            raise NotVectorised
        return Column("number", top * (1.0 / bottom) if by_constant else top / bottom)

    return compute


def _as_float(column: Column) -> Any:
    """Values as doubles, as Python converts an operand: integers exactly, or not at all."""
    if column.kind == "integer":
        low, high = column.bounds
        if (low < -_SAFE or high > _SAFE) and np.abs(column.values).max() > _SAFE:
            raise NotVectorised
        return column.values.astype(np.float64)
    if column.kind != "number":
        raise NotVectorised
    return column.values


def _convert_time_zone(*, zone: str) -> Callable[[Column], Column]:
    clock = wall_clock(zone)

    def compute(column: Column) -> Column:
        if column.kind != "timestamp" or not column.values.shape:
            raise NotVectorised
        wall = clock.read(column.values, column.bounds)
        if wall is None:
            raise NotVectorised
        return Column("timestamp", column.values, column.bounds, wall)

    return compute


def _part(of: Callable[[Any], Any], *bounds: int) -> Callable[..., Callable[[Column], Column]]:
    low, high = bounds

    def compute(column: Column) -> Column:
        if column.kind != "timestamp":
            raise NotVectorised
        return Column("integer", of(column.values if column.wall is None else column.wall), (low, high))

    return lambda: compute


def _total(unit: int) -> Callable[..., Callable[[Column], Column]]:
    def build(*, fractional: bool) -> Callable[[Column], Column]:
        if fractional:
            raise NotVectorised

        def compute(column: Column) -> Column:
            if column.kind != "duration":
                raise NotVectorised
            most = max(map(abs, column.bounds)) // unit
            return Column("integer", np.sign(column.values) * (np.abs(column.values) // unit), (-most, most))

        return compute

    return build


def _cast(*, to: str) -> Callable[[Column], Column]:
    def compute(column: Column) -> Column:
        if to == "Float64":
            return Column("number", _as_float(column))
        if column.kind == "integer":
            return column
        if column.kind != "number" or not np.all(np.abs(column.values) < _SAFE):
            raise NotVectorised
        integers = np.trunc(column.values).astype(np.int64)
        return Column("integer", integers, _bounds(integers))

    if to not in ("Int64", "Float64"):
        raise NotVectorised
    return compute


_OPERATIONS: dict[str, Callable[..., Callable[..., Column]]] = {
    "add": _sum(np.add),
    "subtract": _sum(np.subtract),
    "multiply": lambda: _arithmetic(np.multiply),
    "divide": _divide,
    "cast": _cast,
    "dt.convert_time_zone": _convert_time_zone,
    "dt.hour": _part(lambda values: values // _HOUR % 24, 0, 23),
    "dt.minute": _part(lambda values: values // 60_000_000 % 60, 0, 59),
    "dt.second": _part(lambda values: values // 1_000_000 % 60, 0, 59),
    "dt.weekday": _part(lambda values: (values // _DAY + 3) % 7 + 1, 1, 7),  # 1970-01-01 was a Thursday
    "dt.total_days": _total(_DAY),
    "dt.total_hours": _total(_HOUR),
    "dt.total_minutes": _total(60_000_000),
    "dt.total_seconds": _total(1_000_000),
}
