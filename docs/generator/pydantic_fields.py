"""How a field of a pydantic model reads in a table: its type, its bounds and its default, in words and as YAML."""

import json
import types
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ml_platform.spec.types import duration

_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    timedelta: "span of time",
    Any: "any value",
}
_BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "min_length": "at least {} of them"}


def plain(annotation: Any) -> Any:
    """Return a type without what `Annotated` adds, and without None among alternatives."""
    if get_origin(annotation) is Annotated:
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        given = [one for one in get_args(annotation) if one is not type(None)]
        if len(given) == 1:
            return plain(given[0])
    return annotation


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models that a type is made of."""
    annotation = plain(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def type_words(annotation: Any) -> str:
    """Say a type in words.

    Examples
    --------
    >>> type_words(tuple[str, ...]), type_words(Literal["a", "b"] | None), type_words(dict[str, float])
    ('list of text', '`a` or `b`', 'mapping of text to number')
    """
    annotation = plain(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        *first, last = [f"`{value}`" for value in arguments]
        return f"{', '.join(first)} or {last}" if first else last
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(one) for one in arguments if one is not type(None))
    if origin in (tuple, list):
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_words(arguments[0])} to {type_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def bounds(field: FieldInfo) -> str:
    """Say the bounds of a field's values.

    Examples
    --------
    >>> from pydantic import Field
    >>> class Example(BaseModel):
    ...     share: float = Field(1.0, gt=0, le=1)
    >>> bounds(Example.model_fields["share"])
    '> 0, ≤ 1'
    """
    found = []
    for one in field.metadata:
        for name, words in _BOUNDS.items():
            if (bound := getattr(one, name, None)) is not None and not (name == "min_length" and bound == 1):
                found.append(words.format(f"{bound:,}" if isinstance(bound, int) else bound))
    return ", ".join(found)


def default_words(field: FieldInfo) -> str:
    """Return a field's default as one would write it in YAML; empty for a required field or one without a value."""
    if field.is_required():
        return ""
    if field.default_factory is not None:
        return "" if field.default_factory in (dict, list, tuple) else "see there"
    return value_words(field.default)


def value_words(value: Any) -> str:
    """Return a value as one would write it in YAML.

    Examples
    --------
    >>> value_words(timedelta(days=7)), value_words(True), value_words(("a", "b")), value_words(None)
    ('7 days', 'true', '[a, b]', '')
    """
    if value is None or value is PydanticUndefined or value == () or isinstance(value, BaseModel):
        return ""
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return f"[{', '.join(one if one else json.dumps(one) for one in map(str, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return str(value) or '""'
