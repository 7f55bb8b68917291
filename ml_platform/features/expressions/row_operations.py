"""The operations of portable expressions on plain Python values, with the semantics of Polars.

An operation is a builder: it takes the evaluators of its arguments, and parameters, and returns the evaluator of the
whole. Values are None (null), bool, int, float, str, timedelta, and datetime with a time zone.
"""

import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ml_platform.features.expressions.casts import CASTS

Evaluate = Callable[[Mapping[str, Any]], Any]
Builder = Callable[..., Evaluate]

# Unicode's White_Space, which Polars strips; Python's str.strip() also strips four control characters.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def _unary(function: Callable[[Any], Any]) -> Builder:
    def build(argument: Evaluate) -> Evaluate:
        def evaluate(row: Mapping[str, Any]) -> Any:
            value = argument(row)
            return None if value is None else function(value)

        return evaluate

    return build


def _binary(function: Callable[[Any, Any], Any]) -> Builder:
    def build(left: Evaluate, right: Evaluate) -> Evaluate:
        def evaluate(row: Mapping[str, Any]) -> Any:
            a = left(row)
            if a is None:
                return None
            b = right(row)
            return None if b is None else function(a, b)

        return evaluate

    return build


def is_nan(value: Any) -> bool:
    """Whether a value of any type is NaN, the only value that differs from itself."""
    return bool(value != value)  # noqa: PLR0124


def _instant(value: Any) -> Any:
    """Convert a local time to UTC, since Python's arithmetic within a zone ignores daylight saving."""
    return value.astimezone(UTC) if type(value) is datetime and value.tzinfo is not UTC else value


def _add(a: Any, b: Any) -> Any:
    if type(a) is datetime:
        return (_instant(a) + b).astimezone(a.tzinfo)
    if type(b) is datetime:
        return (_instant(b) + a).astimezone(b.tzinfo)
    return a + b


def _subtract(a: Any, b: Any) -> Any:
    if type(a) is datetime:
        return _instant(a) - _instant(b) if type(b) is datetime else (_instant(a) - b).astimezone(a.tzinfo)
    return a - b


def _divide(a: Any, b: Any) -> float:
    if b == 0:
        return math.nan if a == 0 or is_nan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _divide_by_constant(a: Any, b: Any) -> float:
    """Divide as Polars does: it multiplies by a constant's reciprocal, which may differ in the last bit."""
    return a * (1.0 / b) if b else _divide(a, b)


def _division(whole: Callable[[int, int], int] | None, part: Callable[[Any, Any, float], Any]) -> Builder:
    """Build a division: by `whole` for two integers (None: as for floats), else by `part(a, b, quotient)`."""

    def build(left: Evaluate, right: Evaluate, *, by_constant: bool) -> Evaluate:
        quotient = _divide_by_constant if by_constant else _divide

        def divide(a: Any, b: Any) -> Any:
            if whole is not None and isinstance(a, int) and isinstance(b, int):
                return whole(a, b) if b else None
            return part(a, b, quotient(a, b))

        return _binary(divide)(left, right)

    return build


def _less(a: Any, b: Any) -> bool:
    """Compare as Polars does, for which NaN is greater than every number."""
    a, b = _instant(a), _instant(b)
    return not is_nan(a) if is_nan(a) or is_nan(b) else bool(a < b)


def _equal(a: Any, b: Any) -> bool:
    a, b = _instant(a), _instant(b)
    return bool(a == b) or (is_nan(a) and is_nan(b))


def _floor(value: Any) -> Any:
    return float(math.floor(value)) if isinstance(value, float) and math.isfinite(value) else value


def _ceil(value: Any) -> Any:
    return float(math.ceil(value)) if isinstance(value, float) and math.isfinite(value) else value


def _log(value: Any, base: Any) -> float:
    if not value > 0:
        return -math.inf if value == 0 else math.nan
    return math.log(value) if base == math.e else math.log(value) / math.log(base)


def _log1p(value: Any) -> float:
    if not value > -1:
        return -math.inf if value == -1 else math.nan
    return math.log1p(value)


def _microseconds(value: timedelta) -> int:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


def _total(unit: int) -> Builder:
    def build(argument: Evaluate, *, fractional: bool) -> Evaluate:
        def whole(value: timedelta) -> int:
            total = _microseconds(value)
            return total // unit if total >= 0 else -(-total // unit)

        return _unary((lambda value: _microseconds(value) / unit) if fractional else whole)(argument)

    return build


def _convert_time_zone(argument: Evaluate, *, zone: str) -> Evaluate:
    info = UTC if zone == "UTC" else ZoneInfo(zone)
    return _unary(lambda value: value.astimezone(info))(argument)


def _round(argument: Evaluate, *, decimals: int) -> Evaluate:
    factor = 10.0**decimals

    def rounded(value: Any) -> Any:
        if not isinstance(value, float) or not math.isfinite(value):
            return value
        return math.copysign(round(value * factor) / factor, value)

    return _unary(rounded)(argument)


def _clip(argument: Evaluate, *bounds: Evaluate, has_min: bool, has_max: bool) -> Evaluate:
    low = bounds[0] if has_min else None
    high = bounds[-1] if has_max else None

    def evaluate(row: Mapping[str, Any]) -> Any:
        value = argument(row)
        if value is None or is_nan(value):
            return value
        floor = low(row) if low else None
        if floor is not None and value < floor:
            value = floor
        ceiling = high(row) if high else None
        return ceiling if ceiling is not None and value > ceiling else value

    return evaluate


def _decided_by(decisive: bool) -> Callable[[Evaluate, Evaluate], Evaluate]:
    """Make "and" (False if one is False) or "or" (True if one is True) of three-valued logic, as in SQL and Polars."""

    def combine(left: Evaluate, right: Evaluate) -> Evaluate:
        def evaluate(row: Mapping[str, Any]) -> Any:
            a, b = left(row), right(row)
            if a is decisive or b is decisive:
                return decisive
            return None if a is None or b is None else not decisive

        return evaluate

    return combine


_and, _or = _decided_by(False), _decided_by(True)


def _when(predicate: Evaluate, then: Evaluate, otherwise: Evaluate) -> Evaluate:
    return lambda row: then(row) if predicate(row) else otherwise(row)


def _coalesce(*arguments: Evaluate) -> Evaluate:
    def evaluate(row: Mapping[str, Any]) -> Any:
        for argument in arguments:
            value = argument(row)
            if value is not None:
                return value
        return None

    return evaluate


def _extreme(better: Callable[[Any, Any], bool]) -> Builder:
    def build(*arguments: Evaluate) -> Evaluate:
        def evaluate(row: Mapping[str, Any]) -> Any:
            best = None
            for argument in arguments:
                value = argument(row)
                if value is not None and (best is None or is_nan(best) or better(value, best)):
                    best = value
            return best

        return evaluate

    return build


def _is_in(argument: Evaluate, *, values: list[Any]) -> Evaluate:
    members = frozenset(value for value in values if value is not None)
    return _unary(lambda value: value in members)(argument)


def _is_between(argument: Evaluate, low: Evaluate, high: Evaluate, *, closed: str) -> Evaluate:
    above: Builder = _binary(
        (lambda a, b: not _less(a, b)) if closed in {"Both", "Left"} else (lambda a, b: _less(b, a))
    )
    below: Builder = _binary((lambda a, b: not _less(b, a)) if closed in {"Both", "Right"} else _less)
    return _and(above(argument, low), below(argument, high))


def _concat(*arguments: Evaluate, delimiter: str, ignore_nulls: bool) -> Evaluate:
    def evaluate(row: Mapping[str, Any]) -> Any:
        parts = [argument(row) for argument in arguments]
        if ignore_nulls:
            return delimiter.join(part for part in parts if part is not None)
        return None if None in parts else delimiter.join(parts)

    return evaluate


def _strip(value: Evaluate, characters: Evaluate) -> Evaluate:
    def evaluate(row: Mapping[str, Any]) -> Any:
        text, chars = value(row), characters(row)
        return None if text is None else text.strip(_WHITE_SPACE if chars is None else chars)

    return evaluate


def _cast(argument: Evaluate, *, to: str) -> Evaluate:
    return _unary(CASTS[to])(argument)


OPERATIONS: dict[str, Builder] = {
    "add": _binary(_add),
    "subtract": _binary(_subtract),
    "multiply": _binary(lambda a, b: a * b),
    "divide": _division(None, lambda a, b, quotient: quotient),  # noqa: ARG005
    "floor_divide": _division(operator.floordiv, lambda a, b, quotient: _floor(quotient)),  # noqa: ARG005
    "modulo": _division(operator.mod, lambda a, b, quotient: a - _floor(quotient) * b if b else math.nan),
    "negate": _unary(lambda value: -value),
    "equal": _binary(_equal),
    "not_equal": _binary(lambda a, b: not _equal(a, b)),
    "less": _binary(_less),
    "less_equal": _binary(lambda a, b: not _less(b, a)),
    "greater": _binary(lambda a, b: _less(b, a)),
    "greater_equal": _binary(lambda a, b: not _less(a, b)),
    "and": _and,
    "or": _or,
    "xor": _binary(lambda a, b: a != b),
    "not": _unary(lambda value: not value),
    "is_null": lambda argument: lambda row: argument(row) is None,
    "is_not_null": lambda argument: lambda row: argument(row) is not None,
    "is_nan": _unary(is_nan),
    "is_not_nan": _unary(lambda value: not is_nan(value)),
    "is_finite": _unary(math.isfinite),
    "fill_null": _coalesce,
    "coalesce": _coalesce,
    "when": _when,
    "is_in": _is_in,
    "is_between": _is_between,
    "cast": _cast,
    "abs": _unary(abs),
    "floor": _unary(_floor),
    "ceil": _unary(_ceil),
    "round": _round,
    "clip": _clip,
    "log": _binary(_log),
    "log1p": _unary(_log1p),
    "sqrt": _unary(lambda value: math.sqrt(value) if value >= 0 else math.nan),
    "sin": _unary(lambda value: math.sin(value) if math.isfinite(value) else math.nan),
    "cos": _unary(lambda value: math.cos(value) if math.isfinite(value) else math.nan),
    "min_horizontal": _extreme(lambda value, best: value < best),
    "max_horizontal": _extreme(lambda value, best: value > best),
    "dt.year": _unary(lambda value: value.year),
    "dt.month": _unary(lambda value: value.month),
    "dt.day": _unary(lambda value: value.day),
    "dt.weekday": _unary(datetime.isoweekday),
    "dt.ordinal_day": _unary(lambda value: value.toordinal() - date(value.year, 1, 1).toordinal() + 1),
    "dt.hour": _unary(lambda value: value.hour),
    "dt.minute": _unary(lambda value: value.minute),
    "dt.second": _unary(lambda value: value.second),
    "dt.convert_time_zone": _convert_time_zone,
    "dt.total_days": _total(86_400_000_000),
    "dt.total_hours": _total(3_600_000_000),
    "dt.total_minutes": _total(60_000_000),
    "dt.total_seconds": _total(1_000_000),
    "str.to_uppercase": _unary(str.upper),
    "str.to_lowercase": _unary(str.lower),
    "str.strip_chars": _strip,
    "str.len_chars": _unary(len),
    "str.starts_with": _binary(str.startswith),
    "str.ends_with": _binary(str.endswith),
    "concat_str": _concat,
}
