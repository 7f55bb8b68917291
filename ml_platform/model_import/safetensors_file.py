"""Weights of a PyTorch `nn.Sequential` of linear layers from a safetensors file, which is data alone."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.model_import.boosters import library_of
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.foreign import FLOAT32, Bound, ForeignModel
from ml_platform.model_import.networks import REASON, add_activation, finish_network
from ml_platform.model_import.onnx_file import shaped
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.graph import Graph

_NAME = re.compile(r"(?:\w+\.)*?(\d+)\.(weight|bias)")
_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a safetensors file (raises ImportRefused for one that is not sound)."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    body = memoryview(content)[8 + length :]
    try:
        header: dict[str, Any] = json.loads(content[8 : 8 + length])
        arrays = {}
        for name, one in header.items():
            if name == "__metadata__":
                continue
            start, end = one["data_offsets"]
            kind, shape = _TYPES[one["dtype"]], tuple(map(int, one["shape"]))
            if not 0 <= start <= end <= len(body) or end - start != kind.itemsize * int(np.prod(shape)):
                raise ValueError(f"{name} is said to be at {start} to {end} of {len(body)} bytes")
            arrays[name] = np.frombuffer(body[start:end], dtype=kind).reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportRefused(
            f"{path} is no sound safetensors file of float32 or float64 ({type(error).__name__}: {error}): copy or "
            "store it again"
        ) from error
    return arrays


def read_safetensors(path: Path, declaration: Declaration) -> ForeignModel:
    """Read the weights of a perceptron: `0.weight`, `0.bias`, `2.weight`, …, as `nn.Sequential` names them."""
    layers = _layers(path)
    torch = library_of("torch", "torch")

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        if any(one.categories is not None for one in features):
            raise ImportRefused(
                "a perceptron takes numbers, and some of its inputs are text; import a model with an encoder"
            )
        module = _module(torch, layers, declaration.activation)

        def native(X: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                answers = module(torch.from_numpy(X.astype(layers[0][0].dtype))).numpy()
            return shaped(answers, declaration.link, task, positive)

        graph, name = Graph(), "X"
        for number, (weight, bias) in enumerate(layers):
            if number:
                name = add_activation(graph, declaration.activation, name, f"active_{number}")
            product = graph.add("MatMul", [name, graph.constant(f"weight_{number}", weight.T)], f"product_{number}")
            name = graph.add("Add", [product, graph.constant(f"bias_{number}", bias)], f"layer_{number}")
        columns = len(layers[-1][1])
        onnx = finish_network(graph, name, columns, task, width=len(features), positive=positive, link=declaration.link)
        return Bound(native, onnx, FLOAT32, extremes=False, unexplained=REASON)

    return ForeignModel(
        library=f"torch {torch.__version__}",
        summary=f"perceptron of {len(layers)} linear layers with {declaration.activation}",
        inputs=(),
        width=int(layers[0][0].shape[1]),
        is_classifier=None,
        classes=(),
        outputs=None,
        bind=bind,
        native_name="model.safetensors",
    )


def _layers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    tensors: dict[int, dict[str, np.ndarray]] = {}
    for name, array in read_tensors(path).items():
        match = _NAME.fullmatch(name)
        if match is None or array.ndim != (2 if match[2] == "weight" else 1):
            raise ImportRefused(
                f"{path} has '{name}' of shape {list(array.shape)}: wanted the weights and biases of an nn.Sequential "
                "of linear "
                "layers alone (0.weight, 0.bias, 2.weight, …). Export any other network by torch.onnx.export"
            )
        tensors.setdefault(int(match[1]), {})[match[2]] = array
    layers = []
    for number, one in sorted(tensors.items()):
        if "weight" not in one:
            raise ImportRefused(f"{path}: layer {number} has no weight")
        layers.append((one["weight"], one.get("bias", np.zeros(len(one["weight"]), one["weight"].dtype))))
    if not layers or any(a[0].shape[0] != b[0].shape[1] for a, b in pairwise(layers)):
        raise ImportRefused(f"{path}: its layers do not fit one another: {[list(one.shape) for one, _ in layers]}")
    return layers


def _module(torch: Any, layers: Sequence[tuple[np.ndarray, np.ndarray]], activation: str) -> Any:
    active = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}[activation]
    modules = []
    for number, (weight, bias) in enumerate(layers):
        linear = torch.nn.Linear(*reversed(weight.shape), dtype=getattr(torch, str(weight.dtype)))
        linear.weight.data, linear.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
        modules += [active(), linear] if number else [linear]
    return torch.nn.Sequential(*modules).eval()
