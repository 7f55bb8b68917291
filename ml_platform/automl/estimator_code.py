"""Plain code that fits a trial: the library's own estimator with every argument that decides its scores.

A test holds the code of each family to the scores of the family itself, to the last bit.
"""

from collections.abc import Callable, Collection, Mapping
from pprint import pformat
from textwrap import indent

from ml_platform.automl.documents import Member
from ml_platform.automl.plain.perceptron import answers, first_weights, learn_inputs, split_inputs
from ml_platform.automl.plain.perceptron_keras import fit_keras
from ml_platform.automl.plain.perceptron_torch import fit_torch
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.families.catboost import SUMMING_THREADS

NOTEBOOK_FAMILIES = (
    "logistic_regression",
    "ridge",
    "elastic_net",
    "random_forest",
    "extra_trees",
    "hist_gradient_boosting",
    "lightgbm",
    "xgboost",
    "catboost",
    "torch_mlp",
    "keras_mlp",
)
_PERCEPTRONS: dict[str, Callable[..., object]] = {"torch_mlp": fit_torch, "keras_mlp": fit_keras}
TREE_FAMILIES = frozenset({"random_forest", "extra_trees", "hist_gradient_boosting", "lightgbm", "xgboost", "catboost"})

_PREDICT = {
    "binary": "model.predict_proba({X})[:, 1].astype(np.float64)",
    "multiclass": "model.predict_proba({X}).astype(np.float64)",
    "regression": "model.predict({X}).astype(np.float64)",
}
_LINEAR = """
    numbers = [place for place, name in enumerate(COLUMNS) if name not in CATEGORIES]
    texts = [place for place, name in enumerate(COLUMNS) if name in CATEGORIES]
    steps = []
    if numbers:
        fill = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numeric", Pipeline([("impute", fill), ("scale", StandardScaler())]), numbers))
    if texts:
        codes = [np.array([-2, -1, *range(len(CATEGORIES[COLUMNS[place]]))], dtype=np.float64) for place in texts]
        one_hot = OneHotEncoder(categories=codes, handle_unknown="ignore", sparse_output=False)
        steps.append(("categorical", one_hot, texts))
    model = Pipeline([("columns", ColumnTransformer(steps)), ("model", {model})])
    with threadpool_limits(1, "blas"):  # more threads would add numbers in another order
"""
_LINEAR_IMPORTS = (
    "from sklearn.compose import ColumnTransformer",
    "from sklearn.impute import SimpleImputer",
    "from sklearn.pipeline import Pipeline",
    "from sklearn.preprocessing import OneHotEncoder, StandardScaler",
    "from threadpoolctl import threadpool_limits",
)


def estimator_code(member: Member, task: Task, seed: int, *, suffix: str = "") -> str:
    """Write the functions `fit<suffix>(X, y)` and `predict<suffix>(model, X)` of a trial.

    Parameters
    ----------
    member
        The trial.
    task
        What is predicted.
    seed
        Of everything random.
    suffix
        Of the functions' names.

    Raises
    ------
    ValueError
        For a family that has no code here.
    """
    write = _perceptron if member.family in _PERCEPTRONS else _code
    imports, body, matrix = write(member.family, member.params, task, seed)
    lines = [*sorted(imports), "", f"def fit{suffix}(X, y):", f'    """Fit {member.trial}."""', body.strip("\n"), ""]
    answer = "model(X)" if member.family in _PERCEPTRONS else _PREDICT[task].format(X=matrix)
    lines += [
        "",
        f"def predict{suffix}(model, X):",
        f'    """Score rows with {member.trial}."""',
        f"    return {answer}",
    ]
    return "\n".join(lines)


def _code(family: str, params: Mapping[str, Parameter], task: Task, seed: int) -> tuple[tuple[str, ...], str, str]:
    """Imports, body of `fit`, and what `predict` makes of the matrix."""
    regression = task == "regression"
    if family in {"logistic_regression", "ridge", "elastic_net"}:
        return _linear(family, params, seed)
    if family in {"random_forest", "extra_trees"}:
        name = {"random_forest": "RandomForest", "extra_trees": "ExtraTrees"}[family]
        name += "Regressor" if regression else "Classifier"
        body = f"    model = {_call(name, {'random_state': seed, **params, 'n_jobs': 1})}\n    return model.fit(X, y)"
        return (f"from sklearn.ensemble import {name}",), body, "X"
    if family == "hist_gradient_boosting":
        name = "HistGradientBoostingRegressor" if regression else "HistGradientBoostingClassifier"
        known = {"random_state": seed, "categorical_features": None, "early_stopping": False, **params}
        body = "    X = np.where(np.isnan(X).all(axis=0), 0.0, X)  # a column without any value cannot be binned\n"
        body += f"    model = {_call(name, known)}\n"
        body += '    with threadpool_limits(1, "openmp"):  # more threads would add gradients in another order\n'
        body += "        return model.fit(X, y)"
        imports = (f"from sklearn.ensemble import {name}", "from threadpoolctl import threadpool_limits")
        return imports, body, "X"
    if family == "lightgbm":
        name = "LGBMRegressor" if regression else "LGBMClassifier"
        known = {"subsample_freq": 1, "random_state": seed, "deterministic": True, "force_col_wise": True}
        body = f"    model = {_call(name, {**known, 'verbosity': -1, **params})}\n    return model.fit(X, y)"
        return (f"from lightgbm import {name}",), body, "X"
    if family == "xgboost":
        name = "XGBRegressor" if regression else "XGBClassifier"
        known = {"tree_method": "hist", "random_state": seed, **params}
        return (f"from xgboost import {name}",), f"    model = {_call(name, known)}\n    return model.fit(X, y)", "X"
    if family == "catboost":
        return _catboost(params, task, seed)
    raise ValueError(
        f"no notebook of family '{family}' can be written; there are those of {', '.join(NOTEBOOK_FAMILIES)}"
    )


def _linear(family: str, params: Mapping[str, Parameter], seed: int) -> tuple[tuple[str, ...], str, str]:
    if family == "logistic_regression":
        name, known = "LogisticRegression", {"max_iter": 200, "tol": 1e-3, "random_state": seed, **params}
    elif family == "ridge":
        name, known = "Ridge", dict(params)
    else:
        name, known = "ElasticNet", {"max_iter": 2000, "tol": 1e-3, "random_state": seed, **params}
    imports = (*_LINEAR_IMPORTS, f"from sklearn.linear_model import {name}")
    body = _LINEAR.replace("{model}", _call(name, known).replace("\n    ", "\n"))
    if family != "elastic_net":
        return imports, f"{body}        return model.fit(X, y)", "X"
    body = f"    mean, scale = y.mean(), y.std() or 1.0  # alpha is in units of the target's standard deviation{body}"
    body += "        model.fit(X, (y - mean) / scale)\n"
    body += '    model.named_steps["model"].coef_ = model.named_steps["model"].coef_ * scale\n'
    body += '    model.named_steps["model"].intercept_ = model.named_steps["model"].intercept_ * scale + mean\n'
    return imports, f"{body}    return model", "X"


def _catboost(params: Mapping[str, Parameter], task: Task, seed: int) -> tuple[tuple[str, ...], str, str]:
    name = "CatBoostRegressor" if task == "regression" else "CatBoostClassifier"
    known = {
        "random_seed": seed,
        "loss_function": {"binary": "Logloss", "multiclass": "MultiClass", "regression": "RMSE"}[task],
        "bootstrap_type": "MVS",
        "boosting_type": "Plain",
        "leaf_estimation_iterations": 10 if task == "binary" else 1,
        **({"thread_count": SUMMING_THREADS} if task == "binary" else {}),
        "allow_writing_files": False,
        "verbose": False,
        **params,
    }
    filled = "np.where(np.isnan(X), -1e30, X)"
    body = f"    X = {filled}  # missing numbers are the smallest\n    model = {_call(name, known)}\n"
    return (f"from catboost import {name}",), f"{body}    return model.fit(X, y)", filled


def _perceptron(
    family: str, params: Mapping[str, Parameter], task: Task, seed: int
) -> tuple[tuple[str, ...], str, str]:
    """A call of the function that `helper_functions` has for the family."""
    known = {"task": task, "seed": seed, "params": dict(params)}
    body = "    sizes = [len(CATEGORIES[name]) if name in CATEGORIES else None for name in COLUMNS]\n"
    call = _call(_PERCEPTRONS[family].__name__, known).replace("(\n", "(\n        X,\n        y,\n        sizes,\n", 1)
    return (), f"{body}    return {call}", "X"


def helper_functions(families: Collection[str]) -> list[Callable[..., object]]:
    """Plain functions that the code of some families calls, which have to stand before it."""
    fits = [_PERCEPTRONS[family] for family in sorted(_PERCEPTRONS) if family in families]
    return [learn_inputs, split_inputs, first_weights, answers, *fits] if fits else []


def _call(name: str, arguments: Mapping[str, object]) -> str:
    """Write a call with one argument a line."""
    lines = ",\n".join(f"{key}={pformat(value)}" for key, value in arguments.items())
    return f"{name}(\n{indent(lines, '        ')},\n    )"
