"""Fitted pipeline → what `ml_platform.inference.explain` needs to explain its scores without a training library."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Linear, Tree, Trees
from ml_platform.spec.model import Task

if TYPE_CHECKING:
    import lightgbm
    from sklearn.pipeline import Pipeline


def explanation_of(estimator: "Pipeline", task: Task) -> Trees | Linear:
    """Describe a pipeline of `build_estimator` for explaining.

    A multiclass model of two classes has one raw score, of the second class against the first. Here each class has half
    of it, with its own sign, whose softmax is the same: one raw score per class, as with more classes.

    Raises
    ------
    ValueError
        For what the export refuses as well (see `ml_platform.training.export.onnx_trees`).
    """
    model = estimator.named_steps["model"]
    if hasattr(model, "booster_"):
        return _trees(model.booster_, task)
    coefficients, intercept = np.atleast_2d(model.coef_).astype(float), np.atleast_1d(model.intercept_).astype(float)
    if task == "multiclass" and len(intercept) == 1:
        halves = np.array([[-0.5], [0.5]])
        coefficients, intercept = halves * coefficients, halves[:, 0] * intercept
    return _linear(estimator, coefficients, intercept)


def _trees(booster: "lightgbm.Booster", task: Task) -> Trees:
    model = booster.dump_model()
    targets = int(model["num_tree_per_iteration"])
    if task == "multiclass" and targets == 1:
        halves = [(0, -0.5), (1, 0.5)]
        trees = [_tree(tree["tree_structure"], *half) for tree in model["tree_info"] for half in halves]
        return Trees(targets=2, trees=trees)
    trees = [_tree(tree["tree_structure"], int(tree["tree_index"]) % targets) for tree in model["tree_info"]]
    return Trees(targets=targets, trees=trees)


def _tree(root: dict[str, Any], target: int, share: float = 1.0) -> Tree:
    from ml_platform.training.export.onnx_trees import nan_goes_left, split_of

    tree = Tree(
        target=target, feature=[], split=[], nan_left=[], left=[], right=[], cover=[], leaf_value=[], leaf_cover=[]
    )
    pending: list[tuple[dict[str, Any], list[int] | None, int]] = [(root, None, 0)]
    while pending:
        found, siblings, parent = pending.pop()
        if "split_feature" in found:
            number = len(tree.feature)
            split = split_of(found["threshold"], found)
            tree.feature.append(int(found["split_feature"]))
            tree.split.append(split)
            tree.nan_left.append(nan_goes_left(found, split))
            tree.cover.append(float(found["internal_count"]))
            tree.left.append(0)
            tree.right.append(0)
            pending += [(found["right_child"], tree.right, number), (found["left_child"], tree.left, number)]
        else:
            number = ~len(tree.leaf_value)
            tree.leaf_value.append(float(found["leaf_value"]) * share)
            tree.leaf_cover.append(float(found.get("leaf_count", 1)))
        if siblings is not None:
            siblings[parent] = number
    return tree


def _linear(estimator: "Pipeline", coefficients: np.ndarray, intercept: np.ndarray) -> Linear:
    columns = estimator.named_steps["columns"]
    found = Linear(
        intercept=intercept.tolist(),
        numeric=[],
        fill=[],
        mean=[],
        scale=[],
        numeric_coefficients=[[] for _ in coefficients],
        categorical=[],
        codes=[],
        categorical_coefficients=[[] for _ in coefficients],
    )
    start = 0
    for name, transformer, positions in columns.transformers_:
        if name == "numeric":
            imputer, scaler = transformer.named_steps["impute"], transformer.named_steps["scale"]
            found.numeric = [int(position) for position in positions]
            found.fill = np.nan_to_num(imputer.statistics_, nan=0.0).tolist()
            found.mean, found.scale = scaler.mean_.tolist(), scaler.scale_.tolist()
            found.numeric_coefficients = coefficients[:, start : start + len(positions)].tolist()
            start += len(positions)
        elif name == "categorical":
            found.categorical = [int(position) for position in positions]
            found.codes = [codes.tolist() for codes in transformer.categories_]
            for codes in found.codes:
                for target, row in zip(found.categorical_coefficients, coefficients, strict=True):
                    target.append(row[start : start + len(codes)].tolist())
                start += len(codes)
    return found
