"""`/endpoints/{model}` in the OpenAPI document: which versions answer, and their traffic shares."""

from typing import Any, get_args

import msgspec

from ml_platform.registry.approvals import EventAction, State
from ml_platform.registry.manifest import CanaryState
from ml_platform.serving.endpoints.approval_routes import ApprovalAnswer
from ml_platform.serving.endpoints.routes import EndpointChange
from ml_platform.serving.endpoints.service import HISTORY
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.operations import STORE, TIMES, Protocol, called, example_version, in_path, json_body
from ml_platform.serving.openapi.schemas import listed, record

ENDPOINTS = Protocol("endpoints", "Error")
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NUMBER = {"type": "integer", "minimum": 0}
_TARGET: dict[str, Any] = {
    "version": {"type": "integer", "minimum": 1},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "mode": {"enum": ["live", "shadow"]},
    "digest": {"type": "string"},
}
_GUARD = record(
    guard={"type": "string"},
    champion={"type": "number"},
    canary={"type": "number"},
    difference={"type": "number", "description": "In the units of the bound."},
    bound={"type": "number"},
    chance={"type": "number", "description": "Probability of such a difference between two equal versions."},
    breached={"type": "boolean"},
    said={"type": "string"},
)
_REPORT = record(
    revision={"type": "integer", "minimum": 1},
    at={"type": "string", "format": "date-time"},
    decision={"enum": ["wait", "advance", "roll back"]},
    said={"type": "string"},
    champion_requests=_NUMBER,
    canary_requests=_NUMBER,
    guards=listed(_GUARD, "Each guard's finding."),
)
_CANARY = record(
    version={"type": "integer", "minimum": 1},
    state={"enum": list(get_args(CanaryState))},
    percent={"type": "number", "description": "Of the traffic, that the step gives it."},
    step={"type": "integer", "minimum": 1},
    steps=listed({"type": "number"}, "Percents of the traffic."),
    started_at={"type": "string", "format": "date-time"},
    started_by={"type": "string"},
    report={"anyOf": [_REPORT, {"type": "null"}], "description": "What was last found; null before the first look."},
)
_ENDPOINT = {
    "title": "An endpoint",
    **record(
        name={"type": "string"},
        model={"type": "string"},
        revision={**_NUMBER, "description": "The ETag; 0 before the first."},
        targets=listed(
            record(**_TARGET),
            "None while it is out of service.",
        ),
        key={**_TEXT_OR_NULL, "description": "Input that decides between versions; the model's id when null."},
        reason=_TEXT_OR_NULL,
        updated_at=_TEXT_OR_NULL,
        updated_by=_TEXT_OR_NULL,
        in_force={"type": ["integer", "null"], "description": "Revision that this worker serves."},
        refused={**_TEXT_OR_NULL, "description": "Why a newer revision does not serve."},
        versions=listed({"type": "integer", "minimum": 1}, "Versions that may serve."),
        canary={
            "anyOf": [_CANARY, {"type": "null"}],
            "description": "The canary walk that the revision is a step or the end of.",
        },
    ),
}
_STATE = record(
    revision={"type": "integer", "minimum": 1},
    since={"type": "string", "format": "date-time"},
    until={**_TEXT_OR_NULL, "format": "date-time", "description": "Null while it is in force."},
    action={"type": "string"},
    by={"type": "string"},
    reason={"type": "string"},
    targets=listed(
        record(**_TARGET, origin={"type": ["object", "null"], "description": "Data and code that made the version."}),
        "None while it was out of service.",
    ),
)
_AT = {
    "name": "at",
    "in": "query",
    "required": False,
    "description": "Only what served at this instant.",
    "schema": {"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]},
}
_REASON = {
    "name": "reason",
    "in": "query",
    "required": False,
    "description": "Why; it goes into the ledger and the endpoint document.",
    "schema": {"type": "string", "maxLength": 1000, "examples": ["replaced by another model"]},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag that GET gave, or * to overwrite whatever is there.",
    "schema": {"type": "string", "pattern": r'^(\*|"[!#-~]*"|[0-9]{1,9})$', "examples": ["*"]},
}
_NOT_THERE = {"404": "There is no such endpoint; the message lists those that there are."}
_NO_PAST = {
    "404": "The endpoint served nothing, or nothing at that instant.",
    "422": "An unknown option, or no instant.",
}
_EVENT = record(
    action={"enum": list(get_args(EventAction))},
    by={"type": "string"},
    at={"type": "string", "format": "date-time"},
    comment={"type": "string"},
)
_REQUEST: dict[str, Any] = {
    "title": "A version that waits for a person, or has",
    **record(
        model={"type": "string"},
        version={"type": "integer"},
        state={"enum": list(get_args(State))},
        requested_by={"type": "string"},
        expires_at={"type": "string", "format": "date-time"},
        events=listed(_EVENT, "What was asked and answered, oldest first."),
    ),
}
_ANSWERED = {
    "title": "An answer",
    **record(
        **_REQUEST["properties"],
        revision={
            "type": ["integer", "null"],
            "description": "Of the endpoint, by which it serves; null if it does not.",
        },
        not_released={**_TEXT_OR_NULL, "description": "Why an approved version was not released."},
    ),
}
_NO_ANSWER = {
    "400": "The body is not JSON.",
    "404": "The version is no number, or nobody asked for this version.",
    "409": "No key, or this person may not answer, or the version does not wait any more.",
    "422": "The body does not fit, or the version was archived.",
}
_CONFLICTS = {
    "400": "The body is not JSON, or If-Match neither an ETag nor *.",
    "409": "A version would serve for the first time that a person has to approve first.",
    "412": "The endpoint was changed by somebody else meanwhile.",
    "422": "The body does not fit, names versions that may not serve, or its shares do not add up to 1.",
    "428": "If-Match is missing.",
}


def with_endpoints(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add the routes to a document."""
    schemas = document["components"]["schemas"]
    schemas["Endpoint"] = _ENDPOINT
    schemas |= msgspec.json.schema_components([EndpointChange], ref_template="#/components/schemas/{name}")[1]
    answer, name = {"$ref": "#/components/schemas/Endpoint"}, called(state)
    body_errors = {"415": "The body is not application/json.", **TIMES}
    example = {"targets": [{"version": example_version(state)[1], "share": 1.0}], "reason": "canary ended"}
    document["paths"]["/endpoints/{model}"] = {
        "get": ENDPOINTS.operation(
            "show_endpoint", "Which versions answer", answer, _NOT_THERE | STORE, parameters=(name,)
        ),
        "put": ENDPOINTS.operation(
            "change_endpoint", "Change which versions answer how much", answer,
            _NOT_THERE | _CONFLICTS | body_errors | STORE,
            about="`targets` replaces all targets: a version that is not among them no longer serves.",
            parameters=(name, _IF_MATCH), body=json_body("EndpointChange", example),
        ),
        "delete": ENDPOINTS.operation(
            "withdraw_endpoint", "Take an endpoint out of service", answer, _NOT_THERE | _CONFLICTS | STORE,
            parameters=(name, _IF_MATCH, _REASON),
        ),
    }  # fmt: skip
    document["paths"]["/endpoints/{model}/history"] = {
        "get": ENDPOINTS.operation(
            "show_history", "What served since when, by whom and why, and which data made it",
            listed(_STATE, "Newest first."), _NO_PAST | STORE,
            about=f"The newest {HISTORY} states, without `at`.", parameters=(name, _AT),
        ),
    }  # fmt: skip
    schemas |= msgspec.json.schema_components([ApprovalAnswer], ref_template="#/components/schemas/{name}")[1]
    version = {**in_path("version", "Version that waits."), "schema": {"type": "integer", "minimum": 0}}
    document["paths"]["/endpoints/{model}/approvals"] = {
        "get": ENDPOINTS.operation(
            "list_approvals", "Which versions wait for a person, or have", listed(_REQUEST), STORE, parameters=(name,)
        ),
    }
    document["paths"]["/endpoints/{model}/approvals/{version}"] = {
        "post": ENDPOINTS.operation(
            "answer_approval", "Approve or reject a version that waits", _ANSWERED, _NO_ANSWER | body_errors | STORE,
            about="An approved version serves from then on. Who asked for it may not approve it, by default.",
            parameters=(name, version),
            body=json_body("ApprovalAnswer", {"decision": "approve", "comment": "card read, slices fine"}),
        ),
    }  # fmt: skip
    return document
