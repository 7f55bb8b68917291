"""Fitted pipeline → ONNX bytes with one float64 input `X` and one float64 output `score`, as the manifest promises."""

from typing import TYPE_CHECKING

from ml_platform.inference.explain import METADATA_KEY, Linear, pack
from ml_platform.spec.model import Task
from ml_platform.training.export.explanation import explanation_of
from ml_platform.training.export.onnx_linear import linear_nodes
from ml_platform.training.export.onnx_trees import booster_nodes

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

OPSET = 21
ML_OPSET = 5  # the first with a TreeEnsemble in double precision
IR_VERSION = 10


def export_onnx(estimator: "Pipeline", task: Task, width: int) -> bytes:
    """Convert a pipeline of `build_estimator`; equal estimators give equal bytes.

    The graph's metadata holds what explains its scores (`ml_platform.inference.explain`).

    Parameters
    ----------
    estimator
        Fitted on matrices with `width` columns.
    task
        Decides the shape of `score`: (rows,) for binary and regression, (rows × classes) for multiclass.
    width
        Number of features.

    Raises
    ------
    ValueError
        For what cannot be converted exactly (see `ml_platform.training.export.onnx_trees`).
    """
    from onnx import TensorProto, checker, helper

    explanation = explanation_of(estimator, task)
    if isinstance(explanation, Linear):
        nodes, initializers, outputs = linear_nodes(explanation, task)
    else:
        nodes, outputs = booster_nodes(estimator.named_steps["model"].booster_, task)
        initializers = []
    shape = ["rows", outputs] if task == "multiclass" else ["rows"]
    graph = helper.make_graph(
        nodes,
        "score",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["rows", width])],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, shape)],
        initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    exported = helper.make_model(graph, opset_imports=opsets, producer_name="ml-platform", ir_version=IR_VERSION)
    helper.set_model_props(exported, {METADATA_KEY: pack(explanation)})
    checker.check_model(exported)
    content: bytes = exported.SerializeToString(deterministic=True)
    return content
