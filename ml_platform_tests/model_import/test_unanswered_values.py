"""A number to which a graph has no finite answer is told with the way on, unless the contract keeps it out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.onnx_file import read_onnx
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.unanswered_values import check_refusals
from ml_platform.registry.manifest import Feature
from ml_platform_tests.toy_world import regression_spec

ROWS = pl.DataFrame({"weight": [8.0, 9.0], "load": [7.0, 6.0]})


def refused(folder: Path, operator: str, source: str = "input", **rule: Any) -> np.ndarray:
    """Import the sum of a function of two numbers less five, as a graph."""
    nodes = [
        helper.make_node("Sub", ["X", "five"], ["less"]),
        helper.make_node(operator, ["less"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axis"], ["Y"], keepdims=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([5.0, 0.0], np.float32), "five"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])]
        for name, columns in (("X", 2), ("Y", 1))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    spec = regression_spec()
    fields = [one.model_copy(update=rule) if one.name == "weight" else one for one in spec.inputs]
    features = [
        Feature(name="weight", kind="numeric", source=source),
        Feature(name="load", kind="numeric", source="view:shop_load"),
    ]
    bound = read_onnx(folder / "m.onnx", Declaration()).bind("regression", features, 1)
    kept: Sequence[Any] = fields if source == "input" else [one for one in fields if one.name != "weight"]
    return check_refusals(spec.model_copy(update={"inputs": tuple(kept)}), bound, FeatureEncoder(features), ROWS, set())


def test_a_number_without_a_finite_answer_is_named_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused) as told:
        refused(tmp_path, "Log")
    assert str(told.value) == (
        "the model answers NaN for 'weight' = 0.1234567 (input), which the folder's contract allows: set `minimum` or "
        "`maximum` for the input in defs.yaml, with `on_violation: reject`, or clip it in the model"
    )
    with pytest.raises(ImportRefused, match="answers inf for 'weight' = 5 "):
        refused(tmp_path, "Reciprocal", minimum=5.0, maximum=5.0)
    with pytest.raises(ImportRefused, match=r"\(derived\), which the folder's contract allows: clip it in the model$"):
        refused(tmp_path, "Log", source="derived")
    with pytest.raises(ImportRefused, match=r"= 0\.1234567"):
        refused(tmp_path, "Log", minimum=6.0, on_violation="flag")
    with pytest.raises(ImportRefused, match=r"= -1\.123457"):
        refused(tmp_path, "Log", minimum=None, maximum=-1.0)


def test_the_contract_keeps_it_out(tmp_path: Path) -> None:
    assert refused(tmp_path, "Log", minimum=6.0)[:, 1].tolist() == [False, False]
    assert refused(tmp_path, "Log", minimum=6.0, maximum=9.0)[:, 1].tolist() == [False, False]
