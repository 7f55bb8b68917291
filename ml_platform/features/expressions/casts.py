"""Strict casts of single values that give and refuse what Polars' casts do."""

from collections.abc import Callable
from typing import Any


def _plain(value: Any) -> Any:
    """Refuse texts that Python reads as numbers but Polars does not: `1_000`, ` 12 `, digits of other scripts."""
    if isinstance(value, str) and (not value.isascii() or "_" in value or value != value.strip()):
        raise ValueError(f"'{value}' is no number")
    return value


def _to_integer(value: Any) -> int:
    return int(_plain(value))  # like Polars truncates, and raises for NaN, infinity and text that is no number


def _to_float(value: Any) -> float:
    return float(_plain(value))


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as text the way Polars does: cast it to Int64 first")


CASTS: dict[str, Callable[[Any], Any]] = {
    "Int64": _to_integer,
    "Float64": _to_float,
    "Boolean": bool,
    "String": _to_string,
}
