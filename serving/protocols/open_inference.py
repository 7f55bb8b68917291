"""The Open Inference Protocol, version 2, over HTTP and JSON: one tensor per input and per output."""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.registry.manifest import Input, Manifest
from serving.answers import Answer
from serving.asking import Asking, version_of
from serving.predictor import unknown_version
from serving.problems import InvalidRequest, Problem, parse
from serving.state import ServedModel
from serving.wire import Refused, encode

DATATYPES = {"string": "BYTES", "timestamp": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
ACCEPTED = {
    "BYTES": {"BYTES"},
    "INT64": {"INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"},
    "FP64": {"FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8"},
    "BOOL": {"BOOL"},
}
_BINARY = "the binary data extension is not supported (of tritonclient: set_data_from_numpy(…, binary_data=False))"


def oip_error(refused: Refused, request_id: str) -> Response:  # noqa: ARG001 - its id is in a header
    """Shape an error as `{"error": "<message>"}`; the protocol answers 400 where other routes answer 422."""
    status = 400 if refused.status == 422 else refused.status
    return Response(encode({"error": str(refused)}), status, media_type="application/json")


def oip_routes(asking: Asking) -> list[Route]:
    """Make the routes."""
    predictor = asking.predictor

    def find(request: Request) -> ServedModel:
        slot = predictor.slot(request.path_params["model"])
        number = version_of(request)
        if number is None:
            return slot.served[0]
        found = slot.version(number)
        if found is None:
            raise unknown_version(slot, number)
        return found

    @asking.shaped(oip_error)
    async def server(_: Request) -> Response:
        return _json({"name": "ml-platform", "version": "1", "extensions": []})

    @asking.shaped(oip_error)
    async def live(_: Request) -> Response:
        return _json({"live": True})

    @asking.shaped(oip_error)
    async def ready(_: Request) -> Response:
        serves = any(slot.served for slot in predictor.state.slots.values())
        return _json({"ready": serves}, 200 if serves else 503)

    @asking.shaped(oip_error)
    async def model_ready(request: Request) -> Response:
        return _json({"name": find(request).name, "ready": True})

    @asking.shaped(oip_error)
    async def metadata(request: Request) -> Response:
        model = find(request)
        slot = predictor.slot(model.name)
        return _json(
            {
                "name": model.name,
                "versions": [str(one.version) for one in (*slot.served, *slot.shadows)],
                "platform": "onnx",
                "inputs": [_tensor(field.name, DATATYPES[field.type]) for field in model.manifest.inputs],
                "outputs": [_tensor(name, kind) for name, kind in outputs_of(model.manifest).items()],
            }
        )

    @asking.shaped(oip_error)
    async def infer(request: Request) -> Response:
        model = find(request)
        if "inference-header-content-length" in request.headers:
            raise Refused(415, "unsupported_type", f"send the tensors as JSON; {_BINARY}", close=True)
        sent: dict[str, Any] = {}

        def to_rows(body: bytes, inputs: Sequence[Input]) -> list[Any]:
            sent.update(_request(body, outputs_of(model.manifest)))
            return _rows(sent["inputs"], inputs)

        answer = await asking.ask(request, model.name, asking.by(to_rows), version_of(request))
        wanted = [one["name"] for one in sent.get("outputs") or ()] or list(outputs_of(model.manifest))
        reply: dict[str, Any] = {"model_name": answer.model, "model_version": str(answer.version)}
        if sent.get("id") is not None:
            reply["id"] = sent["id"]
        if answer.flags:
            reply["parameters"] = {"flags": encode(answer.flags).decode()}  # the protocol's parameters are plain values
        reply["outputs"] = [_output(name, outputs_of(model.manifest)[name], answer) for name in wanted]
        return _json(reply)

    routes = [
        Route("/v2", server, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes.append(Route(prefix, metadata, methods=["GET"]))
        routes.append(Route(f"{prefix}/ready", model_ready, methods=["GET"]))
        routes.append(Route(f"{prefix}/infer", infer, methods=["POST"]))
    return routes


def _request(body: bytes, outputs: dict[str, str]) -> dict[str, Any]:
    document = parse(body)
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise _invalid("inputs", "wanted an array of tensors")
    if unknown := document.keys() - {"id", "parameters", "inputs", "outputs"}:
        raise _invalid(sorted(unknown)[0][:40], "is not a field of an inference request")
    if not isinstance(document.get("id"), str | None):
        raise _invalid("id", "wanted a string")
    wanted = document.get("outputs")
    if wanted is not None and not isinstance(wanted, list):
        raise _invalid("outputs", "wanted an array of outputs")
    for one in wanted or ():
        if not isinstance(one, dict) or str(one.get("name")) not in outputs:
            raise _invalid("outputs", f"wanted names among {', '.join(outputs)}")
    return document


def _rows(tensors: list[Any], inputs: Sequence[Input]) -> list[Any]:
    """Make rows of tensors of shape [n] or [n, 1]."""
    kinds = {field.name: DATATYPES[field.type] for field in inputs}
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(name := tensor.get("name"), str):
            raise _invalid("inputs", "wanted tensors with name, shape, datatype and data")
        shape, data = tensor.get("shape"), tensor.get("data")
        if name not in kinds:
            raise _invalid(name[:40], f"is not an input of this model; there are {', '.join(kinds)}")
        if name in columns:
            raise _invalid(name, "appears twice")
        datatype = str(tensor.get("datatype"))
        if datatype not in ACCEPTED[kinds[name]]:
            raise _invalid(name, f"wanted datatype {kinds[name]}, found {datatype[:40]}")
        if not isinstance(data, list):
            raise _invalid(name, f"wanted data as an array; {_BINARY}")
        if data and all(isinstance(one, list) and len(one) == 1 for one in data):
            data = [one[0] for one in data]
        if shape not in ([len(data)], [len(data), 1]):
            raise _invalid(name, f"wanted shape [{len(data)}] for {len(data)} values, found {str(shape)[:40]}")
        if "INT" in datatype and any(isinstance(one, float) and not one.is_integer() for one in data):
            raise _invalid(name, f"wanted whole numbers, since its datatype is {datatype}")
        columns[name] = data
    if len({len(data) for data in columns.values()}) != 1:
        raise _invalid("inputs", "wanted tensors of one length, at least one")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def outputs_of(manifest: Manifest) -> dict[str, str]:
    """Datatype of each output of a model, by the output's name."""
    if manifest.task == "regression":
        return {"prediction": "FP64"}
    return {"prediction": "BOOL" if manifest.task == "binary" else "BYTES", "probability": "FP64"}


def _output(name: str, datatype: str, answer: Answer) -> dict[str, Any]:
    data = [getattr(prediction, name) for prediction in answer.predictions]
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1]}


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(422, [Problem(None, field, message)])


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
