"""Trees → ONNX without rounding: one `TreeEnsemble` (ai.onnx.ml opset 5) in double precision.

The stock converters work in float32, where a value next to a threshold can take the other branch: rows one unit in the
last place above a threshold differed by up to 0.7. This one is exact to 1e-15.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.spec.types import Task
from ml_platform.training.export.graph import Graph

if TYPE_CHECKING:
    import onnx

_BRANCH_LEQ = 0
_PICKED_CELLS = 2_000  # values that one row picks at once from leaves with one value per class


@dataclass
class _Ensemble:
    """Attributes of the TreeEnsemble operator, filled tree by tree."""

    feature_ids: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    nan_is_true: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    true_leaves: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    false_leaves: list[int] = field(default_factory=list)
    leaf_targets: list[int] = field(default_factory=list)
    leaf_weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def add(self, tree: Tree, target: int, values: list[float]) -> None:
        """Add a tree; `values` are those of its leaves."""
        node, leaf = len(self.splits), len(self.leaf_weights)
        self.roots.append(node)
        self.leaf_targets += [target] * len(values)
        self.leaf_weights += values
        # A tree of one leaf: the operator wants a node, so both ways lead to that leaf.
        left, right = (tree.left, tree.right) if tree.feature else ([~0], [~0])
        self.feature_ids += tree.feature or [0]
        self.splits += tree.split or [0.0]
        self.nan_is_true += [int(is_left) for is_left in tree.nan_left] or [1]
        for children, ids, leaves in (
            (left, self.true_ids, self.true_leaves),
            (right, self.false_ids, self.false_leaves),
        ):
            ids += [leaf + ~child if child < 0 else node + child for child in children]
            leaves += [int(child < 0) for child in children]

    def node(self, targets: int, source: str) -> "onnx.NodeProto":
        """The operator, from the matrix `source` to `trees` (rows × targets)."""
        from onnx import TensorProto, helper

        count = len(self.splits)
        return helper.make_node(
            "TreeEnsemble",
            [source],
            ["trees"],
            domain="ai.onnx.ml",
            n_targets=targets,
            aggregate_function=1,  # sum
            post_transform=0,  # none: it works in float32
            nodes_featureids=self.feature_ids,
            nodes_splits=helper.make_tensor("splits", TensorProto.DOUBLE, [count], self.splits),
            nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [count], bytes([_BRANCH_LEQ]) * count, raw=True),
            nodes_truenodeids=self.true_ids,
            nodes_trueleafs=self.true_leaves,
            nodes_falsenodeids=self.false_ids,
            nodes_falseleafs=self.false_leaves,
            nodes_missing_value_tracks_true=self.nan_is_true,
            tree_roots=self.roots,
            leaf_targetids=self.leaf_targets,
            leaf_weights=helper.make_tensor("weights", TensorProto.DOUBLE, [len(self.leaf_weights)], self.leaf_weights),
        )


def export_trees(model: Trees, task: Task, width: int) -> bytes:
    """Write an ensemble as a graph, as `ml_platform.inference.explain` explains it.

    Parameters
    ----------
    model
        Its raw scores are log-odds or probabilities, one for each class for multiclass, or the value.
    task
        Kind of model.
    width
        Number of features.
    """
    graph = Graph()
    raw = add_trees(graph, model, alone=task != "multiclass")
    return graph.finish(
        raw, task, width=width, outputs=model.targets, probabilities=model.probabilities, explanation=model
    )


def add_trees(graph: Graph, model: Trees, *, alone: bool, source: str = "X") -> str:
    """Add the raw scores of the matrix `source`: (rows,) if there is one `alone`, else (rows × targets)."""
    vectors = any(tree.leaf_vector for tree in model.trees)
    raw = _picked(graph, model, source) if vectors else _summed(graph, model, source)
    return graph.add("Reshape", [raw, graph.constant("rows", [-1], np.int64)], "value") if alone else raw


def _summed(graph: Graph, model: Trees, source: str) -> str:
    """Each tree adds to one target."""
    ensemble = _Ensemble()
    for tree in model.trees:
        ensemble.add(tree, tree.target, tree.leaf_value)
    graph.nodes.append(ensemble.node(model.targets, source))
    return "trees"


def _picked(graph: Graph, model: Trees, source: str) -> str:
    """Each tree names its leaf, whose values for all targets are then taken from a table and summed.

    The operator's leaves have one target; to repeat each tree for each of many classes would take as many times the
    memory.
    """
    ensemble, table = _Ensemble(), list[list[float]]()
    for position, tree in enumerate(model.trees):
        ensemble.add(tree, position, [float(len(table) + leaf) for leaf in range(len(tree.leaf_vector))])
        table += tree.leaf_vector
    graph.nodes.append(ensemble.node(len(model.trees), source))
    leaves = graph.add("Cast", ["trees"], "leaves", to=7)  # int64
    values, axis = graph.constant("leaf_values", table), graph.constant("axis", [1], np.int64)
    size = max(1, _PICKED_CELLS // model.targets)
    sums = []
    for start in range(0, len(model.trees), size):
        trees = range(start, min(start + size, len(model.trees)))
        these = graph.add(
            "Gather", [leaves, graph.constant(f"trees_{start}", trees, np.int64)], f"leaf_{start}", axis=1
        )
        picked = graph.add("Gather", [values, these], f"picked_{start}", axis=0)
        sums.append(graph.add("ReduceSum", [picked, axis], f"sum_{start}", keepdims=0))
    return graph.add("Sum", sums, "raw")


def halved(trees: list[Tree]) -> Trees:
    """An ensemble of two classes from trees with one raw score, the log-odds of the second class.

    Each class has half of it, with its own sign, whose softmax is the same: one raw score per class, as with more.
    """
    from msgspec.structs import replace

    return Trees(
        targets=2,
        trees=[
            replace(tree, target=target, leaf_value=[half * value for value in tree.leaf_value])
            for tree in trees
            for target, half in enumerate((-0.5, 0.5))
        ],
    )


def constant_tree(value: float, target: int = 0) -> Tree:
    """A tree of one leaf, which every row gets."""
    return Tree(
        target=target,
        feature=[],
        split=[],
        nan_left=[],
        left=[],
        right=[],
        cover=[],
        leaf_value=[value],
        leaf_cover=[1.0],
    )


def tree_of_arrays(
    left: np.ndarray,
    right: np.ndarray,
    *,
    feature: np.ndarray,
    split: np.ndarray,
    nan_left: np.ndarray,
    cover: np.ndarray,
    value: np.ndarray,
    target: int = 0,
) -> Tree:
    """A tree of arrays that have one entry per node, leaves included, the root first.

    Parameters
    ----------
    left, right
        Numbers of the children; negative or 0 in `left` for a leaf.
    feature, split, nan_left
        A row goes left where its value is at most the split (float64), or null and `nan_left`.
    cover
        Training rows that came to each node, or their weight; more than 0.
    value
        Value of each leaf: (nodes,), or (nodes × targets) for a value per target.
    target
        To which the values are added, where they are not per target.
    """
    leaf = left <= 0
    number = np.where(leaf, ~(np.cumsum(leaf) - 1), np.cumsum(~leaf) - 1)  # ~n for the nth leaf
    inner, values = ~leaf, value[leaf].astype(np.float64).tolist()
    return Tree(
        target=target,
        feature=feature[inner].astype(int).tolist(),
        split=split[inner].astype(np.float64).tolist(),
        nan_left=nan_left[inner].astype(bool).tolist(),
        left=number[left[inner].astype(int)].tolist(),
        right=number[right[inner].astype(int)].tolist(),
        cover=cover[inner].astype(np.float64).tolist(),
        leaf_value=values if value.ndim == 1 else [],
        leaf_vector=values if value.ndim > 1 else [],
        leaf_cover=cover[leaf].astype(np.float64).tolist(),
    )
