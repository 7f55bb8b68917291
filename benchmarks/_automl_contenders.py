"""A contender of `automl.py`: `python _automl_contenders.py flaml|hist_gradient_boosting <folder> <seconds>`.

Reads `before.parquet` (inputs and `label`, train rows before validation rows), `holdout.parquet` and `facts.json`, and
writes the scores of the holdout rows to `<name>.npy`. Imports nothing of the engine, so that another environment can
run it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def main() -> None:
    """Fit the contender and score the holdout."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    facts = json.loads((folder / "facts.json").read_text())
    before, holdout = pd.read_parquet(folder / "before.parquet"), pd.read_parquet(folder / "holdout.parquet")
    y = before.pop("label").to_numpy(dtype=float)
    for column in before.select_dtypes(exclude="number"):
        kinds = pd.CategoricalDtype(sorted(before[column].dropna().astype(str).unique()))
        before[column], holdout[column] = before[column].astype(kinds), holdout[column].astype(kinds)
    model = (flaml if name == "flaml" else hist_gradient_boosting)(before, y, facts, seconds)
    if facts["task"] == "regression":
        score = model.predict(holdout)
    else:
        score = model.predict_proba(holdout)
        score = score[:, 1] if facts["task"] == "binary" else score
    np.save(folder / f"{name}.npy", np.asarray(score, dtype=float))


def flaml(before: pd.DataFrame, y: np.ndarray, facts: dict[str, Any], seconds: float) -> Any:
    """FLAML with its defaults, on its own split of the rows before the holdout; by time where there is one."""
    from flaml import AutoML

    metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}[facts["task"]]
    task = "regression" if facts["task"] == "regression" else "classification"
    model = AutoML()
    split = {"eval_method": "holdout", "split_type": "time"} if facts["by_time"] else {}
    model.fit(before, y, task=task, metric=metric, time_budget=seconds, seed=0, verbose=0, **split)
    return model


def hist_gradient_boosting(before: pd.DataFrame, y: np.ndarray, facts: dict[str, Any], seconds: float) -> Any:
    """Random parameters until the time is over, judged on the validation rows; the best fitted on all rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import accuracy_score, roc_auc_score, root_mean_squared_error

    started, random, train = time.perf_counter(), np.random.default_rng(0), facts["train"]
    regression = facts["task"] == "regression"
    family = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    while time.perf_counter() - started < 0.9 * seconds:
        first = best[0] == -np.inf
        params: dict[str, Any] = {} if first else {
            "learning_rate": float(np.exp(random.uniform(np.log(0.02), np.log(0.3)))),
            "max_leaf_nodes": int(np.exp(random.uniform(np.log(8), np.log(128)))),
            "min_samples_leaf": int(np.exp(random.uniform(np.log(5), np.log(200)))),
            "l2_regularization": float(np.exp(random.uniform(np.log(1e-3), np.log(30)))),
            "max_features": float(random.uniform(0.3, 1.0)),
        }  # fmt: skip
        model = family(
            **params, max_iter=500, early_stopping=True, categorical_features="from_dtype", random_state=0
        ).fit(before[:train], y[:train], X_val=before[train:], y_val=y[train:])
        later, y_later = before[train:], y[train:]
        if regression:
            score = -root_mean_squared_error(y_later, model.predict(later))
        elif facts["task"] == "binary":
            score = roc_auc_score(y_later, model.predict_proba(later)[:, 1])
        else:
            score = accuracy_score(y_later, model.predict(later))
        if score > best[0]:
            best = (score, {**params, "max_iter": model.n_iter_})
    chosen = {**best[1], "early_stopping": False, "categorical_features": "from_dtype", "random_state": 0}
    return family(**chosen).fit(before, y)


if __name__ == "__main__":
    main()
