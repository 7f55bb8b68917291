"""Columns of intervals and sets say of many rows what an answer says of each."""

import msgspec
import numpy as np
import pytest
from msgspec import structs

from ml_platform.inference.frame_scorer import answers
from ml_platform.inference.interval_columns import interval_columns
from ml_platform.registry.manifest import Conformal, Manifest
from ml_platform.serving.models.intervals import Intervals
from ml_platform.serving.prediction.responses import Prediction
from ml_platform_tests.serving.releases import bundle

VALUES = Conformal(levels=(0.5, 0.9), lower=(-1.0, -3.0), upper=(2.0, 5.0), rows=500, first="", last="")
SETS = Conformal(levels=(0.5, 0.9), cutoffs=(0.6, 0.3), rows=500, first="", last="")
CLASSES = ("a", "b", "c")


def manifest(**changes: object) -> Manifest:
    return structs.replace(msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest), **changes)


@pytest.mark.parametrize("level", [0.5, 0.77, 0.9])
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_they_are_those_of_serving(task, level):
    random = np.random.default_rng(0)
    if task == "regression":
        known, conformal, scores = manifest(task=task, threshold=None), VALUES, random.normal(size=50)
    elif task == "binary":
        known, conformal, scores = manifest(), SETS, np.append(random.random(50), [0.0, 0.3, 0.5, 0.7, 1.0])
    else:
        known, conformal = manifest(task=task, classes=CLASSES, threshold=None), SETS
        scores = random.dirichlet([1, 1, 1], size=50)
    columns = interval_columns(known, conformal, level, scores)
    assert [one.name for one in columns] == (["lower", "upper"] if task == "regression" else ["prediction_set"])
    outcomes = answers(known, scores)[1]
    rows = [
        Prediction(prediction=outcome, probability=float(np.max(score)))
        if task != "multiclass"
        else Prediction(prediction=outcome, probabilities=dict(zip(CLASSES, score.tolist(), strict=True)))
        for outcome, score in zip(outcomes.to_list(), scores, strict=True)
    ]
    Intervals(known, conformal, adapted=False).add(rows, level)
    if task == "regression":
        intervals = [one.interval for one in rows if one.interval is not msgspec.UNSET]
        assert list(zip(*columns, strict=True)) == [(one.lower, one.upper) for one in intervals]
    else:
        assert columns[0].to_list() == [one.prediction_set for one in rows]


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_there_may_be_no_rows(task):
    known = manifest(task=task)
    columns = interval_columns(known, VALUES if task == "regression" else SETS, 0.9, np.empty(0))
    assert [len(one) for one in columns] == [0] * len(columns)
