"""Fitted pipeline → ONNX bytes with one float64 input `X` and one float64 output `score`, as the manifest promises."""

from typing import TYPE_CHECKING, Any

from ml_platform.inference.explain import METADATA_KEY, pack
from ml_platform.spec import Task
from ml_platform.training.explanation import explanation_of

if TYPE_CHECKING:
    import onnx
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
        For what cannot be converted exactly (see `ml_platform.training.onnx_trees`).
    """
    from onnx import TensorProto, checker, helper

    model = estimator.named_steps["model"]
    if hasattr(model, "booster_"):
        from ml_platform.training.onnx_trees import booster_nodes

        nodes, outputs = booster_nodes(model.booster_, task)
        initializers: list[Any] = []
    else:
        nodes, initializers, outputs = _linear_nodes(estimator, task, width)
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
    helper.set_model_props(exported, {METADATA_KEY: pack(explanation_of(estimator))})
    checker.check_model(exported)
    content: bytes = exported.SerializeToString(deterministic=True)
    return content


def _linear_nodes(
    estimator: "Pipeline", task: Task, width: int
) -> tuple[list["onnx.NodeProto"], list["onnx.TensorProto"], int]:
    """Nodes by skl2onnx, which imputes in float32 only, between a cast of `X` and a cast to `score`."""
    from onnx import TensorProto, helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    options = None if task == "regression" else {id(estimator): {"zipmap": False}}
    converted = convert_sklearn(
        estimator,
        name="linear",  # else a random one
        initial_types=[("X32", FloatTensorType([None, width]))],
        options=options,
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    result = converted.graph.output[-1].name
    nodes = [helper.make_node("Cast", ["X"], ["X32"], to=TensorProto.FLOAT)]
    nodes += list(converted.graph.node)
    initializers = list(converted.graph.initializer)
    if task == "multiclass":
        nodes.append(helper.make_node("Cast", [result], ["score"], to=TensorProto.DOUBLE))
        return nodes, initializers, len(estimator.named_steps["model"].classes_)
    initializers.append(helper.make_tensor("flat_rows", TensorProto.INT64, [1], [-1]))
    if task == "binary":
        initializers.append(helper.make_tensor("positive_class", TensorProto.INT64, [1], [1]))
        nodes.append(helper.make_node("Gather", [result, "positive_class"], ["positive"], axis=1))
        result = "positive"
    nodes.append(helper.make_node("Reshape", [result, "flat_rows"], ["score32"]))
    nodes.append(helper.make_node("Cast", ["score32"], ["score"], to=TensorProto.DOUBLE))
    return nodes, initializers, 1
