"""MLflow's routes in the OpenAPI document, and the parts of them that Databricks' routes share."""

from collections.abc import Sequence
from typing import Any

from ml_platform.inference.intervals import HIGHEST, LOWEST
from ml_platform.registry.manifest import Manifest
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.inputs.shared_inputs import SharedInputs
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.operations import TIMES, Protocol, called, served
from ml_platform.serving.openapi.predictions import answer_schema, example_row
from ml_platform.serving.openapi.schemas import TEXT, listed, record
from ml_platform.serving.protocols.mlflow import PARQUET

MLFLOW = Protocol("MLflow", "MLflowError")
INVOCATION_ERRORS = {
    "400": "The body is none of the formats, or rows do not fit the model's signature; the message says which and why.",
    "404": "No model answers there; the message lists those that there are.",
    "410": "The model was retired.",
    "415": f"The body is neither application/json nor text/csv nor {PARQUET}, or is compressed otherwise than by gzip "
    "or deflate.",
    **TIMES,
}
_PARAMS = {
    "description": "`interval` asks for intervals or sets of that level; others are ignored.",
    "properties": {"interval": {"type": ["number", "null"], "minimum": LOWEST, "maximum": HIGHEST}},
}
_ERROR = record(
    error_code={"type": "string", "examples": ["BAD_REQUEST"]},
    message={"type": "string", "description": "For people: what was wanted, what was found."},
)


def with_mlflow(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add MLflow's routes to a document: those of each model, and those of the root."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    schemas[MLFLOW.shape] = _ERROR
    models = list(served(state))
    for name, model in models:
        # Like MLflow, it ignores columns that are no inputs, unless the settings say otherwise.
        schemas[f"{name}_loose_row"] = {**schemas[f"{name}_row"], "additionalProperties": {}}
        schemas[f"{name}_invocation"] = _body_schema(name, model.manifest)
        schemas[f"{name}_predictions"] = _answer_schema(model.manifest)
        paths[f"/models/{name}/invocations"] = {"post": invocation(name, model.manifest, MLFLOW, "mlflow")}
    if len(models) == 1:
        [(name, model)] = models
        paths["/invocations"] = {"post": invocation(name, model.manifest, MLFLOW, "only")}
    of_one = (called(state),)
    paths["/models/{model}/ping"] = {"get": _ping("ping_model", "Whether a model answers", of_one)}
    paths["/models/{model}/health"] = {"get": _ping("health_of_model", "Whether a model answers", of_one)}
    paths["/models/{model}/version"] = {"get": _version("version_for_model", of_one)}
    paths["/ping"] = {"get": _ping("ping", "Whether any model answers")}
    paths["/health"] = {"get": _ping("health", "Whether any model answers")}
    paths["/version"] = {"get": _version("version")}
    return document


def invocation(
    name: str, manifest: Manifest, protocol: Protocol, identity: str, parameters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Describe a route that takes MLflow's formats of bodies."""
    rows = [example_row(manifest)]
    columns = list(rows[0])
    examples = {
        "dataframe_split": {"columns": columns, "data": [[row[column] for column in columns] for row in rows]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": {column: [row[column] for row in rows] for column in columns},
    }
    content = {
        "application/json": {
            "schema": {"$ref": f"#/components/schemas/{name}_invocation"},
            "examples": {key: {"value": {key: value}} for key, value in examples.items()},
        },
        "text/csv": {"schema": {"type": "string", "description": "A header, then a line for each row."}},
        PARQUET: {"schema": {"type": "string", "format": "binary", "description": "A column for each input."}},
    }
    return protocol.operation(
        f"{identity}_invocations_{name}",
        f"Predict {manifest.target} with {name}",
        {"$ref": f"#/components/schemas/{name}_predictions"},
        INVOCATION_ERRORS,
        about="Timestamps without offset count as UTC, 3.0 as an integer (1.5 is none), NaN as null.",
        parameters=parameters,
        body={"required": True, "content": content},
    )


def _body_schema(name: str, manifest: Manifest) -> dict[str, Any]:
    rows = listed({"$ref": f"#/components/schemas/{name}_loose_row"}, minItems=1, maxItems=MAX_ROWS)
    inputs = manifest.inputs
    positional = inputs.positional if isinstance(inputs, SharedInputs) else len(inputs)
    split = {
        **record(
            columns=listed(TEXT, "Each at most once; those that are no inputs are ignored.", uniqueItems=True),
            data=listed({"type": "array"}, "Rows, values in the order of `columns`.", minItems=1, maxItems=MAX_ROWS),
        ),
        "additionalProperties": False,
    }
    split["properties"]["index"] = {"description": "Ignored."}
    lists = {"type": "object", "description": "Columns of one length.", "additionalProperties": {}}
    formats = {
        "dataframe_split": split,
        "dataframe_records": rows,
        "instances": {**rows, "items": {"anyOf": [rows["items"], {"type": "array", "minItems": positional}]}},
        "inputs": {"anyOf": [rows, lists]},
    }
    return {
        "title": f"Rows for {name}, as MLflow writes them",
        "oneOf": [
            {
                "title": kind,
                "type": "object",
                "required": [kind],
                "properties": {kind: schema, "params": _PARAMS},
            }
            for kind, schema in formats.items()
        ],
    }


def _answer_schema(manifest: Manifest) -> dict[str, Any]:
    own = answer_schema(manifest)["properties"]
    row = own["predictions"]["items"]["properties"]
    probability = {"anyOf": [row[name] for name in ("probabilities", "probability") if name in row]}
    return {
        "type": "object",
        "title": f"Predictions of {manifest.model}",
        "required": ["predictions", "model_version"],
        "properties": {
            "predictions": listed(row["prediction"], "One for each row, in their order."),
            **({"probabilities": listed(probability)} if probability["anyOf"] else {}),
            "model_version": own["version"],
            **{f"{name}s": listed(row[name]) for name in ("interval", "prediction_set") if name in row},
            "interval": own["interval"],
            "degraded": own["degraded"],
            "flags": own["flags"],
        },
    }


def _ping(identity: str, summary: str, parameters: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    operation = MLFLOW.operation(identity, summary, None, {}, about="An empty line.", parameters=parameters)
    operation["responses"]["404"] = {"description": "It does not."}
    return operation


def _version(identity: str, parameters: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return MLFLOW.operation(identity, "The platform's version, as text", None, {}, parameters=parameters)
