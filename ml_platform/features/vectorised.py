"""Portable expressions over many rows at once: the arithmetic of dates and numbers in numpy, the rest row by row.

What comes out equals `ml_platform.features.expressions.evaluator` on every row, which a test holds it to. A column
with a null, an operation without a counterpart here, or numbers near the limits of 64 bits go the row-by-row way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from ml_platform.features.expressions import Tree, evaluator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_SAFE = 2**53  # up to here every integer is a double, and no sum or product of two checked ones leaves 64 bits
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, which datetime holds
_EXACT_SECONDS = 2**32  # years 1834 to 2106: microseconds survive the way through float seconds
_MOST_OFFSETS = 100_000

Kind = Literal["timestamp", "duration", "integer", "number"]


class NotVectorised(Exception):
    """This expression over these values must go row by row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column without nulls: int64 (microseconds for times) or float64, or one such value for all rows."""

    kind: Kind
    values: Any
    offset: Any = None  # microseconds from UTC to the wall clock of a time that was converted to a zone


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
        self._lists = dict(inputs)
        self._kinds = kinds
        self._vectors: dict[str, Column] = {}
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
                    names = tuple(self._lists)
                    rows = [dict(zip(names, row, strict=True)) for row in zip(*self._lists.values(), strict=True)]
                    for name in self._vectors:
                        _spread(rows, name, self.objects(name))
                self._lists[feature.name] = [feature.evaluate(row) for row in rows]
            if rows is not None:
                _spread(rows, feature.name, self.objects(feature.name))

    def vector(self, name: str) -> Column:
        """A column for arithmetic (raises NotVectorised)."""
        found = self._vectors.get(name)
        if found is None:
            found = self._vectors[name] = _vector(self._kinds.get(name, ""), self._lists[name])
        return found

    def objects(self, name: str) -> list[Any]:
        """A column as Python values."""
        values = self._lists.get(name)
        if values is None:
            values = self._lists[name] = _objects(self._vectors[name], self.count)
        return values

    def floats(self, name: str) -> np.ndarray:
        """A column as float64, NaN for null."""
        found = self._vectors.get(name)
        if found is not None and found.kind in ("integer", "number"):
            return np.broadcast_to(found.values, self.count)
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
    if kind not in ("timestamp", "integer", "number") or None in values:
        raise NotVectorised
    if kind == "timestamp":
        return Column("timestamp", microseconds(values))
    return Column(kind, np.array(values, dtype=np.int64 if kind == "integer" else np.float64))  # type: ignore[arg-type]


def microseconds(instants: Sequence[datetime]) -> np.ndarray:
    """Microseconds since 1970 of UTC datetimes, exactly."""
    spans = [instant - EPOCH for instant in instants]
    seconds = np.array(list(map(timedelta.total_seconds, spans)))
    if np.abs(seconds).max(initial=0) < _EXACT_SECONDS:
        return np.rint(seconds * 1e6).astype(np.int64)
    return np.array([span // timedelta(microseconds=1) for span in spans], dtype=np.int64)


def _objects(column: Column, count: int) -> list[Any]:
    values = np.broadcast_to(column.values, count).tolist()
    if column.kind == "timestamp" and column.offset is None:
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
        return Column("duration", np.int64(value))
    if tree.get("type") is not None or isinstance(value, bool) or not isinstance(value, int | float):
        raise NotVectorised
    if isinstance(value, int) and abs(value) > _SAFE:
        raise NotVectorised
    return Column("integer", np.int64(value)) if isinstance(value, int) else Column("number", np.float64(value))


def _sum(sign: int) -> Callable[..., Callable[[Column, Column], Column]]:
    operation = np.add if sign > 0 else np.subtract

    def compute(a: Column, b: Column) -> Column:
        if a.offset is not None or b.offset is not None:
            raise NotVectorised
        kinds = (a.kind, b.kind)
        if kinds == ("timestamp", "duration") or (kinds == ("duration", "timestamp") and sign > 0):
            return _within("timestamp", operation(a.values, b.values), _FIRST, _LAST)
        if kinds == ("timestamp", "timestamp") and sign < 0:
            return Column("duration", operation(a.values, b.values))
        return _arithmetic(operation)(a, b)

    return lambda: compute


def _arithmetic(operation: Callable[[Any, Any], Any]) -> Callable[[Column, Column], Column]:
    def compute(a: Column, b: Column) -> Column:
        if not {a.kind, b.kind} <= {"integer", "number"}:
            raise NotVectorised
        if a.kind == b.kind == "integer":
            if float(np.abs(a.values).max()) * float(np.abs(b.values).max()) > _SAFE:
                raise NotVectorised
            return _within("integer", operation(a.values, b.values), -_SAFE, _SAFE)
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
        return _within("integer", column.values, -_SAFE, _SAFE).values.astype(np.float64)
    if column.kind != "number":
        raise NotVectorised
    return column.values


def _within(kind: Kind, values: Any, low: int, high: int) -> Column:
    if values.min() < low or values.max() > high:
        raise NotVectorised
    return Column(kind, values)


def _convert_time_zone(*, zone: str) -> Callable[[Column], Column]:
    info = ZoneInfo(zone)
    offsets: dict[int, int] = {}  # hour since 1970 → microseconds from UTC all through that hour

    def offset(hour: int) -> int:
        start = EPOCH + timedelta(hours=hour)
        last = start + timedelta(hours=1, microseconds=-1)
        found = start.astimezone(info).utcoffset()
        if found is None or found != last.astimezone(info).utcoffset():
            raise NotVectorised
        if len(offsets) >= _MOST_OFFSETS:
            offsets.clear()
        offsets[hour] = found // timedelta(microseconds=1)
        return offsets[hour]

    def compute(column: Column) -> Column:
        if column.kind != "timestamp" or not column.values.shape:
            raise NotVectorised
        get = offsets.get
        found = []
        for hour in (column.values // _HOUR).tolist():
            known = get(hour)
            found.append(offset(hour) if known is None else known)
        return Column("timestamp", column.values, np.array(found, dtype=np.int64))

    return compute


def _part(of: Callable[[Any], Any]) -> Callable[..., Callable[[Column], Column]]:
    def compute(column: Column) -> Column:
        if column.kind != "timestamp":
            raise NotVectorised
        return Column("integer", of(column.values if column.offset is None else column.values + column.offset))

    return lambda: compute


def _total(unit: int) -> Callable[..., Callable[[Column], Column]]:
    def build(*, fractional: bool) -> Callable[[Column], Column]:
        if fractional:
            raise NotVectorised

        def compute(column: Column) -> Column:
            if column.kind != "duration":
                raise NotVectorised
            return Column("integer", np.sign(column.values) * (np.abs(column.values) // unit))

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
        return Column("integer", np.trunc(column.values).astype(np.int64))

    if to not in ("Int64", "Float64"):
        raise NotVectorised
    return compute


_OPERATIONS: dict[str, Callable[..., Callable[..., Column]]] = {
    "add": _sum(1),
    "subtract": _sum(-1),
    "multiply": lambda: _arithmetic(np.multiply),
    "divide": _divide,
    "cast": _cast,
    "dt.convert_time_zone": _convert_time_zone,
    "dt.hour": _part(lambda values: values // _HOUR % 24),
    "dt.minute": _part(lambda values: values // 60_000_000 % 60),
    "dt.second": _part(lambda values: values // 1_000_000 % 60),
    "dt.weekday": _part(lambda values: (values // _DAY + 3) % 7 + 1),  # 1970-01-01 was a Thursday
    "dt.total_days": _total(_DAY),
    "dt.total_hours": _total(_HOUR),
    "dt.total_minutes": _total(60_000_000),
    "dt.total_seconds": _total(1_000_000),
}
