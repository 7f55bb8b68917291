"""Compiles Polars expressions to portable trees, and trees to Python: one definition of a feature, offline and online.

Offline, Polars evaluates the expression over columns. For serving it is compiled once to a tree of plain data, which is
kept in the release manifest; serving turns the tree into a closure that computes one row without Polars. The closure
follows Polars' semantics for nulls, NaN and daylight saving, except that integers do not overflow.
"""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ml_platform.features.expressions.casts import CASTS
from ml_platform.features.expressions.row_operations import OPERATIONS, Evaluate, is_nan

if TYPE_CHECKING:
    import polars as pl

Tree = dict[str, Any]

_BINARY = {
    "Plus": "add", "Minus": "subtract", "Multiply": "multiply", "TrueDivide": "divide", "FloorDivide": "floor_divide",
    "Modulus": "modulo", "Eq": "equal", "NotEq": "not_equal", "Lt": "less", "LtEq": "less_equal", "Gt": "greater",
    "GtEq": "greater_equal", "And": "and", "Or": "or", "LogicalAnd": "and", "LogicalOr": "or", "Xor": "xor",
}  # fmt: skip
_FUNCTIONS = {
    "Boolean.Not": "not", "Boolean.IsNull": "is_null", "Boolean.IsNotNull": "is_not_null", "Boolean.IsNan": "is_nan",
    "Boolean.IsNotNan": "is_not_nan", "Boolean.IsFinite": "is_finite", "Boolean.IsBetween": "is_between",
    "Boolean.IsIn": "is_in", "FillNull": "fill_null", "Coalesce": "coalesce", "Negate": "negate", "Abs": "abs",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Clip": "clip", "Log": "log", "Log1p": "log1p",
    "Pow.Sqrt": "sqrt",
    "Trigonometry.Sin": "sin", "Trigonometry.Cos": "cos", "MinHorizontal": "min_horizontal",
    "MaxHorizontal": "max_horizontal", "TemporalExpr.Year": "dt.year", "TemporalExpr.Month": "dt.month",
    "TemporalExpr.Day": "dt.day", "TemporalExpr.WeekDay": "dt.weekday", "TemporalExpr.OrdinalDay": "dt.ordinal_day",
    "TemporalExpr.Hour": "dt.hour", "TemporalExpr.Minute": "dt.minute", "TemporalExpr.Second": "dt.second",
    "TemporalExpr.ConvertTimeZone": "dt.convert_time_zone", "TemporalExpr.TotalDays": "dt.total_days",
    "TemporalExpr.TotalHours": "dt.total_hours", "TemporalExpr.TotalMinutes": "dt.total_minutes",
    "TemporalExpr.TotalSeconds": "dt.total_seconds", "TemporalExpr.OffsetBy": "add",
    "StringExpr.Uppercase": "str.to_uppercase", "StringExpr.Lowercase": "str.to_lowercase",
    "StringExpr.StripChars": "str.strip_chars", "StringExpr.LenChars": "str.len_chars",
    "StringExpr.StartsWith": "str.starts_with", "StringExpr.EndsWith": "str.ends_with",
    "StringExpr.ConcatHorizontal": "concat_str",
}  # fmt: skip
_SMALL_INTEGERS = {"dt.hour", "dt.minute", "dt.second", "dt.weekday", "dt.day", "dt.month", "dt.ordinal_day"}
_DIVISIONS = {"divide", "floor_divide", "modulo"}
_OVERFLOWING = {"add", "subtract", "multiply"}
_OFFSET = re.compile(r"(-?)((?:\d+(?:us|ms|s|m|h))+)")
_OFFSET_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}


class UnsupportedExpression(ValueError):
    """A Polars expression that cannot be computed for one request in plain Python."""


def compile_tree(expr: "pl.Expr") -> Tree:
    """Translate a Polars expression into a tree of plain data, fit for JSON.

    Raises
    ------
    UnsupportedExpression
        If the expression needs other rows or uses an operation without a plain counterpart; the message names it and
        what is supported.

    Examples
    --------
    >>> import polars as pl
    >>> tree = compile_tree(pl.col("distance") / 100)
    >>> tree["op"], tree["args"][0]
    ('divide', {'op': 'column', 'name': 'distance'})
    >>> evaluator(tree)({"distance": 250})
    2.5
    """
    return _translate(json.loads(expr.meta.serialize(format="json")))


def evaluator(tree: Tree) -> Evaluate:
    """Turn a tree into a function of one row (column name → value); timestamps are aware datetimes in UTC.

    Raises
    ------
    UnsupportedExpression
        If the tree names an operation that this version does not know.
    """
    op = tree.get("op")
    if op == "column":
        name = tree["name"]
        return lambda row: row[name]
    if op == "literal":
        value = _literal_value(tree)
        return lambda row: value  # noqa: ARG005 - a constant is an evaluator like any other
    if op not in OPERATIONS:
        raise UnsupportedExpression(f"operation '{op}' is unknown; supported are {supported_operations()}")
    parameters = {key: value for key, value in tree.items() if key not in {"op", "args"}}
    return OPERATIONS[op](*(evaluator(argument) for argument in tree["args"]), **parameters)


def columns_of(tree: Tree) -> set[str]:
    """Names of the columns that a tree reads.

    Examples
    --------
    >>> columns_of({"op": "abs", "args": [{"op": "column", "name": "distance"}]})
    {'distance'}
    """
    own = {tree["name"]} if tree["op"] == "column" else set[str]()
    return own.union(*map(columns_of, tree.get("args", ())))


def supported_operations() -> str:
    """Names of the operations that a portable expression may use, for messages and documentation."""
    return ", ".join(["column", "literal", *sorted(OPERATIONS)])


def same(a: Any, b: Any) -> bool:
    """Whether two computed values agree: null with null, NaN with NaN, numbers up to the last digits."""
    if a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12) or (is_nan(a) and is_nan(b))
    return bool(a == b)


def _translate(node: dict[str, Any]) -> Tree:  # noqa: PLR0911 - one return per kind of node
    ((kind, body),) = node.items()
    if kind == "Column":
        return {"op": "column", "name": body}
    if kind == "Alias":
        return _translate(body[0])
    if kind == "Literal":
        return _literal(node)
    if kind == "BinaryExpr" and body["op"] in _BINARY:
        return _operation(_BINARY[body["op"]], [body["left"], body["right"]])
    if kind == "Ternary":
        return _operation("when", [body["predicate"], body["truthy"], body["falsy"]])
    if kind == "Cast":
        return _cast(body)
    if kind == "Function":
        return _function(body)
    raise _unsupported(f"{kind} {body['op']}" if kind == "BinaryExpr" else kind)


def _operation(op: str, arguments: list[dict[str, Any]], **parameters: Any) -> Tree:
    args = [_translate(argument) for argument in arguments]
    if op in _OVERFLOWING and (small := [arg["op"] for arg in args if arg["op"] in _SMALL_INTEGERS]):
        raise UnsupportedExpression(
            f"'{op}' on {small[0]}(), which is a small integer in Polars and would overflow there: add .cast(pl.Int64)"
        )
    if op in _DIVISIONS:
        parameters = {"by_constant": args[1]["op"] == "literal"}
    return {"op": op, "args": args, **parameters}


def _function(body: dict[str, Any]) -> Tree:
    path, parameters = _flatten(body["function"])
    if path not in _FUNCTIONS:
        raise _unsupported(path)
    op, arguments = _FUNCTIONS[path], body["input"]
    if path == "Boolean.IsIn":
        return _is_in(arguments, parameters)
    if path == "TemporalExpr.OffsetBy":
        return {"op": "add", "args": [_translate(arguments[0]), _offset(_translate(arguments[1]))]}
    if path == "TemporalExpr.ConvertTimeZone":
        return _operation(op, arguments, zone=parameters["inner"])
    if path == "Round":
        if parameters["mode"] != "HalfToEven":
            raise _unsupported(f"round(mode={parameters['mode']})")
        return _operation(op, arguments, decimals=parameters["decimals"])
    return _operation(op, arguments, **parameters)


def _flatten(function: Any) -> tuple[str, dict[str, Any]]:
    """`{"Temporal": {"TotalDays": {"fractional": false}}}` → `Temporal.TotalDays`, `{"fractional": false}`."""
    path: list[str] = []
    while isinstance(function, dict) and len(function) == 1 and next(iter(function))[0].isupper():
        ((name, function),) = function.items()
        path.append(name)
    if isinstance(function, str):
        path.append(function)
    return ".".join(path), function if isinstance(function, dict) else {}


def _cast(body: dict[str, Any]) -> Tree:
    target = body["dtype"].get("Literal")
    if target not in CASTS or body["options"] != "Strict":
        raise UnsupportedExpression(
            f"cast to {target or body['dtype']} ({body['options']}) cannot be computed online; "
            f"supported are strict casts to {', '.join(CASTS)}"
        )
    return _operation("cast", [body["expr"]], to=target)


def _is_in(arguments: list[dict[str, Any]], parameters: dict[str, Any]) -> Tree:
    members = _python_literal(arguments[1]) if "Literal" in arguments[1] else None
    if not isinstance(members, list) or parameters.get("nulls_equal"):
        raise UnsupportedExpression("is_in: only with a list of literal values and nulls_equal=False")
    if not all(value is None or isinstance(value, bool | int | float | str) for value in members):
        raise UnsupportedExpression("is_in: only lists of numbers, texts or booleans")
    return {"op": "is_in", "args": [_translate(arguments[0])], "values": members}


def _offset(node: Tree) -> Tree:
    match = _OFFSET.fullmatch(str(node.get("value")))
    if node["op"] != "literal" or match is None:
        raise UnsupportedExpression("dt.offset_by: only a literal of fixed length such as '-1h30m' (us, ms, s, m, h)")
    total = sum(int(n) * _OFFSET_UNITS[unit] for n, unit in re.findall(r"(\d+)(us|ms|s|m|h)", match[2]))
    return {"op": "literal", "type": "duration", "value": -total if match[1] else total}


def _literal(node: dict[str, Any]) -> Tree:
    value = _python_literal(node)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return {"op": "literal", "type": "timestamp", "value": value.astimezone(UTC).isoformat()}
    if isinstance(value, timedelta):
        return {"op": "literal", "type": "duration", "value": round(value / timedelta(microseconds=1))}
    if value is None or isinstance(value, bool | int | float | str):
        return {"op": "literal", "value": value}
    raise _unsupported(f"literal of type {type(value).__name__}")


def _python_literal(node: dict[str, Any]) -> Any:
    """The literal's value, decoded by Polars itself: lists are Arrow bytes in an encoding that is not public."""
    import io

    import polars as pl

    inner = next(iter(node["Literal"].values()))
    if isinstance(inner, dict) and {"Float", "Float64"} & set(inner) and None in inner.values():
        raise UnsupportedExpression(
            "a literal NaN or infinity cannot be kept as JSON: test with is_nan() or is_finite()"
        )
    value = pl.select(pl.Expr.deserialize(io.BytesIO(json.dumps(node).encode()), format="json")).item()
    return value.to_list() if isinstance(value, pl.Series) else value


def _literal_value(tree: Tree) -> Any:
    if tree.get("type") == "timestamp":
        return datetime.fromisoformat(tree["value"])
    if tree.get("type") == "duration":
        return timedelta(microseconds=tree["value"])
    return tree["value"]


def _unsupported(what: str) -> UnsupportedExpression:
    return UnsupportedExpression(f"{what} cannot be computed online; supported are {supported_operations()}")
