"""The thresholds that a graph's trees compare features with, read from the graph itself."""

import math

import numpy as np


def thresholds(onnx: bytes) -> dict[int, list[float]]:
    """Feature position → every finite threshold that some tree of a graph compares it with, sorted.

    Trees of all operators that ONNX has for them are read; a graph without trees has no thresholds.
    """
    from onnx import helper, load_from_string, numpy_helper

    thresholds: dict[int, set[float]] = {}
    for node in load_from_string(onnx).graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        splits = next((attributes[name] for name in _SPLITS if name in attributes), None)
        if splits is None:
            continue
        values = np.asarray(splits) if isinstance(splits, list) else numpy_helper.to_array(splits)
        for feature, value in zip(attributes["nodes_featureids"], values.tolist(), strict=True):
            if math.isfinite(value):
                thresholds.setdefault(int(feature), set()).add(float(value))
    return {feature: sorted(values) for feature, values in sorted(thresholds.items())}


_SPLITS = ("nodes_splits", "nodes_values_as_tensor", "nodes_values")
