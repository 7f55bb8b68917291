"""JSON schemas of objects and arrays, in few words."""

from collections.abc import Mapping
from typing import Any

TEXT = {"type": "string"}


def record(about: str = "", **properties: Any) -> dict[str, Any]:
    """JSON schema of an object that has all of these properties."""
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {**schema, "description": about} if about else schema


def listed(items: Mapping[str, Any], about: str = "", **limits: Any) -> dict[str, Any]:
    """JSON schema of an array."""
    schema = {"type": "array", "items": items, **limits}
    return {**schema, "description": about} if about else schema
