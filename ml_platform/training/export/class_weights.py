"""Takes the weights that classes had in fitting out of a graph's probabilities, and out of their explanation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ml_platform.inference.explain import METADATA_KEY, Explanation, Linear, Trees, decode, pack
from ml_platform.spec.types import Task
from ml_platform.training.export.onnx_trees import constant_tree

if TYPE_CHECKING:
    import onnx

_RAW = "score_with_class_weights"


def correct_graph(content: bytes, task: Task, class_weights: Sequence[float]) -> bytes:
    """Divide a graph's probabilities by the weights of the classes, and bring them to a sum of 1.

    Parameters
    ----------
    content
        A classifier's graph, whose output `score` is (rows,) for binary, (rows × classes) for multiclass.
    task
        Kind of model.
    class_weights
        Positive, one per class.

    Returns
    -------
    bytes
        The graph with corrected scores. An explanation in log-odds is corrected as well; one in probabilities would no
        longer add up, and is left out.
    """
    from onnx import checker, helper, load_from_string

    model = load_from_string(content)
    graph = model.graph
    for node in graph.node:
        node.output[:] = [_RAW if name == "score" else name for name in node.output]
        node.input[:] = [_RAW if name == "score" else name for name in node.input]
    graph.node.extend(_binary(graph, class_weights) if task == "binary" else _multiclass(graph, class_weights))
    properties = {one.key: one.value for one in model.metadata_props}
    if (text := properties.pop(METADATA_KEY, None)) is not None:
        corrected = _shifted(decode(text), -np.log(class_weights), task)
        properties |= {} if corrected is None else {METADATA_KEY: pack(corrected)}
        del model.metadata_props[:]
        helper.set_model_props(model, properties)
    checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _binary(graph: "onnx.GraphProto", class_weights: Sequence[float]) -> list["onnx.NodeProto"]:
    from onnx import helper

    one, negative, positive = (
        _constant(graph, name, value)
        for name, value in (
            ("one", 1.0),
            ("weight_of_false", class_weights[0]),
            ("weight_of_true", class_weights[1]),
        )
    )
    return [
        helper.make_node("Sub", [one, _RAW], ["complement"]),
        helper.make_node("Div", ["complement", negative], ["share_of_false"]),
        helper.make_node("Div", [_RAW, positive], ["share_of_true"]),
        helper.make_node("Add", ["share_of_true", "share_of_false"], ["sum_of_shares"]),
        helper.make_node("Div", ["share_of_true", "sum_of_shares"], ["score"]),
    ]


def _multiclass(graph: "onnx.GraphProto", class_weights: Sequence[float]) -> list["onnx.NodeProto"]:
    from onnx import helper

    weights = _constant(graph, "class_weights", class_weights)
    ones = _constant(graph, "ones", np.ones((len(class_weights), 1)))  # a sum that every operator set has
    return [
        helper.make_node("Div", [_RAW, weights], ["shares"]),
        helper.make_node("MatMul", ["shares", ones], ["sum_of_shares"]),
        helper.make_node("Div", ["shares", "sum_of_shares"], ["score"]),
    ]


def _constant(graph: "onnx.GraphProto", name: str, values: object) -> str:
    from onnx import numpy_helper

    named = f"correction_{name}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype=np.float64), named))
    return named


def _shifted(explanation: Explanation, shifts: np.ndarray, task: Task) -> Explanation | None:
    """Add a number to each raw score; of a binary model, whose raw score is that of true against false, one."""
    if task == "binary":
        shifts = shifts[1:] - shifts[:1]
    if isinstance(explanation, Trees):
        if explanation.probabilities:
            return None
        if any(tree.leaf_vector for tree in explanation.trees):
            added = [msgspec.structs.replace(constant_tree(0.0), leaf_value=[], leaf_vector=[shifts.tolist()])]
        else:
            added = [constant_tree(float(shift), target) for target, shift in enumerate(shifts)]
        return msgspec.structs.replace(explanation, trees=[*explanation.trees, *added])
    if isinstance(explanation, Linear):
        return msgspec.structs.replace(explanation, intercept=(np.array(explanation.intercept) + shifts).tolist())
    *layers, (weights, bias) = explanation.layers
    return msgspec.structs.replace(explanation, layers=[*layers, (weights, (np.array(bias) + shifts).tolist())])
