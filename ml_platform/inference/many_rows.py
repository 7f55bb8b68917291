"""Scores many rows with a bundle, several times as fast as its graph does: trees as bit vectors, the rest by the graph.

Scores are those of the graph to the last bit, or the graph gives them: that is tried, on rows at the trees' own splits,
before anything is scored.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.inference.missing_values import infinite_as_missing
from ml_platform.inference.scorer import Scorer, session_of
from ml_platform.inference.tree_bits import TreeBits, read_trees

if TYPE_CHECKING:
    import onnx

_logger = logging.getLogger(__name__)
_WORTH = 3e8  # rows × trees below which Numba's start, a second or two, is more than what it saves
_TRIED_ROWS = 512
_INPUT = "X"

Score = Callable[[np.ndarray], np.ndarray]


def many_rows_score(scorer: Scorer, graph: bytes, rows: int) -> Score:
    """Choose what scores a matrix (rows × features) as `scorer.score` does, for so many rows in all.

    That is `scorer.score` itself for few rows, for graphs without trees in double precision, and where Numba or onnx is
    not installed.

    Parameters
    ----------
    scorer
        A bundle.
    graph
        Its graph.
    rows
        How many rows will be scored, at a guess.
    """
    if b"TreeEnsemble" not in graph or find_spec("numba") is None or find_spec("onnx") is None:
        return scorer.score
    import onnx

    model = onnx.load_from_string(graph)
    features = len(scorer.manifest.features)
    trees = {node.output[0]: read_trees(node, features) for node in model.graph.node if _reads_matrix(node)}
    known = {name: bits for name, bits in trees.items() if bits is not None}
    if rows * sum(len(bits.leaves) for bits in known.values()) < _WORTH:
        return scorer.score
    faster = _Split(model, known)
    tried = _rows_at_splits(list(known.values()), features)
    if not np.array_equal(faster.score(tried), scorer.score(tried), equal_nan=True):
        _logger.warning(
            "%s: its trees as bit vectors score other than its graph, which is used instead", scorer.manifest.model
        )
        return scorer.score
    return faster.score


class _Split:
    """A graph without some ensembles of trees, whose sums it takes as inputs."""

    def __init__(self, model: "onnx.ModelProto", trees: dict[str, TreeBits]) -> None:
        from onnx import TensorProto, helper

        self._trees = trees
        rest = type(model)()
        rest.CopyFrom(model)
        nodes = [node for node in rest.graph.node if node.output[0] not in trees]
        del rest.graph.node[:]
        rest.graph.node.extend(nodes)
        for name, bits in trees.items():
            rest.graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, bits.width]))
        self._reads_matrix = any(_INPUT in node.input for node in nodes)
        if not self._reads_matrix:
            matrix = next(one for one in rest.graph.input if one.name == _INPUT)
            rest.graph.input.remove(matrix)
        self._session = session_of(rest.SerializeToString())

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """See `Scorer.score`."""
        from ml_platform.inference.tree_kernel import sum_trees

        matrix = infinite_as_missing(matrix)
        inputs = {name: sum_trees(bits, matrix) for name, bits in self._trees.items()}
        if self._reads_matrix:
            inputs[_INPUT] = matrix
        scores: np.ndarray = self._session.run(["score"], inputs)[0]
        return scores


def _reads_matrix(node: "onnx.NodeProto") -> bool:
    return node.op_type == "TreeEnsemble" and list(node.input) == [_INPUT]


def _rows_at_splits(trees: list[TreeBits], features: int) -> np.ndarray:
    """Rows whose values are at, next to and between the splits, or missing."""
    random = np.random.default_rng(0)
    rows = np.zeros((_TRIED_ROWS, features))
    for feature in range(features):
        splits = np.concatenate([bits.splits[slice(*bits.starts[2 * feature : 2 * feature + 3 : 2])] for bits in trees])
        around = [splits, np.nextafter(splits, np.inf), np.nextafter(splits, -np.inf), splits + 1.0, [np.nan, 0.0]]
        rows[:, feature] = random.choice(np.concatenate(around), _TRIED_ROWS)
    return rows
