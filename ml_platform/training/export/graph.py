"""Nodes → bytes of a graph with one float64 input `X` and one float64 output `score`, as the manifest promises."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.inference.explain import METADATA_KEY, Explanation, pack
from ml_platform.spec.types import Task

if TYPE_CHECKING:
    import onnx

OPSET = 21
ML_OPSET = 5  # the first with a TreeEnsemble in double precision
IR_VERSION = 10


class Graph:
    """Nodes and constants, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: object, dtype: type[np.generic] = np.float64) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def join(self, part: "Graph", name: str) -> str:
        """Add the nodes of another graph, under other names where one is taken; returns that of its tensor `name`."""
        used_names = {output for node in self.nodes for output in node.output} | {one.name for one in self.constants}
        made = [output for node in part.nodes for output in node.output] + [one.name for one in part.constants]
        names: dict[str, str] = {}
        for number in itertools.count(1):
            if not used_names & {names.get(one, one) for one in made}:
                break
            names = {one: f"{one}_{number}" for one in made}
        for constant in part.constants:
            constant.name = names.get(constant.name, constant.name)
        for node in part.nodes:
            node.input[:] = [names.get(one, one) for one in node.input]
            node.output[:] = [names.get(one, one) for one in node.output]
        self.constants += part.constants
        self.nodes += part.nodes
        return names.get(name, name)

    def finish(
        self, raw: str, task: Task, *, width: int, outputs: int, probabilities: bool, explanation: Explanation | None
    ) -> bytes:
        """Turn the raw scores into `score`, and write the graph; equal graphs give equal bytes.

        Parameters
        ----------
        raw
            Name of the raw scores: (rows,) for binary and regression, (rows × outputs) for multiclass.
        task
            Kind of model.
        width
            Number of features.
        outputs
            Number of classes for multiclass.
        probabilities
            Whether raw scores of classes are probabilities, and not log-odds.
        explanation
            What explains the scores; None where nothing does.
        """
        from onnx import TensorProto, checker, helper

        if task == "regression" or probabilities:
            self.add("Identity", [raw], "score")
        elif task == "binary":
            self.add("Sigmoid", [raw], "score")
        else:
            self.add("Softmax", [raw], "score", axis=1)
        shape = ["rows", outputs] if task == "multiclass" else ["rows"]
        graph = helper.make_graph(
            self.nodes,
            "score",
            [helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["rows", width])],
            [helper.make_tensor_value_info("score", TensorProto.DOUBLE, shape)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ml-platform", ir_version=IR_VERSION)
        if explanation is not None:
            helper.set_model_props(model, {METADATA_KEY: pack(explanation)})
        checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
