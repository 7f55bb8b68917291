"""The same rows and seed give the same graph on any number of processors, also of matrices that threads share."""

import os

import numpy as np
import pytest

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN
from ml_platform.spec.types import Task
from ml_platform.training.families.boosting import threads_for
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

ROWS, COLUMNS = 60_000, 10  # more numbers than one thread is given
THREADED = ("lightgbm", "catboost", "xgboost", "random_forest", "extra_trees")


def world(task: Task) -> tuple[np.ndarray, np.ndarray, list[Feature]]:
    random = np.random.default_rng(0)
    X = random.normal(size=(ROWS, COLUMNS))
    X[random.random(X.shape) < 0.05] = np.nan
    z = np.nan_to_num(X) @ random.normal(size=COLUMNS) * 0.3 + np.sin(np.arange(ROWS))
    y = z if task == "regression" else (z > 0).astype(float)
    return X, y, [Feature(name=f"f{number}", kind="numeric", source="input") for number in range(COLUMNS)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("name", THREADED)
def test_processors_change_nothing(name: str, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("catboost", "xgboost"):
        pytest.importorskip(name)
    family = get_family(name)
    X, y, features = world(task)
    params = family.default_params(task) | ({"n_estimators": 20} if "forest" in name or "extra" in name else {})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    graphs = []
    for processors in (1, 4, 8):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        assert threads_for(X) == processors
        graphs.append(family.export(train_estimator(family, task, features, params, 3, X, y), task, features))
    assert graphs[0] == graphs[1] == graphs[2]


def test_every_family_that_takes_threads_is_tried() -> None:
    """Those that are not fit on one thread whatever the machine has."""
    one_thread = {"logistic_regression", "ridge", "elastic_net", "hist_gradient_boosting", "torch_mlp", "keras_mlp"}
    assert {*THREADED} | one_thread == set(BUILT_IN)
