"""Prediction routes of the OpenAPI document, written from the signatures of the models that serve."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ml_platform.inference.intervals import HIGHEST, LOWEST
from ml_platform.registry.manifest import Input, Manifest
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.models.composed import ComposedModel, explains
from ml_platform.serving.models.descriptions import described_version
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.prediction.explanations import MAX_EXPLAINED
from ml_platform.spec.input_rules import rules_of
from ml_platform.spec.input_values import example_of

YEARS = r"^(167[89]|16[89]\d|1[7-9]\d\d|2[01]\d\d|22[0-5]\d|226[01])-"  # FIRST_YEAR to LAST_YEAR
_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time", "pattern": YEARS},
}
_ERRORS = {
    "400": "The body is not JSON.",
    "404": "No released model has this name, or no version this number; the message lists those that there are.",
    "410": "The model was retired.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than 16 MiB.",
    "415": "The body is compressed, neither with gzip nor deflate.",
    "422": "Rows do not fit the model's signature; `problems` names row and field of each.",
    "503": "It cannot be answered now: the model is not released, its release was refused, the server is busy, or the "
    "online store or the log failed. The message says why; Retry-After says when to try again.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string", "description": "For programs.", "examples": ["invalid_request"]},
                "message": {"type": "string", "description": "For people: what was wanted, what was found."},
                "request_id": {"type": "string"},
                "problems": {
                    "type": "array",
                    "description": "The first 20 things that are wrong.",
                    "items": {
                        "type": "object",
                        "required": ["message"],
                        "properties": {
                            "row": {"type": "integer", "description": "From 0; absent for a request of one row."},
                            "field": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}
REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Your own id of this request: echoed, and logged with the prediction. Made for you when absent.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
}


_OPTIONS = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": about,
        "schema": {"type": "boolean", "default": False},
    }
    for name, about in (
        ("explain", f"What each feature added to the raw score, for at most {MAX_EXPLAINED} rows."),
        ("features", "The values that the model saw, looked-up ones too."),
    )
]
_INTERVAL_OPTION = {
    "name": "interval",
    "in": "query",
    "required": False,
    "description": "Level of an interval, or of a set of classes, that holds the truth in this share of cases.",
    "schema": {"type": "number", "minimum": LOWEST, "maximum": HIGHEST},
}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "A version that the endpoint names, live or shadow.",
    "schema": {"type": "integer", "minimum": 1},
}
_INTERVAL_LEVEL = {
    "type": "object",
    "description": "Of which level intervals or sets are; absent where none was asked for.",
    "required": ["level", "adapted", "last"],
    "properties": {
        "level": {"type": "number"},
        "adapted": {"type": "boolean", "description": "Whether to labels that came after the release."},
        "last": {"type": "string", "description": "Newest row that counted (UTC)."},
    },
}
MASKED = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Features that are null since an access policy masks them for this caller; absent for none.",
}
_EXPLANATION = {
    "type": "object",
    "description": "Where asked for: `base` and `contributions` (null if masked) add up to `raw_score`.",
    "required": ["method", "of", "base", "raw_score", "contributions"],
    "properties": {
        "method": {"enum": ["tree_shap", "linear", "integrated_gradients"]},
        "of": {
            "type": "string",
            "description": "What the raw score is: log-odds, a probability, or the target's unit.",
        },
        "class": {"description": "With several classes: the one explained, whose score is highest."},
        "base": {"type": "number"},
        "raw_score": {"type": "number"},
        "contributions": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    },
}


def openapi_document(app: FastAPI, state: ServingState) -> dict[str, Any]:
    """Write the document for the models that serve now."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = _ERROR
    paths = {}
    for name, slot in sorted(state.slots.items()):
        if (main := described_version(slot)) is not None:
            row, answer = _names(name)
            schemas[row] = row_schema(main.manifest)
            schemas[answer] = answer_schema(main.manifest)
            if isinstance(main, ComposedModel):
                schemas[answer]["properties"]["members"] = {
                    "type": "object",
                    "description": "Version of each endpoint that answered a part.",
                    "properties": {name: {"type": "integer"} for name in main.composition.members},
                    "additionalProperties": False,
                }
            operation = _operation(
                name,
                main.manifest,
                main.version,
                explains=explains(main),
                has_intervals=main.intervals is not None,
            )
            paths[f"/predict/{name}"] = {"post": operation}
            paths[f"/predict/{name}/versions/{{version}}"] = {"post": _by_version(operation)}
    document["paths"] = {**(paths or {"/predict/{model}": {"post": _unreleased()}}), **document["paths"]}
    return document


def row_schema(manifest: Manifest) -> dict[str, Any]:
    """JSON schema of one row of a request."""
    return {
        "type": "object",
        "title": f"A row for {manifest.model}",
        "additionalProperties": False,
        "required": [field.name for field in manifest.inputs if field.required],
        "properties": {field.name: field_schema(field) for field in manifest.inputs},
    }


def answer_schema(manifest: Manifest) -> dict[str, Any]:
    """JSON schema of an answer."""
    unit = f" ({manifest.target_unit})" if manifest.target_unit else ""
    quantile = "" if manifest.quantile is None else f"the {manifest.quantile:g} quantile of "
    prediction: dict[str, Any] = {"type": "number", "description": f"{quantile}{manifest.target}{unit}"}
    properties: dict[str, Any] = {"prediction": prediction}
    if manifest.id is not None:
        properties = {"id": {"description": f"`{manifest.id}` of the row, where it was given."}, **properties}
    if manifest.task == "binary":
        meaning = f"{manifest.target}: true at a probability of {manifest.threshold:g} or more"
        if manifest.threshold_choice:
            meaning += f" ({manifest.threshold_choice})"
        properties["prediction"] = {"type": "boolean", "description": meaning}
        properties["probability"] = {
            "type": "number", "minimum": 0, "maximum": 1, "description": f"That {manifest.target} is true."
        }  # fmt: skip
    elif manifest.task == "multiclass":
        are_integers = all(isinstance(name, int) for name in manifest.classes)
        properties["prediction"] = {
            "type": "integer" if are_integers else "string",
            "enum": list(manifest.classes),
            "description": f"{manifest.target}: the most probable class.",
        }
        properties["probability"] = {"type": "number", "description": "Of the predicted class."}
        properties["probabilities"] = {"type": "object", "additionalProperties": {"type": "number"}}
    if manifest.task == "regression":
        properties["interval"] = {
            "type": "object",
            "description": f"Where a level was asked for: where {manifest.target} is in that share of cases{unit}.",
            "required": ["lower", "upper", "width"],
            "properties": {name: {"type": "number"} for name in ("lower", "upper", "width")},
        }
    else:
        properties["prediction_set"] = {
            "type": "array",
            "description": "Where a level was asked for: the classes among which the truth is in that share of cases.",
            "items": {
                key: properties["prediction"][key] for key in ("type", "enum") if key in properties["prediction"]
            },
        }
    properties["features"] = {"type": "object", "description": "Where asked for: what the model saw, by name."}
    properties["explanation"] = _EXPLANATION
    properties["extras"] = {"type": "object", "description": "What this server's own code adds, if it does."}
    return {
        "type": "object",
        "title": f"An answer of {manifest.model}",
        "required": ["model", "version", "request_id", "predictions"],
        "properties": {
            "model": {"const": manifest.model},
            "version": {"type": "integer", "description": "Version that answered."},
            "request_id": {"type": "string"},
            "predictions": {
                "type": "array",
                "description": "One for each row, in their order.",
                "items": {"type": "object", "required": ["prediction"], "properties": properties},
            },
            "interval": _INTERVAL_LEVEL,
            "masked": MASKED,
            "flags": {
                "type": "array",
                "description": "Inputs that break the contract, answered all the same; absent where none does.",
                "items": {
                    "type": "object",
                    "required": ["row", "field", "message"],
                    "properties": {
                        "row": {"type": "integer", "description": "From 0."},
                        "field": {"type": "string"},
                        "message": {"type": "string"},
                    },
                },
            },
            "degraded": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What failed although the request is answered; absent when all went well.",
            },
        },
    }


def example_row(manifest: Manifest) -> dict[str, Any]:
    """Make a row that the model accepts, from its owner's examples; inputs of which no value is known are left out."""
    values = {
        field.name: field_example(field) for field in manifest.inputs if field.required or field.example is not None
    }
    return {name: value for name, value in values.items() if value is not None}


def field_example(field: Input) -> Any:
    """Give a value that keeps the rules of an input, also those that only flag; None if none is known."""
    return example_of(field, field.example, field.default)


def _names(model: str) -> tuple[str, str]:
    return f"{model}_row", f"{model}_answer"


def field_schema(field: Input) -> dict[str, Any]:
    """JSON schema of one field of a row."""
    schema = dict(_TYPES[field.type])
    if not field.required:
        schema["type"] = [schema["type"], "null"]
    unit = f" ({field.unit})" if field.unit else ""
    if text := f"{field.description}{unit}".strip():
        schema["description"] = text
    if field.default is not None:
        schema["default"] = field.default
    for rule in rules_of(field):
        limits = rule.schema()
        if "enum" in limits and not field.required:
            limits["enum"].append(None)
        if rule.kind in field.flagged:  # not as limits of the schema: other values are answered, with a flag
            schema.setdefault("x-expected", {}).update(limits)
        else:
            schema |= limits
    if field.unit:
        schema["x-unit"] = field.unit
    if (example := field_example(field)) is not None:
        schema["examples"] = [example]
    return schema


def field_table(inputs: Sequence[Input]) -> str:
    """Make a Markdown table of the fields, shown above the schema on the API page."""
    lines = ["| field | type | unit | about |", "|---|---|---|---|"]
    for field in inputs:
        rules = rules_of(field)
        limits = [words for rule in rules for words in rule.table_words()]
        limits += ["else flagged"] if any(rule.kind in field.flagged for rule in rules) else []
        about = "; ".join([*filter(None, [field.description.rstrip(".")]), *limits])
        kind = field.type if field.required else f"{field.type}, {_null_words(field)}"
        lines.append(f"| `{field.name}` | {kind} | {field.unit or ''} | {about} |".replace("\n", " "))
    return "\n".join(lines)


def _null_words(field: Input) -> str:
    if field.default is not None:
        return f"null is {field.default}"
    return "null is flagged" if "null" in field.flagged else "may be null"


def _operation(name: str, manifest: Manifest, version: int, *, explains: bool, has_intervals: bool) -> dict[str, Any]:
    row_name, answer_name = _names(name)
    example = example_row(manifest)
    looked_up = ", ".join(lookup.view for lookup in manifest.lookups)
    about = f"{manifest.description}\n\nVersion {version} ({manifest.family}), by {manifest.owner}."
    if looked_up:
        about += f" Features looked up for each row: {looked_up}."
    return {
        "tags": ["predict"],
        "summary": f"Predict {manifest.target} with {name}",
        "operationId": f"predict_{name}",
        "description": f'{about}\n\nSend one row as an object, or up to {MAX_ROWS:,} as `{{"rows": [...]}}`.\n\n'
        + field_table(manifest.inputs),
        "parameters": [
            REQUEST_ID,
            *(one for one in _OPTIONS if explains or one["name"] != "explain"),
            *([_INTERVAL_OPTION] if has_intervals else []),
        ],
        "requestBody": request_body(manifest.model, row_name, example),
        "responses": {
            "200": {
                "description": "Answered, and logged.",
                "content": json_content(answer_name),
            },
            **error_responses(),
        },
    }


def request_body(name: str, row_name: str, example: Any) -> dict[str, Any]:
    """One row of a schema, or many."""
    row = {"$ref": f"#/components/schemas/{row_name}"}
    many = {
        "type": "object",
        "title": f"Rows for {name}",
        "additionalProperties": False,
        "required": ["rows"],
        "properties": {"rows": {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": row}},
    }
    examples = {
        "one": {"summary": "One row", "value": example},
        "many": {"summary": "Many rows", "value": {"rows": [example, example]}},
    }
    return {
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": [row, many]}, "examples": examples}},
    }


def _by_version(operation: dict[str, Any]) -> dict[str, Any]:
    """The same operation, answered by one version whatever its share."""
    return {
        **operation,
        "summary": f"{operation['summary']}, by one version",
        "operationId": f"{operation['operationId']}_version",
        "parameters": [_VERSION, *operation["parameters"]],
    }


def _unreleased() -> dict[str, Any]:
    return {
        "tags": ["predict"],
        "summary": "Predict with a released model",
        "description": "No model has been released yet. After the first promotion its fields show here.",
        "operationId": "predict",
        "parameters": [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
            REQUEST_ID,
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "Answered, and logged."}, **error_responses()},
    }


def error_responses(errors: Mapping[str, str] = _ERRORS, shape: str = "Error") -> dict[str, Any]:
    """Describe error answers of one shape, by status."""
    return {status: {"description": text, "content": json_content(shape)} for status, text in errors.items()}


def json_content(schema: str) -> dict[str, Any]:
    """Content of a schema among the document's components."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
