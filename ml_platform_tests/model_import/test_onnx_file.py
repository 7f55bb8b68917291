"""An ONNX file keeps its own nodes between the matrix and the scores; what needs more than the file is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.onnx_file import read_onnx
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import Feature
from ml_platform.training.export.parity import compare
from ml_platform_tests.model_import.parity import number, text

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
WEIGHTS = numpy_helper.from_array(np.array([[0.5], [-0.25]], np.float32), "W")
X = np.array([[1.0, 2.0], [-3.0, 0.5], [8.0, 1.0]])
NUMBERS = [number("a"), number("b")]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a graph to a file."""

    def write(
        nodes: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        opset: int = 17,
        domains: Sequence[str] = (),
    ) -> Path:
        graph = helper.make_graph(nodes, "g", inputs, outputs, [WEIGHTS])
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 3) for name in domains)]
        path = tmp_path / "model.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
        return path

    return write


def tensor(name: str, kind: int, columns: int | None, rows: int | None = None) -> Any:
    return helper.make_tensor_value_info(name, kind, [rows, columns])


LINEAR = [helper.make_node("MatMul", ["X", "W"], ["Y"])]


def linear(written: Callable[..., Path], **options: Any) -> Path:
    return written(LINEAR, [tensor("X", FLOAT, 2)], [tensor("Y", FLOAT, 1)], **options)


def agree(path: Path, declared: Declaration, task: Any, features: Sequence[Feature], rows: np.ndarray) -> np.ndarray:
    bound = read_onnx(path, declared).bind(task, features, 1)
    compare(bound.native, bound.onnx, task, features, rows, tolerance=bound.tolerance)
    assert bound.unexplained
    return bound.native(rows)


def test_a_matrix_of_numbers_and_each_link(written: Callable[..., Path]) -> None:
    path, raw = linear(written), X @ [0.5, -0.25]
    assert read_onnx(path, Declaration()).width == 2
    assert np.allclose(agree(path, Declaration(), "regression", NUMBERS, X), raw)
    assert np.allclose(agree(path, Declaration(link="exp"), "regression", NUMBERS, X), np.exp(raw))
    assert np.allclose(agree(path, Declaration(link="sigmoid"), "binary", NUMBERS, X), 1 / (1 + np.exp(-raw)))


def test_text_and_whole_numbers_by_name_and_a_list_of_dictionaries(written: Callable[..., Path]) -> None:
    probabilities = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None))
    nodes = [
        helper.make_node(
            "OneHotEncoder", ["channel"], ["one"], domain="ai.onnx.ml", cats_strings=["web", "phone"], zeros=1
        ),
        helper.make_node("Flatten", ["one"], ["flat"]),
        helper.make_node("Cast", ["day"], ["number"], to=FLOAT),
        helper.make_node("Concat", ["flat", "number"], ["all"], axis=1),
        helper.make_node(
            "LinearClassifier",
            ["all"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            coefficients=[-0.1, 0.9, 0.2, 0.1, -0.9, -0.2],
            intercepts=[0.1, -0.1],
            classlabels_ints=[0, 1],
            post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["raw"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    outputs = [
        helper.make_tensor_value_info("label", INT64, [None]),
        helper.make_value_info("maps", helper.make_sequence_type_proto(probabilities)),
    ]
    path = written(nodes, [tensor("channel", STRING, 1), tensor("day", INT64, 1)], outputs, domains=["ai.onnx.ml"])
    model = read_onnx(path, Declaration())
    assert (model.inputs, model.classes) == (("channel", "day"), (0, 1))
    assert model.categories == {0: ("phone", "web")}
    rows = np.array([[0.0, 1.0], [1.0, 2.0], [-1.0, 3.0], [-2.0, 4.0]])
    scores = agree(path, Declaration(), "binary", [text("channel", ["phone", "web"]), number("day")], rows)
    phone = np.exp([0.1 + 0.9 + 0.2, -0.1 - 0.9 - 0.2])
    assert np.isclose(scores[0], phone[1] / phone.sum())
    bound = model.bind("binary", [text("channel"), number("day")], 1)
    with pytest.raises(ValueError, match="no NaN for a missing one"):
        bound.native(np.array([[0.0, np.nan]]))


def test_what_is_not_in_the_file_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(
        [helper.make_node("Magic", ["X"], ["Y"], domain="own")], [tensor("X", FLOAT, 2)], [tensor("Y", FLOAT, 1)]
    )
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("own", 1))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ImportRefused, match="operators of the domain own"):
        read_onnx(path, Declaration())
    plain = onnx.load(linear(written))
    onnx.save_model(plain, tmp_path / "outside.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(ImportRefused, match="keeps weights in other files"):
        read_onnx(tmp_path / "outside.onnx", Declaration())
    with pytest.raises(ImportRefused, match="has opset 99"):
        read_onnx(linear(written, opset=99), Declaration())


def test_shapes_and_outputs_that_cannot_be_served(written: Callable[..., Path]) -> None:
    with pytest.raises(ImportRefused, match=r"input X has the shape \[1, 2\]: wanted \(rows, columns\)"):
        read_onnx(written(LINEAR, [tensor("X", FLOAT, 2, rows=1)], [tensor("Y", FLOAT, 1)]), Declaration())
    two = [tensor("Y", FLOAT, 1), tensor("Z", FLOAT, 1)]
    path = written([*LINEAR, helper.make_node("Neg", ["Y"], ["Z"])], [tensor("X", FLOAT, 2)], two)
    with pytest.raises(ImportRefused, match="name it by --output"):
        read_onnx(path, Declaration())
    with pytest.raises(ImportRefused, match="has no output Q; it has Y, Z"):
        read_onnx(path, Declaration(output="Q"))
    assert np.allclose(agree(path, Declaration(output="Z"), "regression", NUMBERS, X), -X @ [0.5, -0.25])
    bound = read_onnx(path, Declaration(output="Z")).bind("multiclass", NUMBERS, 1)
    with pytest.raises(
        ImportRefused, match="answers with 1 numbers a row; for the task multiclass wanted are 2 or more"
    ):
        bound.native(X)


def test_a_file_that_is_cut_off_is_refused(written: Callable[..., Path]) -> None:
    path = linear(written)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImportRefused, match="no complete ONNX model"):
        read_onnx(path, Declaration())
