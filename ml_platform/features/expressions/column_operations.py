"""The operations of portable expressions on whole columns in numpy, with the same results as in `operations`."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np

from ml_platform.features.expressions.compile import Tree
from ml_platform.features.expressions.wall_clock import wall_clock

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_SAFE = 2**53  # up to here every integer is a double, and checked sums and products stay within 64 bits
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, which datetime holds

Kind = Literal["timestamp", "duration", "integer", "number"]
Bounds = tuple[int, int]


class NotVectorised(Exception):
    """This expression must be evaluated row by row for these values."""


class Column(msgspec.Struct, frozen=True, gc=False):
    """A column without nulls: int64 (microseconds for times) or float64, or one such value for all rows.

    Integers and times carry bounds of their values. From these most operations can be seen not to overflow, without a
    look at the values.
    """

    kind: Kind
    values: Any
    bounds: Bounds = (0, 0)  # meaningless for float64
    wall: Any = None  # of a timestamp converted to a zone: its local time in microseconds


def bounds_of(values: Any) -> Bounds:
    """Least and greatest of an array of integers."""
    return int(values.min()), int(values.max())


def literal(tree: Tree) -> Column:
    """A constant as a column (raises NotVectorised)."""
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
    """Result of an operation on integers (raises NotVectorised if it may exceed the limits)."""
    combine = _COMBINE[operation]
    low, high = combine(a.bounds, b.bounds)
    if low < limits[0] or high > limits[1]:
        low, high = combine(bounds_of(a.values), bounds_of(b.values))
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
    """Values as doubles (raises NotVectorised if some integer is not exactly one)."""
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
        return Column("integer", integers, bounds_of(integers))

    if to not in ("Int64", "Float64"):
        raise NotVectorised
    return compute


OPERATIONS: dict[str, Callable[..., Callable[..., Column]]] = {
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
