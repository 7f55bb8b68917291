"""Tree ensembles as bit vectors, by which many rows go through all trees at once without a branch to mispredict.

A tree of up to 32 leaves is one word per row in which each leaf has a bit. A node whose condition is false rules out
the leaves of its true side: it clears their bits. When all nodes of all trees were looked at, feature by feature and
in any order, the lowest bit that is left is the row's leaf. See C. Lucchese et al., QuickScorer (SIGIR 2015), and for
blocks of rows V-QuickScorer (SIGIR 2016).

The leaf is that which a walk from the root finds, and leaves are added in the order of the trees: sums are equal to
the last bit to those of ONNX Runtime.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

WORD = 32  # leaves of a tree, or of a piece of one
MOST_NODES = 100  # of a tree, on average: each costs a little, where a walk only passes some
_EVERY = 2**32 - 1
DE_BRUIJN = 0x077CB531  # times a power of two, its upper five bits differ for each


@dataclass(frozen=True)
class TreeBits:
    """An ensemble whose nodes are sorted by the feature that they look at.

    Attributes
    ----------
    starts
        First node of each feature that is true for null, then of the same that is false for it, and the end
        (2 × features + 1, int64).
    splits
        Of each node: it is true for values up to this (float64).
    trees
        Piece of a tree that each node is of (int32).
    masks
        Bits that stay when it is false (uint32).
    leaves
        Values (pieces × 32, float64), in the order of `DE_BRUIJN`.
    targets
        Score that each piece adds to (int64).
    width
        Number of scores.
    """

    starts: "NDArray[np.int64]"
    splits: "NDArray[np.float64]"
    trees: "NDArray[np.int32]"
    masks: "NDArray[np.uint32]"
    leaves: "NDArray[np.float64]"
    targets: "NDArray[np.int64]"
    width: int


class _Nodes(NamedTuple):
    """The operator's attributes, with children as one number: a node, or `~leaf`."""

    feature: list[int]
    split: list[float]
    null_is_true: list[int]
    true: list[int]
    false: list[int]
    value: list[float]
    target: list[int]
    roots: list[int]


def read_trees(node: "onnx.NodeProto", features: int) -> TreeBits | None:
    """Read an operator `TreeEnsemble` in double precision, over a matrix of so many features.

    None is returned for one that sums otherwise, compares otherwise than by `<=`, has leaves of several scores in a
    tree, or trees so large that bit vectors do not help.
    """
    from onnx import TensorProto, helper, numpy_helper

    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    splits = found["nodes_splits"]
    is_plain = found.get("aggregate_function", 1) == 1 and found.get("post_transform", 0) == 0
    if not is_plain or splits.data_type != TensorProto.DOUBLE or numpy_helper.to_array(found["nodes_modes"]).any():
        return None
    count = len(found["nodes_featureids"])
    if count > MOST_NODES * len(found["tree_roots"]):
        return None
    sides = {
        side: [~child if is_leaf else child for child, is_leaf in zip(found[ids], found[leaves], strict=True)]
        for side, ids, leaves in (
            ("true", "nodes_truenodeids", "nodes_trueleafs"),
            ("false", "nodes_falsenodeids", "nodes_falseleafs"),
        )
    }
    nodes = _Nodes(
        feature=found["nodes_featureids"],
        split=numpy_helper.to_array(splits).tolist(),
        null_is_true=found.get("nodes_missing_value_tracks_true") or [0] * count,
        **sides,
        value=numpy_helper.to_array(found["leaf_weights"]).tolist(),
        target=found["leaf_targetids"],
        roots=found["tree_roots"],
    )
    pieces = list[_Piece]()
    for root in nodes.roots:
        cut = _cut(nodes, root)
        if cut is None:
            return None
        pieces += cut
    return _table(nodes, pieces, features, found["n_targets"])


class _Piece(NamedTuple):
    """A part of a tree: what hangs below its top, and the way there from the root.

    What is off that way, or of another piece, is a leaf of 0.
    """

    root: int
    path: dict[int, bool]  # node → whether the way takes its true side
    others: frozenset[int]  # tops of other pieces
    target: int

    def sides(self, nodes: _Nodes, place: int) -> tuple[int | None, int | None]:
        """True and false child of a node; None for a leaf of 0."""
        true: int | None = nodes.true[place]
        false: int | None = nodes.false[place]
        if place in self.path:
            return (true, None) if self.path[place] else (None, false)
        return (None if true in self.others else true), (None if false in self.others else false)


def _cut(nodes: _Nodes, root: int) -> list[_Piece] | None:
    """Cut a tree into pieces of up to 32 leaves; None when it is too deep for that, or adds to several scores."""
    order, paths, targets = list[int](), {root: dict[int, bool]()}, set[int]()
    stack = [root]
    while stack:
        place = stack.pop()
        order.append(place)
        for child, is_true in ((nodes.true[place], True), (nodes.false[place], False)):
            if child < 0:
                targets.add(nodes.target[~child])
            else:
                paths[child] = {**paths[place], place: is_true}
                stack.append(child)
        if len(paths[place]) > WORD - 2:
            return None
    if len(targets) > 1:
        return None
    leaves: dict[int, int] = {}  # below each node, where a cut part counts as one
    tops: set[int] = set()
    for place in reversed(order):
        children = sorted((nodes.true[place], nodes.false[place]), key=lambda child: -leaves.get(child, 1))
        counts = [leaves.get(child, 1) for child in children]
        for number, child in enumerate(children):
            if child >= 0 and sum(counts) + len(paths[place]) > WORD:
                tops.add(child)
                counts[number] = 1
        leaves[place] = sum(counts)
    return [_Piece(root, paths[top], frozenset(tops - {top}), min(targets)) for top in (*sorted(tops), root)]


def _walk(nodes: _Nodes, piece: _Piece) -> Iterator[float | tuple[int, int, int]]:
    """Values of a piece's leaves from left to right; and each node, with the positions of its true side's leaves."""
    position = 0
    # Nodes, each with its first leaf and whether its true side is done; the next one last.
    stack: list[tuple[int | None, int, bool]] = [(piece.root, 0, False)]
    while stack:
        place, start, is_done = stack.pop()
        if place is None or place < 0:
            yield 0.0 if place is None else nodes.value[~place]
            position += 1
            continue
        true, false = piece.sides(nodes, place)
        if is_done:
            yield place, start, position
            stack.append((false, position, False))
        else:
            stack += [(place, position, True), (true, position, False)]


def _table(nodes: _Nodes, pieces: list[_Piece], features: int, width: int) -> TreeBits:
    rows: list[tuple[int, float, int, int]] = []
    leaves = np.zeros((len(pieces), WORD))
    for number, piece in enumerate(pieces):
        position = 0
        for one in _walk(nodes, piece):
            if isinstance(one, float):
                leaves[number, ((DE_BRUIJN << position) % 2**32) >> 27] = one
                position += 1
            else:
                place, start, end = one
                group = 2 * nodes.feature[place] + 1 - nodes.null_is_true[place]
                rows.append((group, nodes.split[place], number, _EVERY & ~((1 << end) - (1 << start))))
    rows.sort()
    groups, splits, trees, masks = zip(*rows, strict=True)
    return TreeBits(
        starts=np.searchsorted(groups, np.arange(2 * features + 1)).astype(np.int64),
        splits=np.array(splits, dtype=np.float64),
        trees=np.array(trees, dtype=np.int32),
        masks=np.array(masks, dtype=np.uint32),
        leaves=leaves,
        targets=np.array([piece.target for piece in pieces], dtype=np.int64),
        width=width,
    )
