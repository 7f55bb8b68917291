"""Networks of Keras from `.keras` files. Only known layers are loaded: they are read before Keras sees the file."""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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

_LAYERS = [
    "Activation",
    "Add",
    "BatchNormalization",
    "Concatenate",
    "Dense",
    "Dropout",
    "GaussianNoise",
    "InputLayer",
    "Normalization",
    "ReLU",
    "Rescaling",
    "Softmax",
]
_MODELS = ("Functional", "Sequential")
_MODEL_MODULES = ("keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential")
_PARTS = ("keras", "keras.initializers", "keras.regularizers", "keras.constraints")
_VALUES = ("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__")
_LARGEST_CONFIG = 10_000_000


def read_keras(path: Path, declaration: Declaration) -> ForeignModel:
    """Read a `.keras` file of known layers (raises ImportRefused for any other, before it is loaded)."""
    _check_config(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = library_of("keras", "tensorflow")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # its errors have no common class of their own
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ImportRefused(
            f"{path} cannot be read by Keras {keras.__version__}: {first}. It is damaged or of another version: store "
            "it anew"
        ) from error
    inputs = model.inputs
    widths = [int(one.shape[1]) if len(one.shape) == 2 and one.shape[1] else 0 for one in inputs]
    if 0 in widths or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ImportRefused(
            f"{path} has inputs of the shapes {[list(one.shape) for one in inputs]} and {len(model.outputs)} outputs: "
            "wanted "
            "inputs of (rows, columns), and one output of (rows, numbers)"
        )
    names = tuple(one.name for one in inputs) if set(widths) == {1} else ()

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        if any(one.categories is not None for one in features):
            raise ImportRefused("a network of Keras takes numbers here, and some of its inputs are text")
        ends = np.cumsum(widths)[:-1]

        def native(X: np.ndarray) -> np.ndarray:
            parts = np.split(X.astype(np.float32), ends, axis=1)
            answers = np.asarray(model(parts if len(parts) > 1 else parts[0], training=False))
            return shaped(answers, declaration.link, task, positive)

        graph = Graph()
        name, columns = _network(graph, model, widths)
        onnx = finish_network(graph, name, columns, task, width=len(features), positive=positive, link=declaration.link)
        return Bound(native, onnx, FLOAT32, extremes=False, unexplained=REASON)

    return ForeignModel(
        library=f"keras {keras.__version__}",
        summary=f"Keras network of {len(model.layers)} layers",
        inputs=names,
        width=sum(widths),
        is_classifier=None,
        classes=(),
        outputs=None,
        bind=bind,
        native_name="model.keras",
    )


def _check_config(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise ImportRefused(f"{path}: its config.json is larger than {_LARGEST_CONFIG:,} bytes")
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ImportRefused(
            f"{path} cannot be read: its config.json is damaged ({error}); store the model again"
        ) from error
    if not isinstance(config, dict) or config.get("class_name") not in _MODELS:
        raise ImportRefused(
            f"{path} is a model of a class of its own; wanted a Sequential or Functional model of Keras"
        )
    for part in _objects(config):
        kind, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
        if module == "keras.layers":
            known = kind in _LAYERS
        elif kind in _MODELS:
            known = module in _MODEL_MODULES
        else:
            known = module in _PARTS or (module is None and kind in _VALUES)
        if not known or registered not in (None, kind):
            raise ImportRefused(
                f"{path} has the part {kind} of {module or registered or 'nowhere'}, which is not among those that "
                "are known to "
                f"run no code and to have a graph: {', '.join(_LAYERS)}. Nothing was loaded. Export it to ONNX where "
                "it was "
                "trained, and import that file"
            )


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every serialised object in a configuration."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _network(graph: Graph, model: Any, widths: Sequence[int]) -> tuple[str, int]:
    """Add a network's layers in double; returns name and width of its output."""
    functional = model._functional if hasattr(model, "_functional") else model
    names: dict[int, str] = {}
    start = 0
    for number, (one, width) in enumerate(zip(functional.inputs, widths, strict=True)):
        places = graph.constant(f"input_{number}_columns", range(start, start + width), np.int64)
        names[id(one)] = graph.add("Gather", ["X", places], f"input_{number}", axis=1)
        start += width
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.is_input:
                continue
            place = f"{node.operation.name}_{len(names)}"
            given = [names[id(one)] for one in node.input_tensors]
            names[id(node.output_tensors[0])] = _layer(graph, node.operation, given, place)
    output = functional.outputs[0]
    return names[id(output)], int(output.shape[1])


def _layer(  # noqa: PLR0911 - one for each kind of layer
    graph: Graph, layer: Any, given: Sequence[str], place: str
) -> str:
    kind, name = type(layer).__name__, given[0]
    weights = (
        [np.asarray(one, dtype=np.float64) for one in layer.get_weights()] if hasattr(layer, "get_weights") else []
    )

    def node(op: str, inputs: Sequence[str], what: str, **attributes: object) -> str:
        return graph.add(op, inputs, f"{place}_{what}", **attributes)

    def constant(what: str, values: object) -> str:
        return graph.constant(f"{place}_{what}", values)

    match kind:
        case "Dense":
            name = node("MatMul", [name, constant("kernel", weights[0])], "product")
            if layer.use_bias:
                name = node("Add", [name, constant("bias", weights[1])], "sum")
            return add_activation(graph, layer.activation.__name__, name, f"{place}_out")
        case "Activation":
            return add_activation(graph, layer.activation.__name__, name, f"{place}_out")
        case "Softmax":
            return add_activation(graph, "softmax", name, f"{place}_out")
        case "ReLU":
            if layer.max_value is not None or layer.negative_slope or layer.threshold:
                raise ImportRefused("a ReLU with a bound or slope has no graph here; export the network to ONNX")
            return add_activation(graph, "relu", name, f"{place}_out")
        case "Dropout" | "GaussianNoise":
            return node("Identity", [name], "out")
        case "Concatenate":
            return node("Concat", given, "out", axis=1) if len(given) > 1 else name
        case "Add":
            return node("Sum", given, "out")
        case "Rescaling":
            scaled = node("Mul", [name, constant("scale", float(layer.scale))], "scaled")
            return node("Add", [scaled, constant("offset", float(layer.offset))], "out")
        case "Normalization":
            mean, variance = (np.asarray(one, dtype=np.float64).reshape(1, -1) for one in (layer.mean, layer.variance))
            centred = node("Sub", [name, constant("mean", mean)], "centred")
            return node("Div", [centred, constant("deviation", np.maximum(np.sqrt(variance), 1e-7))], "out")
        case "BatchNormalization":
            values = iter(weights)
            gamma = next(values) if layer.scale else 1.0
            beta = next(values) if layer.center else 0.0
            mean, variance = next(values), next(values)
            factor = gamma / np.sqrt(variance + layer.epsilon)
            scaled = node("Mul", [name, constant("factor", np.atleast_1d(factor))], "scaled")
            return node("Add", [scaled, constant("shift", np.atleast_1d(beta - mean * factor))], "out")
    raise ImportRefused(f"the layer {kind} has no graph here; export the network to ONNX, and import that file")
