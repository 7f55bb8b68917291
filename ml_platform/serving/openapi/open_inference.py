"""The Open Inference Protocol in the OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from ml_platform.registry.manifest import Manifest
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.operations import TIMES, Protocol, called, example_version, in_path, json_body, served
from ml_platform.serving.openapi.predictions import example_row
from ml_platform.serving.openapi.schemas import TEXT, listed, record
from ml_platform.serving.protocols.open_inference import ACCEPTED, DATATYPES, interval_outputs, outputs_of

OIP = Protocol("Open Inference Protocol", "InferenceError")
_NOT_THERE = {
    "404": "No model has this name, or no version this number; the message lists those that there are.",
    "410": "The model was retired.",
    "503": "The model cannot answer now; Retry-After says when to try again.",
}
_ERRORS = {
    "400": "The tensors do not fit the model's inputs; the message says which and why.",
    "415": "The body is compressed, neither with gzip nor deflate.",
    **_NOT_THERE,
    **TIMES,
}
_SHAPE = listed({"type": "integer"}, "`[n]` or `[n, 1]`, n rows.", minItems=1, maxItems=2)
_METADATA = record(
    name=TEXT,
    versions=listed(TEXT),
    platform=TEXT,
    inputs=listed({"$ref": "#/components/schemas/InferenceTensor"}),
    outputs=listed({"$ref": "#/components/schemas/InferenceTensor"}),
)


def with_oip(document: dict[str, Any], state: ServingState) -> dict[str, Any]:
    """Add the protocol's routes to a document: inference for each model, health and metadata."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    schemas[OIP.shape] = record(error={"type": "string", "description": "What was wanted, what was found."})
    schemas["InferenceTensor"] = record(name=TEXT, datatype=TEXT, shape=_SHAPE | {"description": "-1 for any."})
    schemas["InferenceModel"] = _METADATA
    about = "A version that the endpoint names, live or shadow."
    version = in_path("version", about, pattern="^[0-9]{1,9}$", examples=[str(example_version(state)[1])])
    for name, manifest in ((name, model.manifest) for name, model in served(state)):
        schemas[f"{name}_inference"] = _body_schema(manifest)
        schemas[f"{name}_inferred"] = _answer_schema(manifest)
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(name, manifest, "infer")}
        paths[f"/v2/models/{name}/versions/{{version}}/infer"] = {
            "post": _infer(name, manifest, "infer_version", (version,))
        }

    def get(identity: str, summary: str, answer: Any, errors: dict[str, str], *parameters: Any) -> dict[str, Any]:
        return {"get": OIP.operation(identity, summary, answer, errors, parameters=parameters)}

    paths["/v2"] = get("server", "The server", record(name=TEXT, version=TEXT, extensions=listed(TEXT)), {})
    paths["/v2/health/live"] = get("server_live", "Whether it answers", record(live={"const": True}), {})
    ready = record(ready={"type": "boolean"})
    found = paths["/v2/health/ready"] = get("server_ready", "Whether any model answers", ready, {})
    found["get"]["responses"]["503"] = {"description": "None.", "content": {"application/json": {"schema": ready}}}
    by_name = called(state)
    model = {"$ref": "#/components/schemas/InferenceModel"}
    is_ready = record(name=TEXT, ready={"const": True})
    for kind, path, parameters in (
        ("model", "/v2/models/{model}", (by_name,)),
        ("version", "/v2/models/{model}/versions/{version}", (by_name, version)),
    ):
        paths[path] = get(f"{kind}_metadata", f"Tensors of a {kind}", model, _NOT_THERE, *parameters)
        paths[f"{path}/ready"] = get(f"{kind}_ready", f"Whether a {kind} is loaded", is_ready, _NOT_THERE, *parameters)
    return document


def _infer(name: str, manifest: Manifest, identity: str, parameters: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    kinds = {field.name: DATATYPES[field.type] for field in manifest.inputs}
    example = [
        {"name": key, "shape": [1], "datatype": kinds[key], "data": [value]}
        for key, value in example_row(manifest).items()
    ]
    return OIP.operation(
        f"{identity}_{name}",
        f"Predict {manifest.target} with {name}",
        {"$ref": f"#/components/schemas/{name}_inferred"},
        _ERRORS,
        about="A tensor for each input, all of one length. With the header `Inference-Header-Content-Length` tensors "
        "may be bytes behind the JSON, as the protocol's binary data extension has them.",
        parameters=parameters,
        body=json_body(f"{name}_inference", {"inputs": example}),
    )


def _body_schema(manifest: Manifest) -> dict[str, Any]:
    tensors = [
        record(
            name={"const": field.name},
            shape=_SHAPE,
            datatype={"enum": sorted(ACCEPTED[DATATYPES[field.type]])},
            data={"type": "array", "description": f"{field.description} Values, or arrays of one value.".lstrip()},
        )
        for field in manifest.inputs
    ]
    wanted = listed(record(name={"enum": list(outputs_of(manifest))}), "All when absent.")
    return {
        "title": f"Tensors for {manifest.model}",
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": listed({"oneOf": tensors}, minItems=1),
            "id": {"type": ["string", "null"], "description": "Echoed."},
            "parameters": {
                "type": ["object", "null"],
                "description": "`binary_data_output`, and `interval`, a level from 0.5 to 0.99; others are ignored.",
            },
            "outputs": {"anyOf": [wanted, {"type": "null"}]},
        },
    }


def _answer_schema(manifest: Manifest) -> dict[str, Any]:
    shapes = {
        "probabilities": _SHAPE | {"description": "`[n, k]`, n rows, k classes.", "minItems": 2},
        "prediction_set": _SHAPE | {"description": "`[n, k]`: whether each class is in the row's set.", "minItems": 2},
        "interval": _SHAPE | {"description": "`[n, 2]`: lower and upper end.", "minItems": 2},
    }
    outputs = [
        record(name={"const": name}, datatype={"const": kind}, shape=shapes.get(name, _SHAPE), data={"type": "array"})
        for name, kind in {**outputs_of(manifest), **interval_outputs(manifest)}.items()
    ]
    schema = record(model_name={"const": manifest.model}, model_version=TEXT, outputs=listed({"oneOf": outputs}))
    schema["properties"] |= {
        "id": {"type": "string", "description": "As it was sent."},
        "parameters": {
            "type": "object",
            "description": "`flags`: inputs that break the contract, as JSON text. `interval`: the level asked for.",
        },
    }
    return {"title": f"Inferred by {manifest.model}", **schema}
