"""`/models/{model}/versions` in the OpenAPI document: what is recorded of versions, and what people say of them."""

from typing import Any, get_args

import msgspec

from ml_platform.registry.version_facts import VersionFacts
from ml_platform.registry.version_notes import NoteAction
from ml_platform.serving.endpoints.version_routes import ModelNotes, VersionNotes
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.operations import STORE, TIMES, Protocol, called, in_path, json_body
from ml_platform.serving.openapi.schemas import TEXT, listed, record

VERSIONS = Protocol("models", "Error")
_INSTANT = {"type": "string", "format": "date-time"}
_ANSWERS = {"type": ["integer", "null"], "description": "Number of the comment that it answers."}
_SAID: dict[str, Any] = {
    "model": TEXT,
    "description": {**TEXT, "description": "In somebody's own words; empty without."},
    "tags": {"type": "object", "additionalProperties": TEXT, "description": "Of people."},
    "comments": listed(record(number={"type": "integer"}, by=TEXT, at=_INSTANT, text=TEXT, answers=_ANSWERS)),
    "said": listed(
        record(
            action={"enum": list(get_args(NoteAction))},
            by=TEXT,
            at=_INSTANT,
            text={**TEXT, "description": "Comment, description, a tag's value, or why the stage was chosen."},
            name={**TEXT, "description": "Of the tag, or the stage."},
            answers=_ANSWERS,
        ),
        "All of it, oldest first; nothing is ever changed or removed.",
    ),
}
_UNKNOWN = {"404": "There is no such model, version, comment or tag; the message says which there are."}
_WRONG = {
    "400": "The body is not JSON.",
    "409": "No key: it must be known who says it.",
    "415": "The body is not application/json.",
    "422": "The body does not fit, or the version cannot be put into that stage; the message says what to do.",
    **TIMES,
}


def _without_tuples(schema: Any) -> Any:
    """Say of lists of a fixed length what one item is: generators of clients know no `prefixItems`."""
    if isinstance(schema, list):
        return [_without_tuples(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _without_tuples(one) for name, one in schema.items() if name != "prefixItems"}
    if parts := schema.get("prefixItems"):
        plain["items"] = parts[0] if all(one == parts[0] for one in parts) else {"anyOf": parts}
    return plain


def with_versions(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add the routes to a document."""
    schemas, name = document["components"]["schemas"], called(state)
    schemas |= msgspec.json.schema_components(
        [VersionFacts, ModelNotes, VersionNotes], ref_template="#/components/schemas/{name}"
    )[1]
    schemas["VersionFacts"] = _without_tuples(schemas["VersionFacts"])
    facts = {"$ref": "#/components/schemas/VersionFacts"}
    of_version = {"title": "A version", **record(**_SAID, recorded=facts)}
    of_model = {"title": "A model's versions", **record(**_SAID, versions=listed(facts, "Newest first."))}
    number = {**in_path("version", "Number in the registry."), "schema": {"type": "integer", "minimum": 0}}
    document["paths"].setdefault("/models/{model}", {})["patch"] = VERSIONS.operation(
        "say_of_model", "Describe, tag or comment on a model", {"title": "What was said", **record(**_SAID)},
        _UNKNOWN | _WRONG | STORE, parameters=(name,), body=json_body("ModelNotes", {"comment": "fit for Mondays"}),
    )  # fmt: skip
    document["paths"]["/models/{model}/versions"] = {
        "get": VERSIONS.operation(
            "list_versions", "Every registered version, with stage, quality and provenance", of_model,
            _UNKNOWN | STORE, parameters=(name,),
        ),
    }  # fmt: skip
    document["paths"]["/models/{model}/versions/{version}"] = {
        "get": VERSIONS.operation(
            "show_version", "What is recorded of a version, and what people said", of_version,
            _UNKNOWN | STORE, parameters=(name, number),
        ),
        "patch": VERSIONS.operation(
            "say_of_version", "Describe, tag, comment on a version, or change its stage", of_version,
            _UNKNOWN | _WRONG | STORE,
            about="What is left out stays. An archived version cannot be released; Production is what serves, and is "
            "changed at `/endpoints/{model}`.",
            parameters=(name, number),
            body=json_body("VersionNotes", {"tags": {"risk": "low"}, "comment": "slices looked at, fine"}),
        ),
    }  # fmt: skip
    return document
