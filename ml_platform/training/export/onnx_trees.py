"""LightGBM → ONNX without rounding: one `TreeEnsemble` (ai.onnx.ml opset 5) in double precision.

The stock converters work in float32, where a value next to a threshold can take the other branch: rows one unit in the
last place above a threshold differed by up to 0.7. This one is exact to 1e-15.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import lightgbm
    import onnx

ZERO_THRESHOLD = float(np.float32(1e-35))  # LightGBM reads |x| up to this as 0
_INFINITE = 1e300  # how LightGBM's dump writes an infinite threshold
_BRANCH_LEQ = 0


@dataclass
class _Ensemble:
    """Attributes of the TreeEnsemble operator, filled node by node."""

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

    def add_leaf(self, value: float, target: int) -> int:
        self.leaf_targets.append(target)
        self.leaf_weights.append(value)
        return len(self.leaf_weights) - 1

    def add_node(self, feature: int, split: float, nan_is_true: bool) -> int:
        self.feature_ids.append(feature)
        self.splits.append(split)
        self.nan_is_true.append(int(nan_is_true))
        for branch in (self.true_ids, self.true_leaves, self.false_ids, self.false_leaves):
            branch.append(0)
        return len(self.splits) - 1

    def set_branch(self, node: int, side: bool, child: int, is_leaf: bool) -> None:
        ids, leaves = (self.true_ids, self.true_leaves) if side else (self.false_ids, self.false_leaves)
        ids[node], leaves[node] = child, int(is_leaf)


def booster_nodes(booster: "lightgbm.Booster", task: str) -> tuple[list["onnx.NodeProto"], int]:
    """Nodes that turn a matrix `X` (rows × features, double) into `score` by a booster's trees.

    Returns
    -------
    tuple
        The nodes, and the number of the trees' outputs (1, or the number of classes).

    Raises
    ------
    ValueError
        For what the conversion cannot do exactly: categorical splits, `zero_as_missing`, linear trees, and objectives
        whose answer is not a sigmoid, a softmax or the plain sum.
    """
    from onnx import TensorProto, helper

    model = booster.dump_model()
    outputs = int(model["num_tree_per_iteration"])
    post, scale = _post_transform(str(model["objective"]), task)
    ensemble = _Ensemble()
    two_classes = task == "multiclass" and outputs == 1
    for tree in model["tree_info"]:
        if two_classes:  # with one raw score, of which each class gets half, with its own sign
            for target, half in enumerate((-scale / 2, scale / 2)):
                _add_tree(ensemble, tree["tree_structure"], target, half)
        else:
            _add_tree(ensemble, tree["tree_structure"], int(tree["tree_index"]) % outputs, scale)
    outputs = 2 if two_classes else outputs
    count = len(ensemble.splits)
    trees = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=outputs,
        aggregate_function=1,  # sum
        post_transform=0,  # none: it works in float32
        nodes_featureids=ensemble.feature_ids,
        nodes_splits=helper.make_tensor("splits", TensorProto.DOUBLE, [count], ensemble.splits),
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [count], bytes([_BRANCH_LEQ]) * count, raw=True),
        nodes_truenodeids=ensemble.true_ids,
        nodes_trueleafs=ensemble.true_leaves,
        nodes_falsenodeids=ensemble.false_ids,
        nodes_falseleafs=ensemble.false_leaves,
        nodes_missing_value_tracks_true=ensemble.nan_is_true,
        tree_roots=ensemble.roots,
        leaf_targetids=ensemble.leaf_targets,
        leaf_weights=helper.make_tensor(
            "weights", TensorProto.DOUBLE, [len(ensemble.leaf_weights)], ensemble.leaf_weights
        ),
    )
    if post == "Softmax":
        return [trees, helper.make_node("Softmax", ["raw"], ["score"], axis=1)], outputs
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
    nodes = [
        trees,
        helper.make_node("Constant", [], ["rows"], value=shape),
        helper.make_node("Reshape", ["raw", "rows"], ["value" if post else "score"]),
    ]
    if post:
        nodes.append(helper.make_node(post, ["value"], ["score"]))
    return nodes, outputs


def thresholds(booster: "lightgbm.Booster") -> dict[int, list[float]]:
    """Feature position → every finite threshold that some tree compares it with, sorted."""
    found: dict[int, set[float]] = {}

    def walk(node: dict[str, Any]) -> None:
        if "split_feature" in node:
            if math.isfinite(split := split_of(node["threshold"])):
                found.setdefault(int(node["split_feature"]), set()).add(split)
            walk(node["left_child"])
            walk(node["right_child"])

    for tree in booster.dump_model()["tree_info"]:
        walk(tree["tree_structure"])
    return {feature: sorted(values) for feature, values in sorted(found.items())}


def _add_tree(ensemble: _Ensemble, root: dict[str, Any], target: int, scale: float) -> None:
    ensemble.roots.append(len(ensemble.splits))
    if "split_feature" not in root:  # a tree of one leaf: the operator wants a node, so both ways lead to that leaf
        node = ensemble.add_node(0, 0.0, True)
        for side in (True, False):
            ensemble.set_branch(node, side, ensemble.add_leaf(float(root["leaf_value"]) * scale, target), True)
        return
    pending: list[tuple[dict[str, Any], int, bool]] = [(root, -1, True)]
    while pending:
        found, parent, side = pending.pop()
        is_leaf = "split_feature" not in found
        if is_leaf:
            child = ensemble.add_leaf(float(found["leaf_value"]) * scale, target)
        else:
            split = split_of(found["threshold"], found)
            child = ensemble.add_node(int(found["split_feature"]), split, nan_goes_left(found, split))
            pending += [(found["right_child"], child, False), (found["left_child"], child, True)]
        if parent >= 0:
            ensemble.set_branch(parent, side, child, is_leaf)


def split_of(threshold: Any, node: dict[str, Any] | None = None) -> float:
    """Threshold that splits doubles as LightGBM does, which treats tiny values as 0."""
    if node is not None and node["decision_type"] != "<=":
        raise ValueError(
            f"LightGBM split '{node['decision_type']}' cannot be exported exactly: encode categories as numbers first"
        )
    value = float(threshold)
    if abs(value) >= _INFINITE:
        return math.copysign(math.inf, value)
    if abs(value) <= ZERO_THRESHOLD:
        return ZERO_THRESHOLD if value >= 0 else math.nextafter(-ZERO_THRESHOLD, -math.inf)
    return value


def nan_goes_left(node: dict[str, Any], split: float) -> bool:
    """Whether a null takes the branch of `value <= split`."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # training saw no NaN here, and LightGBM then reads one as 0
        return split >= 0
    raise ValueError("LightGBM trained with zero_as_missing cannot be exported exactly: leave that parameter out")


def _post_transform(objective: str, task: str) -> tuple[str | None, float]:
    name, *options = objective.split()
    if task in ("binary", "multiclass") and name == "binary":
        sigmoid = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
        return "Sigmoid" if task == "binary" else "Softmax", sigmoid[0] if sigmoid else 1.0
    if task == "multiclass" and name == "multiclass":
        return "Softmax", 1.0
    if task == "regression" and name in ("regression", "regression_l1", "huber", "quantile") and "sqrt" not in options:
        return None, 1.0
    raise ValueError(
        f"LightGBM objective '{objective}' has no exact export for task '{task}'; use the default objective"
    )
