"""Look-ups of features in the OpenAPI document, written from the views and services that a worker knows."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from ml_platform.features.services.lookup import STATUSES
from ml_platform.features.services.plan import LookupPlan, NotServable, plan_service, plan_view
from ml_platform.registry.manifest import Input
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.mlflow import INVOCATION_ERRORS, MLFLOW
from ml_platform.serving.openapi.operations import TIMES, Protocol, json_body
from ml_platform.serving.openapi.predictions import (
    MASKED,
    REQUEST_ID,
    YEARS,
    error_responses,
    field_example,
    field_schema,
    field_table,
    json_content,
    request_body,
)
from ml_platform.serving.openapi.schemas import TEXT, listed, record

DATABRICKS = Protocol("Databricks model serving", MLFLOW.shape)
FEAST = Protocol("Feast", "FeastError")
_ERRORS = {
    "400": "The body is not JSON.",
    "403": "The key is not for it, rows of a view are hidden from the caller, or it is not known what is masked.",
    "404": "No view and no service has this name; the message lists those that there are.",
    "408": "The body did not arrive in time.",
    "409": "The online store does not fit: a view is not there, lacks a feature, or has another definition than a "
    "pinned service. The message says what to do.",
    "413": "The body is larger than 16 MiB.",
    "415": "The body is compressed, neither with gzip nor deflate.",
    "422": "Rows do not fit the fields; `problems` names row and field of each.",
    "503": "The online store cannot be read, or too many look-ups wait. Retry-After says when to try again.",
}
_OPTIONS = [
    {
        "name": "format",
        "in": "query",
        "required": False,
        "description": "One object for each row, or one array for each feature.",
        "schema": {"type": "string", "enum": ["rows", "columns"], "default": "rows"},
    },
    {
        "name": "request_features",
        "in": "query",
        "required": False,
        "description": "Whether the features that are computed from the request are answered too.",
        "schema": {"type": "string", "enum": ["true", "false", "1", "0"], "default": "false"},
    },
]
_OPTIONS.append(
    {
        "name": "as_of",
        "in": "query",
        "required": False,
        "description": "Instant from which ages and TTLs count, and after which nothing was known; now by default.",
        "schema": {"type": "string", "format": "date-time", "pattern": YEARS, "examples": ["2024-06-01T12:00:00Z"]},
    }
)
_STATUS = {"enum": list(STATUSES), "description": "; ".join(f"{name}: {about}" for name, about in STATUSES.items())}
_INSTANT = {"type": "string", "format": "date-time", "description": "From when on the values were known."}
_AGE = {"type": "number", "description": "Seconds from then to `time`; below 0 for one ahead of the server's clock."}
_FRESHNESS = {
    "type": "object",
    "title": "What one view knows of one key",
    "required": ["status"],
    "properties": {"status": _STATUS, "event_time": _INSTANT, "age_seconds": _AGE},
}
_COLUMN_FRESHNESS = {
    **record(
        status=listed(_STATUS),
        event_time=listed({**_INSTANT, "type": ["string", "null"]}),
        age_seconds=listed({**_AGE, "type": ["number", "null"]}),
    ),
    "title": "What one view knows of the keys of all rows",
}
_VIEW = {
    **record(
        view=TEXT,
        definition={"type": "string", "description": "SHA-256 of the definition that computed the values."},
        ttl_seconds={"type": ["number", "null"], "description": "Age up to which values are given out; null for any."},
    ),
    "title": "A view whose values are in an answer",
}
_VALUES = {"type": "object", "additionalProperties": {}}
_FEAST_REQUEST = {
    "type": "object",
    "title": "A request of Feast's clients",
    "required": ["entities"],
    "additionalProperties": False,
    "properties": {
        "entities": {
            "type": "object",
            "description": f"Columns of one length, at most {MAX_ROWS:,}: the keys, and inputs of request features.",
            "additionalProperties": {"type": "array"},
        },
        "features": listed({"type": "string", "pattern": "^[^:]+:.+$"}, "Each `view:feature`; or a service."),
        "feature_service": {"type": ["string", "null"], "description": "Name of a service; or features."},
        "full_feature_names": {"type": "boolean", "default": False},
        "include_feature_view_version_metadata": {"type": "boolean", "default": False},
    },
}
_FEAST_ANSWER = {
    **record(
        metadata={**record(feature_names=listed(TEXT)), "additionalProperties": True},
        results=listed(
            record(
                values={"type": "array"},
                statuses=listed({"enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]}),
                event_timestamps=listed({"type": "string", "format": "date-time"}),
            ),
            "One for each name, in their order.",
        ),
    ),
    "title": "Columns as Feast answers them",
}
_FEAST_ERROR = {
    **record(status_code={"type": "integer"}, detail=TEXT),
    "title": "An error as Feast's server has it",
}


def with_lookups(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add the look-ups: one for each view and service, or one for all while there is none; and Feast's."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    schemas |= {
        "Freshness": _FRESHNESS,
        "ColumnFreshness": _COLUMN_FRESHNESS,
        "ViewAbout": _VIEW,
        "FeastRequest": _FEAST_REQUEST,
        "FeastAnswer": _FEAST_ANSWER,
        "FeastError": _FEAST_ERROR,
    }
    plans = known_plans(state)
    for name, plan in plans.items():
        schemas[f"{name}_lookup_row"] = _row_schema(plan)
        schemas[f"{name}_features"] = _answer_schema(plan)
        paths[f"/features/{name}/lookup"] = {"post": _operation(plan)}
        if plan.service is not None and name not in state.slots:
            paths[f"/serving-endpoints/{name}/invocations"] = {"post": _databricks(plan)}
    if not plans:
        parameter = {"name": "view", "in": "path", "required": True, "schema": {"type": "string"}}
        anything = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        paths["/features/{view}/lookup"] = {
            "post": {
                "tags": ["features"],
                "summary": "Look up features of a view or service",
                "operationId": "look_up",
                "description": "None is in the online store yet. Once one is published its fields show here.",
                "parameters": [parameter, *_OPTIONS, REQUEST_ID],
                "requestBody": anything,
                "responses": {"200": {"description": "Looked up."}, **error_responses(_ERRORS)},
            }
        }
    paths["/get-online-features"] = {"post": _feast(plans)}
    return document


def known_plans(state: ServingState) -> dict[str, LookupPlan]:
    """How each view and service is looked up that can be, services first."""
    plans: dict[str, LookupPlan] = {}
    for name, service in sorted(state.services.items()):
        with suppress(NotServable):  # a request is told why
            plans[name] = plan_service(service, state.views)
    for name, definition in sorted(state.views.items()):
        with suppress(NotServable):
            plans.setdefault(name, plan_view(name, definition))
    return plans


def lookup_fields(plan: LookupPlan) -> list[Input]:
    """Fields of a row; keys are described as nullable, though they must be sent."""
    return [
        msgspec.structs.replace(field, required=False) if field.name in plan.nullable else field
        for field in plan.fields
    ]


def lookup_example(plan: LookupPlan) -> dict[str, Any]:
    """A row that can be looked up, whatever is known of it."""
    values = {field.name: field_example(field) for field in plan.fields}
    return {name: value for name, value in values.items() if value is not None or name in plan.nullable}


def _row_schema(plan: LookupPlan) -> dict[str, Any]:
    return {
        "type": "object",
        "title": f"Keys of {plan.name}",
        "additionalProperties": False,
        "required": [field.name for field in plan.fields if field.required],
        "properties": {field.name: field_schema(field) for field in lookup_fields(plan)},
    }


def _answer_schema(plan: LookupPlan) -> dict[str, Any]:
    names = [column for view in plan.views for column in view.columns] + [name for name, _ in plan.derived]
    about = f"By name, null where there is none: {', '.join(names)}."
    freshness = {"$ref": "#/components/schemas/Freshness"}
    by_column = {"$ref": "#/components/schemas/ColumnFreshness"}
    return {
        "type": "object",
        "title": f"Features of {plan.name}",
        "required": ["name", "kind", "request_id", "time", "views"],
        "properties": {
            "name": TEXT,
            "kind": {"enum": ["view", "service"]},
            "revision": {"type": "integer", "description": "Of the service."},
            "request_id": TEXT,
            "time": {"type": "string", "format": "date-time", "description": "From which ages count."},
            "views": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/ViewAbout"}},
            "rows": listed(
                record(
                    features={**_VALUES, "description": about},
                    views={"type": "object", "additionalProperties": freshness},
                ),
                "In the order of the request's; absent from an answer by column.",
            ),
            "features": {
                "type": "object",
                "additionalProperties": {"type": "array"},
                "description": f"By column only. {about}",
            },
            "freshness": {
                "type": "object",
                "additionalProperties": by_column,
                "description": "By column only, by view.",
            },
            "masked": MASKED,
        },
    }


def _operation(plan: LookupPlan) -> dict[str, Any]:
    what = "view" if plan.service is None else "service"
    about = [] if plan.service is None else [plan.service.description.strip()]
    about += [
        f'Send one row as an object, or up to {MAX_ROWS:,} as `{{"rows": [...]}}`. It takes the role `predict` for '
        f"`features/{plan.name}`.",
        field_table(lookup_fields(plan)),
    ]
    return {
        "tags": ["features"],
        "summary": f"Look up features of the {what} {plan.name}",
        "operationId": f"look_up_{plan.name}",
        "description": "\n\n".join(about),
        "parameters": [*_OPTIONS, REQUEST_ID],
        "requestBody": request_body(plan.name, f"{plan.name}_lookup_row", lookup_example(plan)),
        "responses": {
            "200": {"description": "Looked up.", "content": json_content(f"{plan.name}_features")},
            **error_responses(_ERRORS),
        },
    }


def _databricks(plan: LookupPlan) -> dict[str, Any]:
    row = {**_row_schema(plan), "title": f"Keys of {plan.name} and further fields", "additionalProperties": True}
    rows = listed(row, minItems=1, maxItems=MAX_ROWS)
    content = {
        "application/json": {
            "schema": record(dataframe_records=rows),
            "example": {"dataframe_records": [lookup_example(plan)]},
        }
    }
    answer = record(
        outputs=listed(_VALUES, "For each row what was sent, and the features under the views' own names."),
        freshness={"type": "object", "additionalProperties": {"type": "object"}},
    )
    answer["properties"]["masked"] = MASKED
    return DATABRICKS.operation(
        f"query_features_{plan.name}",
        f"Features of {plan.name}, as Databricks' feature serving answers",
        answer,
        INVOCATION_ERRORS | {"409": _ERRORS["409"]},
        about="Takes `dataframe_split`, `instances` and `inputs` too; unknown fields are passed over.",
        body={"required": True, "content": content},
    )


def _feast(plans: Mapping[str, LookupPlan]) -> dict[str, Any]:
    view = next((plan for plan in plans.values() if plan.service is None), None)
    keys = {} if view is None else {name: [value] for name, value in lookup_example(view).items()}
    features = ["view:feature"] if view is None else [f"{view.name}:{view.views[0].features[0]}"]
    example = {"entities": keys or {"key": ["value"]}, "features": features}
    return FEAST.operation(
        "get_online_features",
        "Online features, as Feast's server answers",
        {"$ref": "#/components/schemas/FeastAnswer"},
        {name: _ERRORS[name] for name in ("400", "404", "409", "415", "422", "503")} | TIMES,
        about="`features` of views by `view:feature`, or a `feature_service`; with the role `predict` for each.",
        body=json_body("FeastRequest", example),
    )
