"""Families of estimators: each a scikit-learn pipeline over the encoded matrix, and the parameters worth trying."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.spec.model import Family, Task
from ml_platform.training.documents import Parameter

if TYPE_CHECKING:
    import optuna
    from sklearn.pipeline import Pipeline

MAX_THREADS = 8  # more gain little; in its deterministic mode LightGBM grows the same trees on any number
_ONE_THREAD_CELLS = 500_000  # smaller matrices are faster without a second thread to wait for
MAX_TREES = 400
EARLY_STOPPING_ROUNDS = 25


def default_params(family: Family) -> dict[str, Parameter]:
    """Sensible parameters: the first trial of every search."""
    if family == "lightgbm":
        return {
            "learning_rate": 0.1,
            "num_leaves": 31,
            "min_child_samples": 100,
            "colsample_bytree": 0.8,
            "subsample": 0.8,
            "reg_lambda": 1.0,
        }
    return {"C": 0.1} if family == "logistic_regression" else {"alpha": 10.0}


def suggest(family: Family, trial: "optuna.Trial") -> dict[str, Parameter]:
    """Draw parameters of a family from an Optuna trial; the names are those of `default_params`."""
    if family == "lightgbm":
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 15, 95, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 20, 400, log=True),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 0.01, 30.0, log=True),
        }
    if family == "logistic_regression":
        return {"C": trial.suggest_float("C", 1e-3, 10.0, log=True)}
    return {"alpha": trial.suggest_float("alpha", 1e-1, 1e3, log=True)}


def build_estimator(
    family: Family, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int
) -> "Pipeline":
    """Build an unfitted scikit-learn pipeline over the float64 matrix of `FeatureEncoder`.

    Parameters
    ----------
    family
        Which estimator. Trees take the matrix as it is; linear models impute and scale numbers and one-hot codes.
    task
        Kind of model.
    features
        Columns of the matrix, in order.
    params
        As `suggest` gives them; for LightGBM also `n_estimators` (else `MAX_TREES`, for early stopping).
    seed
        Of everything random in the estimator.

    Raises
    ------
    ValueError
        When the family cannot do the task.
    """
    if (family == "ridge") != (task == "regression") and family != "lightgbm":
        raise ValueError(f"family '{family}' cannot do task '{task}'; name another one under `families` in defs.yaml")
    from sklearn.pipeline import Pipeline

    if family == "lightgbm":
        return Pipeline([("model", _lightgbm(task, params, seed))])
    return Pipeline([("columns", _linear_columns(features)), ("model", _linear(family, params, seed))])


def fit_estimator(
    estimator: "Pipeline", X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None = None
) -> "Pipeline":
    """Fit a pipeline; boosting stops early on `validation` when that is given.

    Rows of `validation` with a class that `y` does not have cannot say when to stop, and are left out of that.
    """
    model = estimator.named_steps["model"]
    if not _is_boosting(model):
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):  # more threads would add numbers in another order
            return estimator.fit(X, y)
    model.set_params(n_jobs=min(os.cpu_count() or 1, MAX_THREADS) if X.size > _ONE_THREAD_CELLS else 1)
    if validation is not None and hasattr(model, "predict_proba"):
        known = np.isin(validation[1], y)
        validation = (validation[0][known], validation[1][known]) if known.any() else None
    if validation is None:
        return estimator.fit(X, y)
    from lightgbm import early_stopping

    return estimator.fit(
        X,
        y,
        model__eval_X=validation[0],
        model__eval_y=validation[1],
        model__callbacks=[early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
    )


def fitted_params(estimator: "Pipeline", params: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Parameters that fit the same model without early stopping: `params` and the number of trees kept."""
    model = estimator.named_steps["model"]
    if not _is_boosting(model):
        return dict(params)
    return {**params, "n_estimators": int(model.best_iteration_ or model.n_estimators_)}


def predict(estimator: "Pipeline", task: Task, X: np.ndarray) -> np.ndarray:
    """Scores: probability of the positive class (rows,), of every class (rows × classes), or the value (rows,)."""
    if task == "regression":
        return np.asarray(estimator.predict(X), dtype=np.float64)
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    return probabilities[:, 1] if task == "binary" else probabilities


def importance(estimator: "Pipeline", features: Sequence[Feature], X: np.ndarray) -> dict[str, float]:
    """Weight of each feature in the model (not normalised).

    For LightGBM the total gain of its splits; for linear models the standard deviation, over the rows of `X`, of what
    the feature contributes to the score (the mean over classes).
    """
    model = estimator.named_steps["model"]
    names = [feature.name for feature in features]
    if _is_boosting(model):
        return dict(zip(names, model.booster_.feature_importance("gain").tolist(), strict=True))
    columns = np.asarray(estimator.named_steps["columns"].transform(X))
    coefficients = np.atleast_2d(model.coef_)
    numeric = [i for i, feature in enumerate(features) if feature.categories is None]
    categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
    weights, start = dict.fromkeys(names, 0.0), 0
    for i in numeric + categorical:  # the order in which the column transformer puts them
        width = 1 if features[i].categories is None else len(_codes(features[i]))
        part = slice(start, start + width)
        weights[names[i]] = float((columns[:, part] @ coefficients[:, part].T).std(axis=0).mean())
        start += width
    return weights


def _is_boosting(model: Any) -> bool:
    """Whether this is one of LightGBM's estimators, found without importing the library."""
    return type(model).__module__.startswith("lightgbm.")


def _lightgbm(task: Task, params: Mapping[str, Parameter], seed: int) -> Any:
    from lightgbm import LGBMClassifier, LGBMRegressor

    chosen: dict[str, Any] = {
        "n_estimators": MAX_TREES,
        "subsample_freq": 1,
        "random_state": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        **params,
    }
    return LGBMRegressor(**chosen) if task == "regression" else LGBMClassifier(**chosen)


def _linear(family: Family, params: Mapping[str, Parameter], seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    chosen: dict[str, Any] = dict(params)
    if family == "ridge":
        return Ridge(**chosen)
    return LogisticRegression(max_iter=200, tol=1e-3, random_state=seed, **chosen)


def _linear_columns(features: Sequence[Feature]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [i for i, feature in enumerate(features) if feature.categories is None]
    categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
    steps: list[tuple[str, Any, list[int]]] = []
    if numeric:
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numeric", Pipeline([("impute", imputer), ("scale", StandardScaler())]), numeric))
    if categorical:
        codes = [_codes(features[i]) for i in categorical]
        one_hot = OneHotEncoder(categories=codes, handle_unknown="ignore", sparse_output=False)
        steps.append(("categorical", one_hot, categorical))
    return ColumnTransformer(steps)


def _codes(feature: Feature) -> np.ndarray:
    return np.array([MISSING_CODE, UNSEEN_CODE, *range(len(feature.categories or ()))], dtype=np.float64)
