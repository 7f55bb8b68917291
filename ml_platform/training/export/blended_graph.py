"""Several exported graphs → one that averages their scores."""

from collections.abc import Sequence

import numpy as np

from ml_platform.training.export.graph import IR_VERSION


def blend_graphs(graphs: Sequence[tuple[bytes, float]], *, largest: float | None = None) -> bytes:
    """Merge graphs of one model's features into one graph with the weighted sum of their scores.

    Parameters
    ----------
    graphs
        Graphs with input `X` and output `score`, each with its weight.
    largest
        The sum is log(1 + value) of the score, which is limited to values from 0 to this one; None: it is the score.

    Returns
    -------
    bytes
        The graph; a single one of weight 1 is given back as it is, with its explanation.

    Raises
    ------
    ValueError
        When the graphs are of different operator sets.
    """
    import onnx
    from onnx import checker, compose, helper, numpy_helper

    if len(graphs) == 1 and graphs[0][1] == 1.0 and largest is None:
        return graphs[0][0]
    models = [onnx.load_from_string(content) for content, _ in graphs]
    opsets = {tuple(sorted((one.domain, one.version) for one in model.opset_import)) for model in models}
    if len(opsets) > 1:
        raise ValueError(f"graphs of one blend want the same operator sets, found {sorted(opsets)}")
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    weighted: list[str] = []
    for number, (model, (_, weight)) in enumerate(zip(models, graphs, strict=True)):
        prefix = f"member_{number}_"
        graph = compose.add_prefix(model, prefix, rename_inputs=False).graph
        nodes += graph.node
        constants += graph.initializer
        constants.append(numpy_helper.from_array(np.array(weight), f"{prefix}weight"))
        nodes.append(helper.make_node("Mul", [f"{prefix}score", f"{prefix}weight"], [f"{prefix}weighted"]))
        weighted.append(f"{prefix}weighted")
    if largest is not None:
        constants += [numpy_helper.from_array(np.array(1.0), "one"), numpy_helper.from_array(np.array(0.0), "zero")]
        constants.append(numpy_helper.from_array(np.array(largest), "largest"))
        nodes += [
            helper.make_node("Sum", weighted, ["log_score"]),
            helper.make_node("Exp", ["log_score"], ["score_plus_one"]),
            helper.make_node("Sub", ["score_plus_one", "one"], ["plain_score"]),
            helper.make_node("Clip", ["plain_score", "zero", "largest"], ["score"]),
        ]
    else:
        nodes.append(helper.make_node("Sum", weighted, ["score"]))
    first = models[0].graph
    merged = helper.make_graph(nodes, "blend", list(first.input), list(first.output), constants)
    model = helper.make_model(
        merged, opset_imports=list(models[0].opset_import), producer_name="ml-platform", ir_version=IR_VERSION
    )
    checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
