"""Explains scores: what each feature adds to the raw score, computed exactly and only with numpy.

For trees these are the Shapley values of path-dependent TreeSHAP (Lundberg et al., 2020), as LightGBM's `pred_contrib`
gives them. They are not computed tree by tree. A leaf's share for a feature is the integral over t from 0 to 1 of the
product, over the other features on its path, of `o t + z (1 - t)`, where `o` is whether the row goes that way and `z`
the share of the training rows that do. The integrand is a polynomial, so Gauss-Legendre quadrature with half as many
points as the path has features is exact, and all leaves are computed at once.

Training writes what is needed into the metadata of the model's graph (`ml_platform.training.export.graph`).
"""

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ml_platform.inference.explain_mlp import Mlp, MlpExplainer
from ml_platform.inference.explainer import Explainer, Explanations

METADATA_KEY = "explanation"
_LARGEST = float(np.finfo(np.float64).max)
_CELLS = 2_000_000  # numbers in one temporary array: 16 MB


class Tree(msgspec.Struct, kw_only=True):
    """One tree; a child is a node, or the leaf `~child` when it is negative."""

    target: int
    feature: list[int]
    split: list[float]  # left when value <= split
    nan_left: list[bool]
    left: list[int]
    right: list[int]
    cover: list[float]  # training rows that came to the node
    leaf_value: list[float]
    leaf_cover: list[float]
    leaf_vector: list[list[float]] = []  # in place of target and leaf_value: a leaf's value for each target


class Trees(msgspec.Struct, kw_only=True, tag="tree_shap"):
    """An ensemble whose raw score is the sum over its trees, per target."""

    targets: int
    trees: list[Tree]
    probabilities: bool = False  # raw scores are probabilities themselves, and not log-odds


class Linear(msgspec.Struct, kw_only=True, tag="linear"):
    """A linear model over standardised numbers and one-hot codes; coefficients by target."""

    intercept: list[float]
    numeric: list[int]  # positions in the matrix
    fill: list[float]  # replaces NaN
    mean: list[float]
    scale: list[float]
    numeric_coefficients: list[list[float]]
    categorical: list[int]
    codes: list[list[float]]
    categorical_coefficients: list[list[list[float]]]  # target, feature, code


Explanation = Trees | Linear | Mlp


def pack(explanation: Explanation) -> str:
    """Encode what an explainer needs as text for a graph's metadata."""
    return base64.b85encode(zlib.compress(msgspec.msgpack.encode(explanation), 6)).decode()


def unpack(text: str, width: int) -> Explainer:
    """Make the explainer from text of a graph's metadata; `width` is the number of features."""
    explanation = decode(text)
    if isinstance(explanation, Trees):
        return TreeExplainer(explanation, width)
    return MlpExplainer(explanation, width) if isinstance(explanation, Mlp) else LinearExplainer(explanation, width)


def decode(text: str) -> Explanation:
    """Read what `pack` encoded."""
    explanation: Explanation = msgspec.msgpack.decode(zlib.decompress(base64.b85decode(text)), type=Explanation)
    return explanation


class TreeExplainer:
    """Path-dependent TreeSHAP of an ensemble.

    Examples
    --------
    >>> stump = Tree(target=0, feature=[0], split=[1.5], nan_left=[True], left=[~0], right=[~1], cover=[10.0],
    ...              leaf_value=[-1.0, 3.0], leaf_cover=[5.0, 5.0])
    >>> found = TreeExplainer(Trees(targets=1, trees=[stump]), width=2).explain(np.array([[2.0, 0.0], [0.0, 0.0]]))
    >>> found.base.tolist(), found.contributions.tolist()
    ([1.0], [[[2.0, 0.0]], [[-2.0, 0.0]]])
    """

    method = "tree_shap"

    def __init__(self, ensemble: Trees, width: int) -> None:
        leaves = [leaf for tree in ensemble.trees for leaf in _leaves(tree)]
        self.probabilities = ensemble.probabilities
        depth = max((len(leaf.features) for leaf in leaves), default=0)
        shape = (len(leaves), max(depth, 1))
        # Empty slots of short paths have o = z = 1: a factor of 1, and a contribution of 0.
        self._feature = np.zeros(shape, dtype=np.int64)
        self._low, self._high = np.full(shape, -np.inf), np.full(shape, np.inf)
        self._nan = np.ones(shape, dtype=bool)
        self._share = np.ones(shape)
        self._empty = np.ones(shape, dtype=bool)
        for number, leaf in enumerate(leaves):
            used = len(leaf.features)
            self._feature[number, :used] = list(leaf.features)
            for slot, (low, high, nan, share) in enumerate(leaf.features.values()):
                self._low[number, slot], self._high[number, slot] = low, high
                self._nan[number, slot], self._share[number, slot] = nan, share
            self._empty[number, :used] = False
        self._targets, self._width = ensemble.targets, width
        self._target = np.array([leaf.target for leaf in leaves], dtype=np.int64)
        weight = np.array([leaf.weight for leaf in leaves])
        self._value = np.array([leaf.value for leaf in leaves])  # (leaves,), or (leaves × targets)
        if self._value.ndim == 1:
            self._base = np.bincount(self._target, weight * self._value, minlength=ensemble.targets)
        else:
            self._base = weight @ self._value
        points, weights = np.polynomial.legendre.leggauss(depth // 2 + 1)
        self._points, self._weights = (points + 1) / 2, weights / 2

    def explain(self, matrix: np.ndarray) -> Explanations:
        """See `Explainer.explain`."""
        contributions = np.zeros((len(matrix), self._targets * self._width))
        matrix = np.clip(matrix, -_LARGEST, _LARGEST)  # so that infinite values are inside open intervals
        leaves, slots = self._feature.shape
        step = max(1, _CELLS // (slots * len(self._points)))
        for start in range(0, leaves, step):
            part = slice(start, start + step)
            add = self._add_to_targets(part) if self._value.ndim == 1 else self._add_to_all(part)
            for row, values in enumerate(matrix):
                contributions[row] += add(self._shares(values, part))
        return Explanations(self._base, contributions.reshape(len(matrix), self._targets, self._width))

    def _add_to_targets(self, part: slice) -> Callable[[np.ndarray], np.ndarray]:
        """From shares of leaves that have one target each to contributions (targets · features)."""
        place = (self._target[part, None] * self._width + self._feature[part]).ravel()
        size, value = self._targets * self._width, self._value[part, None]
        return lambda shares: np.bincount(place, (shares * value).ravel(), minlength=size)

    def _add_to_all(self, part: slice) -> Callable[[np.ndarray], np.ndarray]:
        """From shares of leaves that have a value for each target to contributions (targets · features)."""
        value = self._value[part]
        place = (self._feature[part] * len(value) + np.arange(len(value))[:, None]).ravel()
        shape = (self._width, len(value))
        return lambda shares: (
            value.T @ np.bincount(place, shares.ravel(), minlength=shape[0] * shape[1]).reshape(shape).T
        ).ravel()

    def _shares(self, values: np.ndarray, part: slice) -> np.ndarray:
        """What each slot of some leaves contributes of the leaf's value (leaves × slots)."""
        inputs = values[self._feature[part]]
        goes = np.where(np.isnan(inputs), self._nan[part], (inputs > self._low[part]) & (inputs <= self._high[part]))
        goes = np.where(self._empty[part], 1.0, goes)
        share = self._share[part]
        factors = goes[..., None] * self._points + share[..., None] * (1 - self._points)
        product = factors.prod(axis=1) * self._weights
        integral = np.einsum("lq,lsq->ls", product, 1 / factors)
        shares: np.ndarray = (goes - share) * integral
        return shares


class LinearExplainer:
    """Coefficient times standardised value; the base is the intercept, which is the score of average numbers."""

    method = "linear"
    probabilities = False

    def __init__(self, model: Linear, width: int) -> None:
        self._model = model
        self._width = width

    def explain(self, matrix: np.ndarray) -> Explanations:
        """See `Explainer.explain`."""
        model = self._model
        base = np.array(model.intercept)
        contributions = np.zeros((len(matrix), len(base), self._width))
        if model.numeric:
            numbers = matrix[:, model.numeric]
            numbers = (np.where(np.isnan(numbers), model.fill, numbers) - model.mean) / model.scale
            contributions[:, :, model.numeric] = numbers[:, None, :] * np.array(model.numeric_coefficients)
        for place, (position, codes) in enumerate(zip(model.categorical, model.codes, strict=True)):
            one_hot = matrix[:, [position]] == np.array(codes)
            coefficients = np.array([target[place] for target in model.categorical_coefficients])
            contributions[:, :, position] = one_hot @ coefficients.T
        return Explanations(base, contributions)


@dataclass(slots=True)
class _Leaf:
    """A leaf; for each feature on its path: lower and upper bound, whether NaN goes this way, share of rows that do."""

    target: int
    value: float | list[float]
    weight: float  # share of the tree's training rows that came here
    features: dict[int, tuple[float, float, bool, float]]


def _leaves(tree: Tree) -> list[_Leaf]:
    values: Sequence[float | list[float]] = tree.leaf_vector or tree.leaf_value
    if not tree.feature:
        return [_Leaf(tree.target, values[0], 1.0, {})]
    leaves = []
    pending: list[tuple[int, dict[int, tuple[float, float, bool, float]]]] = [(0, {})]
    while pending:
        node, path = pending.pop()
        if node < 0:
            weight = tree.leaf_cover[~node] / tree.cover[0]
            leaves.append(_Leaf(tree.target, values[~node], weight, path))
            continue
        feature, split = tree.feature[node], tree.split[node]
        low, high, nan, share = path.get(feature, (-np.inf, np.inf, True, 1.0))
        for child, is_left in ((tree.left[node], True), (tree.right[node], False)):
            part = (tree.leaf_cover[~child] if child < 0 else tree.cover[child]) / tree.cover[node]
            bounds = (low, min(high, split)) if is_left else (max(low, split), high)
            way = (*bounds, nan and tree.nan_left[node] == is_left, share * part)
            pending.append((child, {**path, feature: way}))
    return leaves


def describe(features: list[str], base: Any, contributions: np.ndarray) -> dict[str, Any]:
    """One row's explanation for one target as plain data, the features that matter most first."""
    order = np.argsort(-np.abs(contributions), kind="stable").tolist()
    return {
        "base": float(base),
        "raw_score": float(base + contributions.sum()),
        "contributions": {features[position]: float(contributions[position]) for position in order},
    }
