"""What networks of PyTorch and Keras have in common: activations, and how their outputs become scores."""

from ml_platform.model_import.declaration import Link
from ml_platform.model_import.foreign import Raw, finish
from ml_platform.model_import.refused import ImportRefused
from ml_platform.spec.types import Task
from ml_platform.training.export.graph import Graph

REASON = "it is a network"
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax", "silu")


def add_activation(graph: Graph, activation: str, name: str, output: str) -> str:
    """Add an activation to a graph (raises ImportRefused for one that is not known)."""
    operators = {"linear": "Identity", "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
    if activation in operators:
        return graph.add(operators[activation], [name], output)
    if activation == "softmax":
        return graph.add("Softmax", [name], output, axis=1)
    if activation in ("silu", "swish"):
        return graph.add("Mul", [name, graph.add("Sigmoid", [name], f"{output}_gate")], output)
    raise ImportRefused(
        f"the activation '{activation}' has no graph here; those that have: {', '.join(ACTIVATIONS)}. Or export the "
        "network to "
        "ONNX, and import that file"
    )


def finish_network(
    graph: Graph, name: str, columns: int, task: Task, *, width: int, positive: int, link: Link | None
) -> bytes:
    """Turn a network's outputs (rows × columns) into scores, and write the graph."""
    import numpy as np

    if link in ("sigmoid", "softmax"):
        name = add_activation(graph, link, name, "linked")
    elif link == "exp":
        name = graph.add("Exp", [name], "linked")
    if task == "binary" and columns == 2:
        name = graph.add("Gather", [name, graph.constant("positive", [positive], np.int64)], "of_true", axis=1)
        positive = 1
    if task != "multiclass":
        name = graph.add("Reshape", [name, graph.constant("rows", [-1], np.int64)], "value")
    raw = Raw(name, probabilities=True, unexplained=REASON)
    return finish(graph, raw, task, width=width, outputs=columns, positive=positive)[0]
