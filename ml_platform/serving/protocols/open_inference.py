"""The Open Inference Protocol, version 2, over HTTP: one tensor per input and per output, as JSON or as bytes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.registry.manifest import Input, Manifest
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.validation_errors import parse
from ml_platform.serving.models.intervals import IntervalLevel
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.predictor import unknown_version
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.prediction.route_adapter import RouteAdapter, version_of
from ml_platform.serving.protocols.binary_tensors import HEADER, SIZE, decode_tensor, encode_tensor, split_body

DATATYPES = {"string": "BYTES", "timestamp": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
ACCEPTED = {
    "BYTES": {"BYTES"},
    "INT64": {"INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"},
    "FP64": {"FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8"},
    "BOOL": {"BOOL", "FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"},
}
_PLACES = "as an array in the JSON, or as bytes behind it with the parameter binary_data_size"


def oip_error(refused: Refused, request_id: str) -> Response:  # noqa: ARG001 - its id is in a header
    """Shape an error as `{"error": "<message>"}`; the protocol answers 400 where other routes answer 422."""
    status = 400 if refused.status == 422 else refused.status
    return Response(encode({"error": str(refused)}), status, media_type="application/json")


def oip_routes(adapter: RouteAdapter) -> list[Route]:
    """Make the routes."""
    predictor = adapter.predictor

    def find(request: Request) -> ServedModel:
        slot = predictor.slot(request.path_params["model"])
        number = version_of(request)
        if number is None:
            return slot.served[0]
        served = slot.version(number)
        if served is None:
            raise unknown_version(slot, number)
        return served

    @adapter.shaped(oip_error)
    async def server(_: Request) -> Response:
        return _json({"name": "ml-platform", "version": "1", "extensions": ["binary_tensor_data"]})

    @adapter.shaped(oip_error)
    async def live(_: Request) -> Response:
        return _json({"live": True})

    @adapter.shaped(oip_error)
    async def ready(_: Request) -> Response:
        is_ready = predictor.is_ready()
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    @adapter.shaped(oip_error)
    async def model_ready(request: Request) -> Response:
        return _json({"name": find(request).name, "ready": True})

    @adapter.shaped(oip_error)
    async def metadata(request: Request) -> Response:
        model = find(request)
        slot = predictor.slot(model.name)
        return _json(
            {
                "name": model.name,
                "versions": [str(one.version) for one in (*slot.served, *slot.shadows)],
                "platform": "onnx",
                "inputs": [
                    _tensor(field.name, DATATYPES[field.type]) for field in slot.inputs_for(version_of(request))
                ],
                "outputs": [
                    _described(name, kind, model.manifest) for name, kind in outputs_of(model.manifest).items()
                ],
            }
        )

    @adapter.shaped(oip_error)
    async def infer(request: Request) -> Response:
        model = find(request)
        outputs = outputs_of(model.manifest)
        sent: dict[str, Any] = {}

        def to_rows(body: bytes, inputs: Sequence[Input]) -> list[Any]:
            try:
                text, binary = split_body(body, request.headers.get(HEADER))
            except ValueError as error:
                raise InvalidRequest(400, [Problem(None, None, str(error))]) from error
            sent.update(_request(text, outputs))
            return _rows(sent["inputs"], binary, inputs)

        answer = await adapter.handle(
            request, model.name, adapter.by(to_rows), version_of(request), parameters=lambda: _parameters(sent)
        )
        reply: dict[str, Any] = {"model_name": answer.model, "model_version": str(answer.version)}
        if sent.get("id") is not None:
            reply["id"] = sent["id"]
        if answer.flags:
            reply["parameters"] = {"flags": encode(answer.flags).decode()}  # the protocol's parameters are plain values
        if isinstance(answer.interval, IntervalLevel):
            reply["parameters"] = {**reply.get("parameters", {}), "interval": answer.interval.level}
        wanted = {name: outputs[name] for name in _wanted(sent, outputs)}
        if isinstance(answer.interval, IntervalLevel):
            wanted |= interval_outputs(model.manifest)
        written = [_output(name, kind, answer, model.manifest) for name, kind in wanted.items()]
        return _answer(reply, written, _as_bytes(sent, outputs))

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


def _request(body: bytes, outputs: Mapping[str, str]) -> dict[str, Any]:
    """Read the JSON of a request; members that the protocol does not know are ignored, as its servers do."""
    document = parse(body, nan_is_null=True)
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise _invalid("inputs", "wanted an array of tensors")
    if not isinstance(document.get("id"), str | None):
        raise _invalid("id", "wanted a string")
    _parameters(document)
    wanted = document.get("outputs")
    if wanted is not None and not isinstance(wanted, list):
        raise _invalid("outputs", "wanted an array of outputs")
    for one in wanted or ():
        if not isinstance(one, dict) or str(one.get("name")) not in outputs:
            raise _invalid("outputs", f"wanted names among {', '.join(outputs)}")
        if "classification" in _parameters(one):
            raise _invalid("outputs", "the classification extension is not supported: take the output probabilities")
    return document


def _parameters(one: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = one.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _invalid("parameters", "wanted an object")
    return parameters


def _wanted(sent: Mapping[str, Any], outputs: Mapping[str, str]) -> list[str]:
    """Names of the outputs that a request asks for; all when it names none."""
    return [one["name"] for one in sent.get("outputs") or ()] or list(outputs)


def _as_bytes(sent: Mapping[str, Any], outputs: Mapping[str, str]) -> set[str]:
    """Names of the outputs that are to be bytes behind the JSON."""
    by_default = bool(_parameters(sent).get("binary_data_output", False))
    is_binary = {
        one["name"]: bool(_parameters(one).get("binary_data", by_default)) for one in sent.get("outputs") or ()
    }
    return {name for name in outputs if is_binary.get(name, by_default)}


def _rows(tensors: list[Any], binary: memoryview, inputs: Sequence[Input]) -> list[Any]:
    """Make rows of tensors of shape [n] or [n, 1]; `binary` holds, in their order, those whose data are bytes."""
    kinds = {field.name: DATATYPES[field.type] for field in inputs}
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(name := tensor.get("name"), str):
            raise _invalid("inputs", "wanted tensors with name, shape, datatype and data")
        if name not in kinds:
            raise _invalid(name[:40], f"is not an input of this model; there are {', '.join(kinds)}")
        if name in columns:
            raise _invalid(name, "appears twice")
        datatype = str(tensor.get("datatype"))
        if datatype not in ACCEPTED[kinds[name]]:
            raise _invalid(name, f"wanted datatype {kinds[name]}, found {datatype[:40]}")
        size = _parameters(tensor).get(SIZE)
        if size is None:
            columns[name] = _elements(name, datatype, tensor.get("data"))
        elif isinstance(size, int) and 0 <= size <= len(binary):
            try:
                columns[name], binary = decode_tensor(datatype, binary[:size]), binary[size:]
            except ValueError as error:
                raise _invalid(name, str(error)) from error
        else:
            raise _invalid(
                name, f"wanted {SIZE} of at most the {len(binary):,} bytes that are left, found {size!r:.20}"
            )
        shape, count = tensor.get("shape"), len(columns[name])
        if shape not in ([count], [count, 1]):
            raise _invalid(name, f"wanted shape [{count}] for {count} values, found {str(shape)[:40]}")
    if len({len(data) for data in columns.values()}) != 1:
        raise _invalid("inputs", "wanted tensors of one length, at least one")
    if binary:
        raise _invalid("inputs", f"{len(binary):,} bytes behind the JSON belong to no tensor; wanted {SIZE} of each")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _elements(name: str, datatype: str, data: Any) -> list[Any]:
    """The elements of a tensor in the JSON."""
    if not isinstance(data, list):
        raise _invalid(name, f"wanted data {_PLACES}")
    if data and all(isinstance(one, list) and len(one) == 1 for one in data):
        data = [one[0] for one in data]
    if "INT" in datatype and any(isinstance(one, float) and not one.is_integer() for one in data):
        raise _invalid(name, f"wanted whole numbers, since its datatype is {datatype}")
    return data


def outputs_of(manifest: Manifest) -> dict[str, str]:
    """Datatype of each output of a model, by the output's name."""
    if manifest.task == "regression":
        return {"prediction": "FP64"}
    if manifest.task == "binary":
        return {"prediction": "BOOL", "probability": "FP64"}
    label = "INT64" if all(isinstance(name, int) for name in manifest.classes) else "BYTES"
    return {"prediction": label, "probability": "FP64", "probabilities": "FP64"}


def interval_outputs(manifest: Manifest) -> dict[str, str]:
    """Datatypes of the outputs that an answer has where intervals or sets were asked for."""
    return {"interval": "FP64"} if manifest.task == "regression" else {"prediction_set": "BOOL"}


def _output(name: str, datatype: str, answer: Answer, manifest: Manifest) -> dict[str, Any]:
    values = [getattr(prediction, name) for prediction in answer.predictions]
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}
    if name == "probabilities":  # one of each class, in the order of the model's classes
        tensor["shape"] = [len(values), len(manifest.classes)]
        tensor["data"] = [one[str(label)] for one in values for label in manifest.classes]
        tensor["parameters"] = _classes(manifest)
    elif name == "interval":  # lower and upper end
        tensor["shape"] = [len(values), 2]
        tensor["data"] = [end for one in values for end in (one.lower, one.upper)]
    elif name == "prediction_set":  # whether each class is in it, in the order of the model's classes
        classes = manifest.classes or (False, True)
        tensor["shape"] = [len(values), len(classes)]
        tensor["data"] = [label in one for one in values for label in classes]
        tensor["parameters"] = {"classes": encode(classes).decode()}
    return tensor


def _answer(reply: dict[str, Any], outputs: list[dict[str, Any]], as_bytes: Collection[str]) -> Response:
    """Make the answer: JSON, or with outputs as bytes behind it."""
    behind = []
    for output in outputs:
        if output["name"] in as_bytes:
            behind.append(encode_tensor(output["datatype"], output.pop("data")))
            output["parameters"] = {**output.get("parameters", {}), SIZE: len(behind[-1])}
    response = _json({**reply, "outputs": outputs})
    if not behind:
        return response
    headers = {HEADER: str(len(response.body))}
    return Response(b"".join([response.body, *behind]), headers=headers, media_type="application/octet-stream")


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1]}


def _described(name: str, datatype: str, manifest: Manifest) -> dict[str, Any]:
    if name != "probabilities":
        return _tensor(name, datatype)
    shape = [-1, len(manifest.classes)]
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": _classes(manifest)}


def _classes(manifest: Manifest) -> dict[str, str]:
    return {"classes": encode(manifest.classes).decode()}  # JSON text: the protocol's parameters are plain values


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(422, [Problem(None, field, message)])


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
