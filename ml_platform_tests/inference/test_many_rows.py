"""Trees as bit vectors score as the graph does, to the last bit, or are not used."""

import logging
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from polars.testing import assert_frame_equal

from ml_platform.inference import many_rows, tree_kernel
from ml_platform.inference.explain import Tree, Trees
from ml_platform.inference.many_rows import many_rows_score
from ml_platform.inference.scorer import Scorer, session_of
from ml_platform.inference.tree_bits import WORD, TreeBits, read_trees
from ml_platform.inference.tree_kernel import sum_trees
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Golden, Target
from ml_platform.scoring.run import Wanted, score
from ml_platform.training.export.graph import Graph
from ml_platform.training.export.onnx_trees import add_trees, constant_tree, export_trees

FEATURES = 5
ENOUGH = 10**12  # rows for which a compiler is worth its start


def grown(
    random: np.random.Generator, leaves: int, *, target: int = 0, chain: bool = False, features: int = FEATURES
) -> Tree:
    """A tree of so many leaves, as a Booster grows it: any leaf is split next, or in a chain always the last one."""
    left, right, open_ = [~0], [~1], [(0, True), (0, False)]
    for leaf in range(2, leaves):
        node, is_left = open_.pop(len(open_) - 1 if chain else int(random.integers(len(open_))))
        children = left if is_left else right
        left.append(children[node])
        right.append(~leaf)
        children[node] = len(left) - 1
        open_ += [(len(left) - 1, True), (len(left) - 1, False)]
    nodes = leaves - 1
    return Tree(
        target=target,
        feature=random.integers(0, features, nodes).tolist(),
        split=random.choice([-1.0, 0.0, 0.1, 1 / 3, 2.0, 1e300, -1e300], nodes).tolist(),
        nan_left=random.integers(0, 2, nodes).astype(bool).tolist(),
        left=left,
        right=right,
        cover=[1.0] * nodes,
        leaf_value=random.normal(size=leaves).tolist(),
        leaf_cover=[1.0] * leaves,
    )


def operator(trees: list[Tree], targets: int = 1) -> tuple[onnx.NodeProto, Any]:
    """The operator of an ensemble, and what ONNX Runtime makes of a matrix by it."""
    graph = Graph()
    name = add_trees(graph, Trees(targets=targets, trees=trees), alone=False)
    node = next(one for one in graph.nodes if one.op_type == "TreeEnsemble")
    matrix = helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, FEATURES])
    scores = helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, targets])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(
        helper.make_graph([node], "trees", [matrix], [scores]), opset_imports=opsets, ir_version=10
    )
    session = session_of(model.SerializeToString())
    return node, lambda rows: session.run(None, {"X": rows})[0]


def rows_at(random: np.random.Generator, count: int = 300) -> np.ndarray:
    """Rows of values at splits, a unit in the last place beside them, missing, and infinite."""
    splits = np.array([-1.0, 0.0, 0.1, 1 / 3, 2.0, 1e300])
    values = [splits, np.nextafter(splits, np.inf), np.nextafter(splits, -np.inf), [np.nan, np.inf, -np.inf, -0.0]]
    return random.choice(np.concatenate(values), (count, FEATURES))


@pytest.mark.parametrize("leaves", [2, 3, 31, 32, 33, 64, 95])
def test_sums_are_those_of_onnx_runtime_to_the_last_bit(leaves):
    random = np.random.default_rng(leaves)
    node, run = operator([constant_tree(0.25), *(grown(random, leaves) for _ in range(40))])
    bits = read_trees(node, FEATURES)
    assert bits is not None
    for count in (0, 1, 63, 64, 65, 300):
        rows = rows_at(random, count)
        np.testing.assert_array_equal(sum_trees(bits, rows), run(rows))
    assert (len(bits.leaves) > 41) == (leaves > WORD), "trees of more leaves than a word has bits are cut"


def test_each_class_has_its_own_sum_and_a_matrix_in_any_order_will_do():
    random = np.random.default_rng(1)
    node, run = operator([grown(random, 20, target=tree % 3) for tree in range(30)], targets=3)
    bits, rows = read_trees(node, FEATURES), rows_at(random)
    assert bits is not None
    np.testing.assert_array_equal(sum_trees(bits, np.asfortranarray(rows)), run(rows))


def test_what_bit_vectors_do_not_help_or_cannot_tell_stays_with_the_graph():
    random = np.random.default_rng(2)
    assert read_trees(operator([grown(random, 400)])[0], FEATURES) is None, "walks pass few of so many nodes"
    assert read_trees(operator([grown(random, 60, chain=True)])[0], FEATURES) is None, "too deep to be cut"
    node, _ = operator([grown(random, 8)])
    for attribute in node.attribute:
        if attribute.name == "nodes_modes":
            attribute.t.raw_data = bytes([1] * 7)  # by < in place of <=
    assert read_trees(node, FEATURES) is None


@pytest.fixture(scope="module")
def forest(trained_shops) -> tuple[Scorer, bytes]:
    """Trees in place of what the small world's model learned."""
    shops, trained = trained_shops
    manifest = Scorer.load(shops.store.bundle_path(trained.digest)).manifest
    random, width = np.random.default_rng(3), len(manifest.features)
    trees = [grown(random, 40, features=width) for _ in range(50)]
    graph = export_trees(Trees(targets=1, trees=trees), "binary", width)
    return Scorer(structs.replace(manifest, model_digest=model_digest(graph, manifest)), graph), graph


def test_a_bundle_scores_alike_both_ways_and_few_rows_start_no_compiler(forest):
    scorer, graph = forest
    assert many_rows_score(scorer, graph, rows=1000) == scorer.score
    fast = many_rows_score(scorer, graph, rows=ENOUGH)
    assert fast != scorer.score
    rows = np.random.default_rng(0).normal(size=(500, len(scorer.manifest.features)))
    rows[::7, 1], rows[::5, 2] = np.nan, np.inf
    np.testing.assert_array_equal(fast(rows), scorer.score(rows))


def test_a_linear_model_and_trees_of_single_precision_stay_with_the_graph(trained_shops, forest):
    shops, trained = trained_shops
    folder = shops.store.bundle_path(trained.digest)
    scorer = Scorer.load(folder)
    assert many_rows_score(scorer, (folder / "model.onnx").read_bytes(), rows=ENOUGH) == scorer.score
    single = onnx.load_from_string(forest[1])
    node = next(one for one in single.graph.node if one.op_type == "TreeEnsemble")
    for attribute in node.attribute:
        if attribute.name == "nodes_splits":
            values = np.clip(numpy_helper.to_array(attribute.t), -1e30, 1e30).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(values, "splits"))
    assert read_trees(node, len(forest[0].manifest.features)) is None


def test_trees_that_were_read_wrongly_are_found_out_and_not_used(forest, monkeypatch, caplog):
    scorer, graph = forest

    def misread(node: onnx.NodeProto, features: int) -> TreeBits | None:
        bits = read_trees(node, features)
        return bits and replace(bits, leaves=bits.leaves * (1 + 1e-9))

    monkeypatch.setattr(many_rows, "read_trees", misread)
    with caplog.at_level(logging.WARNING):
        assert many_rows_score(scorer, graph, rows=ENOUGH) == scorer.score
    assert "its graph, which is used instead" in caplog.text


def test_a_table_is_scored_alike_both_ways(forest, shops, monkeypatch):
    scorer, graph = forest
    row = dict.fromkeys((one.name for one in scorer.manifest.inputs), None)
    golden = Golden(
        inputs=(row,), looked_up=({},),
        matrix=(tuple(scorer.matrix_row({**row, **scorer.derive(row)})),),
        scores=(scorer.score_row({**row, **scorer.derive(row)}),),
    )  # fmt: skip
    files = {"manifest.json": scorer.manifest, "golden.json": golden}
    digest = shops.store.put_bundle(
        {"model.onnx": graph, **{name: msgspec.json.encode(one) for name, one in files.items()}}
    )
    shops.store.publish("order_late", [Target(version=1, digest=digest)], reason="test", by="ann")
    frames, calls = [], list[int]()

    def counted(bits: TreeBits, rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        return sum_trees(bits, rows)

    monkeypatch.setattr(tree_kernel, "sum_trees", counted)
    for worth, scored in ((3e8, 0), (0, 6000)):
        monkeypatch.setattr(many_rows, "_WORTH", worth)
        wanted = Wanted(model="order_late", source="raw/orders", target=f"scores/orders_{worth:.0f}")
        score(shops.settings, wanted, lambda: shops.views)
        frames.append(shops.lake.read(wanted.target).drop("scored_at", "run").sort("source_row").collect())
        assert sum(calls[1:]) == scored, "after the rows by which the two ways were compared"
    assert frames[0].height == 6000
    assert_frame_equal(*frames)
