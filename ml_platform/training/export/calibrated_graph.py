"""Calibration as nodes at the end of a graph, in double precision; calibrated anew, only its numbers are replaced."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.inference.calibration import calibrated
from ml_platform.registry.manifest import Calibration, Feature
from ml_platform.spec.types import Task
from ml_platform.training.documents import ParityReport
from ml_platform.training.export.parity import REAL_ROWS, compare, nasty_rows

if TYPE_CHECKING:
    import onnx

_RAW = "score_without_calibration"
_PREFIX = "calibration_"
_EXACT = 1e-9  # both sides of the comparison are in double


def calibrate_graph(content: bytes, task: Task, calibration: Calibration) -> bytes:
    """Let a classifier's graph give calibrated probabilities, as `inference.calibration.calibrated` does.

    Parameters
    ----------
    content
        Graph whose output `score` is (rows,) for binary, (rows × classes) for multiclass; one that is calibrated is
        given the new numbers in place of its own.
    task
        Kind of model.
    calibration
        What to write.

    Returns
    -------
    bytes
        The graph. Its explanation stays that of the scores without calibration: `Scorer.explainer` applies it.
    """
    from onnx import checker, load_from_string, numpy_helper

    model = load_from_string(content)
    graph = model.graph
    numbers: dict[str, object] = {
        **({"one": 1.0} if task == "binary" else {}),
        "floor": calibration.floor,
        "ceiling": 1 - calibration.floor,
        "slope": calibration.slope,
        "shifts": calibration.shifts if task == "multiclass" else calibration.shifts[0],
    }
    is_calibrated = any(_RAW in node.output for node in graph.node)
    constants = [one for one in graph.initializer if one.name.removeprefix(_PREFIX) not in numbers]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, dtype=np.float64), _PREFIX + name) for name, value in numbers.items()
    )
    if not is_calibrated:
        for node in graph.node:
            node.output[:] = [_RAW if name == "score" else name for name in node.output]
            node.input[:] = [_RAW if name == "score" else name for name in node.input]
        graph.node.extend(_nodes(task))
    checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def uncalibrated_graph(content: bytes) -> bytes:
    """The graph as it was before its calibration; itself where it has none."""
    from onnx import load_from_string

    model = load_from_string(content)
    graph = model.graph
    if not any(_RAW in node.output for node in graph.node):
        return content
    nodes = [node for node in graph.node if not any(name.startswith(_PREFIX) for name in (*node.input, *node.output))]
    for node in nodes:
        node.output[:] = ["score" if name == _RAW else name for name in node.output]
        node.input[:] = ["score" if name == _RAW else name for name in node.input]
    constants = [one for one in graph.initializer if not one.name.startswith(_PREFIX)]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def check_calibrated(  # noqa: PLR0917 - as `check_parity`
    onnx: bytes, without: bytes, calibration: Calibration, task: Task, features: Sequence[Feature], X: np.ndarray
) -> ParityReport:
    """Compare a calibrated graph with the calibrated scores of a graph that lacks this calibration.

    The latter has been compared with the model itself, as closely as its library computes.

    Parameters
    ----------
    onnx, without
        Both graphs.
    calibration
        What one has and the other lacks.
    task, features, X
        As of `check_parity`.

    Raises
    ------
    ParityError
        Naming the worst row and both answers.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(without, options, providers=["CPUExecutionProvider"])

    def native(rows: np.ndarray) -> np.ndarray:
        return calibrated(calibration, session.run(["score"], {"X": rows})[0])

    rows = np.vstack([X[:: max(1, len(X) // REAL_ROWS)][:REAL_ROWS], nasty_rows(onnx, features, X)])
    return compare(native, onnx, task, features, rows, tolerance=_EXACT)


def _nodes(task: Task) -> list["onnx.NodeProto"]:
    from onnx import helper

    def node(operator: str, inputs: str, output: str, attributes: Mapping[str, int] | None = None) -> "onnx.NodeProto":
        names = [name if name == _RAW else _PREFIX + name for name in inputs.split()]
        written = output if output == "score" else _PREFIX + output
        return helper.make_node(operator, names, [written], **(attributes or {}))

    clamps = [node("Max", f"{_RAW} floor", "above"), node("Min", "above ceiling", "held")]
    logs = [node("Log", "held", "log")]
    if task == "binary":
        logs[0] = node("Log", "held", "log_true")
        logs += [node("Sub", "one held", "rest"), node("Log", "rest", "log_false")]
        logs += [node("Sub", "log_true log_false", "log")]
    mapped = [node("Mul", "log slope", "scaled"), node("Add", "scaled shifts", "shifted")]
    end = node("Sigmoid", "shifted", "score") if task == "binary" else node("Softmax", "shifted", "score", {"axis": 1})
    return [*clamps, *logs, *mapped, end]
