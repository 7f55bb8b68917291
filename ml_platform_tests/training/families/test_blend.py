"""A blend trains its members, averages them, and is one graph that answers as they do."""

from typing import ClassVar

import numpy as np
import onnxruntime
import pytest

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import ALL, FamilyInfo
from ml_platform.spec.types import Task
from ml_platform.training import BlendFamily, BlendMember
from ml_platform.training.export.parity import check_parity
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

FEATURES = tuple(Feature(name=name, kind="numeric", source="input") for name in ("a", "b"))
X = np.random.default_rng(0).normal(size=(300, 2))
Y = np.exp(X[:, 0] + 1) + np.abs(X[:, 1])


class Trees(BlendFamily):
    """Two families for classes."""

    info = FamilyInfo("trees", ALL, tolerance=1e-10)
    members: ClassVar[tuple[BlendMember, ...]] = (
        BlendMember("lightgbm", {"n_estimators": 15, "min_child_samples": 5}, 0.75),
        BlendMember("hist_gradient_boosting", {"max_iter": 15}, 0.25),
    )


class Logarithms(BlendFamily):
    """A linear model of log(1 + value) beside trees of it."""

    info = FamilyInfo("logarithms", ("regression",), tolerance=1e-9)
    log_target = True
    members: ClassVar[tuple[BlendMember, ...]] = (
        BlendMember("ridge", {"alpha": 1.0}, 0.5),
        BlendMember("lightgbm", {"n_estimators": 15, "min_child_samples": 5}, 0.5),
    )


class Alone(BlendFamily):
    """One trial."""

    info = FamilyInfo("alone", ALL)
    members: ClassVar[tuple[BlendMember, ...]] = (BlendMember("lightgbm", {"n_estimators": 5}),)


@pytest.mark.parametrize(
    ("task", "y"),
    [("binary", (Y > 3).astype(float)), ("multiclass", np.digitize(Y, [2.0, 4.0]).astype(float)), ("regression", Y)],
)
def test_the_graph_averages_the_members(task: Task, y: np.ndarray) -> None:
    family = Trees()
    blended = train_estimator(family, task, FEATURES, {}, 0, X, y)
    parts = [
        get_family(one.family).predict(
            train_estimator(get_family(one.family), task, FEATURES, one.params, 0, X, y), task, X
        )
        for one in family.members
    ]
    scores = family.predict(blended, task, X)
    assert np.allclose(scores, 0.75 * parts[0] + 0.25 * parts[1])
    graph = family.export(blended, task, FEATURES)
    check_parity(lambda rows: family.predict(blended, task, rows), graph, task, FEATURES, X, tolerance=1e-10)
    assert len(onnxruntime.InferenceSession(graph).get_inputs()) == 1


def test_values_of_logarithms_are_limited_far_from_the_training_rows() -> None:
    family = Logarithms()
    blended = train_estimator(family, "regression", FEATURES, {}, 0, X, Y)
    far = family.predict(blended, "regression", np.array([[1e6, 0.0], [-1e6, 0.0]]))
    assert far.tolist() == [2 * Y.max(), 0.0]
    near = family.predict(blended, "regression", X)
    assert np.sqrt(np.mean((np.log1p(near) - np.log1p(Y)) ** 2)) < 0.25
    graph = family.export(blended, "regression", FEATURES)
    check_parity(
        lambda rows: family.predict(blended, "regression", rows), graph, "regression", FEATURES, X, tolerance=1e-9
    )


def test_labels_below_zero_have_no_logarithm() -> None:
    with pytest.raises(ValueError, match="wanted labels from 0 on"):
        train_estimator(Logarithms(), "regression", FEATURES, {}, 0, X, Y - 10)


def test_a_single_member_is_exported_as_it_is_with_its_explanation() -> None:
    family, y = Alone(), (Y > 3).astype(float)
    blended = train_estimator(family, "binary", FEATURES, {}, 0, X, y)
    alone = get_family("lightgbm")
    wanted = train_estimator(alone, "binary", FEATURES, {"n_estimators": 5}, 0, X, y)
    assert family.export(blended, "binary", FEATURES) == alone.export(wanted, "binary", FEATURES)
