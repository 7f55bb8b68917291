"""What the leaderboard says of trials that were fitted: the order, the ensemble, what they are measured by."""

import time

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, log_loss

from ml_platform.automl.documents import Entry, Leaderboard
from ml_platform.automl.frame import read_plan_rows
from ml_platform.automl.trials import fit_trials, make_entries, trials_spec
from ml_platform.lake.storage.tables import Lake
from ml_platform.training.documents import Trial
from ml_platform_tests.automl.test_plan import plan


def species(rows: int = 900) -> pl.DataFrame:
    """Three species, of which two overlap."""
    chance = np.random.default_rng(5)
    number = chance.integers(0, 3, rows)
    size = chance.normal(np.array([0.0, 1.0, 4.0])[number], 1.0)
    return pl.DataFrame(
        {"size": size, "weight": chance.normal(size, 0.5), "species": np.array(["a", "b", "c"])[number]}
    )


def trial(number: int, family: str, **params: float) -> Trial:
    return Trial(
        number=number, family=family, params=params, score=0.0, metrics={"log_loss": 0.0}, threshold=None, seconds=0.1
    )


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_what_counts_rows_is_ranked_and_averaged_by_log_loss(lake: Lake, metric: str) -> None:
    made = plan(lake, species(), target="species", metric=metric).plan
    rows = read_plan_rows(made)
    spec = trials_spec(made, ["logistic_regression", "random_forest"], minutes=1)
    assert spec.metric == "log_loss"
    tried = [
        trial(0, "random_forest", n_estimators=5, min_samples_leaf=1),
        trial(1, "logistic_regression", C=0.5),
        trial(2, "random_forest", n_estimators=30, min_samples_leaf=20),
    ]
    fitted = fit_trials(made, rows, spec, tried, until=time.perf_counter() + 3600)
    entries, note, _ = make_entries(made, rows, fitted)
    y = rows.y[rows.parts[1]]
    losses = {one.name: log_loss(y, one.validation) for one in fitted}
    hits = {one.name: accuracy_score(y, one.validation.argmax(axis=1)) for one in fitted}

    single = [
        entry for entry in Leaderboard.ranked(entries, higher_is_better=metric == "accuracy") if entry.trial in losses
    ]
    assert [entry.trial for entry in single] == sorted(losses, key=lambda name: losses[name])

    def figures(entry: Entry) -> tuple[float, float | None]:
        name = entry.trial
        return (hits[name], losses[name]) if metric == "accuracy" else (losses[name], None)

    assert [(entry.validation, entry.selection) for entry in single] == [figures(entry) for entry in single]
    [ensemble] = [entry for entry in entries if entry.is_ensemble]
    chosen = ensemble.selection if metric == "accuracy" else ensemble.validation
    assert chosen is not None
    assert chosen < min(losses.values())
    assert ("ranked by log_loss" in note) == (metric == "accuracy")
