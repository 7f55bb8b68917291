"""The push routes in the OpenAPI document, written from the columns of the views that the online store holds."""

from collections.abc import Mapping
from typing import Any

import msgspec

from ml_platform.features.online.store import Definition, ViewSchema
from ml_platform.registry.manifest import Input
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.openapi.predictions import (
    REQUEST_ID,
    error_responses,
    field_example,
    field_schema,
    field_table,
    json_content,
    request_body,
)

_ERRORS = {
    "400": "The body is not JSON.",
    "404": "The online store has no view of this name; the message lists those that there are.",
    "408": "The body did not arrive in time.",
    "409": "The view's definition has changed, or its columns are not recorded yet. The message says what to do.",
    "413": "The body is larger than 16 MiB.",
    "415": "The body is compressed, neither with gzip nor deflate.",
    "422": "Rows do not fit the view's columns; `problems` names row and field of each.",
    "503": "The push cannot be accepted: too many wait, or the log or the online store failed. Retry-After says when "
    "to try again.",
}
_ANSWER = {
    "type": "object",
    "required": ["view", "accepted", "stale", "request_id"],
    "properties": {
        "view": {"type": "string"},
        "accepted": {"type": "integer", "description": "Rows logged, and in the online store unless stale."},
        "stale": {
            "type": "integer",
            "description": "Of these, rows older than the online store's: they go to the feature table only.",
        },
        "request_id": {"type": "string"},
    },
}


def with_pushes(document: dict[str, Any], views: Mapping[str, Definition]) -> dict[str, Any]:
    """Add the push routes to a document, one for each view, or one for all while there is none."""
    schemas = document["components"]["schemas"]
    schemas["Push"] = _ANSWER
    paths = document["paths"]
    for name, definition in sorted(views.items()):
        if definition.schema is not None:
            row = f"{name}_pushed_row"
            schemas[row] = _row_schema(name, definition.schema)
            paths[f"/features/{name}"] = {"post": _operation(name, definition, definition.schema)}
    if not views:
        nothing = "No feature view is in the online store yet. Once one is published its fields show here."
        parameter = {"name": "view", "in": "path", "required": True, "schema": {"type": "string"}}
        anything = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        paths["/features/{view}"] = {
            "post": {**_described("push", nothing), "parameters": [parameter, REQUEST_ID], "requestBody": anything}
        }
    return document


def _fields(schema: ViewSchema) -> list[Input]:
    """Fields of a row; features are described as nullable, though they must be sent."""
    features = (msgspec.structs.replace(column, required=False) for column in schema.columns)
    return [*schema.fields[: -len(schema.columns)], *features]


def _row_schema(name: str, schema: ViewSchema) -> dict[str, Any]:
    fields = _fields(schema)
    return {
        "type": "object",
        "title": f"A row of {name}",
        "additionalProperties": False,
        "required": [field.name for field in fields],
        "properties": {field.name: field_schema(field) for field in fields},
    }


def _operation(name: str, definition: Definition, schema: ViewSchema) -> dict[str, Any]:
    values = {field.name: field_example(field) for field in schema.fields}
    example = {name: value for name, value in values.items() if value is not None}
    about = (
        f"Logged, then in the online store before the answer leaves. Definition {definition.hash[:12]}.\n\n"
        f'Send one row as an object, or up to {MAX_ROWS:,} as `{{"rows": [...]}}`.\n\n{field_table(_fields(schema))}'
    )
    return {
        **_described(f"push_{name}", about),
        "summary": f"Push rows of {name}",
        "parameters": [REQUEST_ID],
        "requestBody": request_body(name, f"{name}_pushed_row", example),
    }


def _described(operation: str, about: str) -> dict[str, Any]:
    return {
        "tags": ["features"],
        "summary": "Push rows of a feature view",
        "operationId": operation,
        "description": about,
        "responses": {"200": {"description": "Accepted.", "content": json_content("Push")}, **error_responses(_ERRORS)},
    }
