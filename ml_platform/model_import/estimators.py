"""Estimators of scikit-learn, and of libraries with its interface → raw scores in a graph, in double."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ml_platform.inference.explain import Linear, Trees
from ml_platform.model_import import boosters
from ml_platform.model_import.columns_to_numbers import Numbers, Preprocessing, Selected, add_function
from ml_platform.model_import.foreign import Raw
from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.category_sets import CategorySets
from ml_platform.training.export.onnx_trees import constant_tree, halved
from ml_platform.training.families import catboost, lightgbm, sklearn_boosting, sklearn_trees, xgboost

CHANGED = "columns are changed before the estimator sees them"
_LINEAR = [
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LinearSVR",
    "OrthogonalMatchingPursuit",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
]
_LOGISTIC = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "LinearDiscriminantAnalysis")
_GENERALISED = ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_TREES = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")


def add_model(into: Preprocessing, model: Any, data: Numbers | Selected, task: Task) -> Raw:  # noqa: PLR0911
    """Add a fitted estimator or Pipeline (raises ValueError for one that has no graph)."""
    kind = type(model).__name__
    if kind == "Pipeline":
        for _, step in model.steps[:-1]:
            data = into.apply(step, data)
        return add_model(into, model.steps[-1][1], data, task)
    if kind == "TransformedTargetRegressor":
        return _transformed_target(into, model, data, task)
    if kind in ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"):
        return add_model(into, model.best_estimator_, data, task)
    if kind in ("VotingClassifier", "VotingRegressor"):
        return _voting(into, model, data, task)
    if kind == "CalibratedClassifierCV":
        return _calibrated(into, model, data, task)
    if kind.startswith(("XGB", "LGBM", "CatBoost")):
        return _boosted(into, model, data, task)
    numbers = into.numbers(data)
    if (adder := _ADDERS.get(kind)) is None:
        raise ValueError(
            f"the estimator {kind} has no exact graph here. Those that have: {', '.join(sorted(_ADDERS))}, XGBoost, "
            "LightGBM "
            "and CatBoost, also in a Pipeline, a search, TransformedTargetRegressor or Voting. Or convert the whole "
            "model "
            "to ONNX with a converter of your choice, and import that file"
        )
    return adder(into, model, numbers, task)


def _transformed_target(into: Preprocessing, model: Any, data: Numbers | Selected, task: Task) -> Raw:
    raw = add_model(into, model.regressor_, data, task)
    reason = "its answer is transformed back from another scale"
    transformer = model.transformer_
    if type(transformer).__name__ == "FunctionTransformer":
        return Raw(add_function(into, transformer.inverse_func, raw.name), unexplained=reason)
    if type(transformer).__name__ == "StandardScaler":
        scaled = into.node("Mul", [raw.name, into.constant(float(transformer.scale_[0]))])
        return Raw(into.node("Add", [scaled, into.constant(float(transformer.mean_[0]))]), unexplained=reason)
    raise ValueError(
        f"the target's transformer {type(transformer).__name__} has no graph; a function or StandardScaler has"
    )


def _voting(into: Preprocessing, model: Any, data: Numbers | Selected, task: Task) -> Raw:
    if getattr(model, "voting", "soft") != "soft":
        raise ValueError("VotingClassifier with voting='hard' gives no probabilities; fit it with voting='soft'")
    weights = np.asarray(model._weights_not_none or np.ones(len(model.estimators_)), dtype=np.float64)
    parts = []
    for one, weight in zip(model.estimators_, weights / weights.sum(), strict=True):
        score = as_scores(into, add_model(into, one, data, task), task)
        parts.append(into.node("Mul", [score, into.constant(float(weight))]))
    return Raw(into.node("Sum", parts), task != "regression", unexplained="it averages several models")


def _calibrated(into: Preprocessing, model: Any, data: Numbers | Selected, task: Task) -> Raw:
    """Averages models whose answers are calibrated by a sigmoid, of two classes."""
    if model.method != "sigmoid" or task != "binary":
        raise ValueError(
            f"CalibratedClassifierCV with method='{model.method}' for {task} has no graph; a sigmoid for binary has"
        )
    parts = []
    for one in model.calibrated_classifiers_:
        raw = add_model(into, one.estimator, data, task)
        decides = hasattr(one.estimator, "decision_function") and not raw.probabilities
        answer = raw.name if decides else as_scores(into, raw, task)
        [sigmoid] = one.calibrators
        scaled = into.node("Mul", [answer, into.constant(-float(sigmoid.a_))])
        parts.append(into.node("Sigmoid", [into.node("Sub", [scaled, into.constant(float(sigmoid.b_))])]))
    total = into.node("Sum", parts)
    mean = into.node("Div", [total, into.constant(float(len(parts)))])
    return Raw(mean, probabilities=True, unexplained="it averages calibrated models")


def as_scores(into: Preprocessing, raw: Raw, task: Task) -> str:
    """Name of the scores that raw ones become."""
    if task == "regression" or raw.probabilities:
        return raw.name
    return into.node("Sigmoid", [raw.name]) if task == "binary" else into.node("Softmax", [raw.name], axis=1)


def _boosted(into: Preprocessing, model: Any, data: Numbers | Selected, task: Task) -> Raw:
    kind = type(model).__name__
    if isinstance(data, Selected) and data.positions == tuple(range(len(into.features))):
        source, features = "X", tuple(into.features)
    else:
        numbers = into.numbers(data)
        source, features = (
            numbers.name,
            tuple(Feature(name="", kind="numeric", source="") for _ in range(numbers.width)),
        )
    width = len(features)
    if kind.startswith("CatBoost"):
        boosters.catboost_model(model)  # refuses what has no graph
        trees, sets = catboost.trees_of(model), CategorySets(width, {})
    elif kind.startswith("LGBM"):
        sets = CategorySets(width, boosters.coded(features))
        trees = lightgbm.trees_of(model.booster_, task, sets)
    else:
        import json

        sets = CategorySets(width, boosters.coded(features), null_is_nan=True)
        booster = model.get_booster()[: xgboost.rounds(model)]
        trees = xgboost.trees_of(json.loads(booster.save_raw("json")), task, sets)
    return boosters.tree_scores(into.graph, trees, sets, task, source=source)


def _explained(numbers: Numbers, raw: str, explanation: Trees | Linear, *, probabilities: bool = False) -> Raw:
    if numbers.name == "X":
        return Raw(raw, probabilities, explanation)
    return Raw(raw, probabilities, unexplained=CHANGED)


def _tree_scores(into: Preprocessing, trees: Trees, numbers: Numbers, task: Task) -> Raw:
    return boosters.tree_scores(into.graph, trees, CategorySets(numbers.width, {}), task, source=numbers.name)


def _forest(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    _one_target(model)
    return _tree_scores(into, sklearn_trees.trees_of(model.estimators_, task), numbers, task)


def _tree(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    _one_target(model)
    return _tree_scores(into, sklearn_trees.trees_of([model], task), numbers, task)


def _hist(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    if model._loss.link.__class__.__name__ not in ("IdentityLink", "LogitLink", "MultinomialLogit", "HalfLogitLink"):
        raise ValueError(
            f"HistGradientBoosting with loss='{model.loss}' has no exact graph; wanted squared_error or log_loss"
        )
    if getattr(model, "_preprocessor", None) is not None:
        raise ValueError(
            "HistGradientBoosting with categorical features has no exact graph: encode categories before it "
            "(OrdinalEncoder)"
        )
    return _tree_scores(into, sklearn_boosting.trees_of(model, task), numbers, task)


def _gradient_boosting(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    if model.init_ != "zero" and not type(model.init_).__name__.startswith("Dummy"):
        raise ValueError("GradientBoosting that starts from another estimator (`init`) has no graph")
    start = np.asarray(model._raw_predict_init(np.zeros((1, numbers.width)))).ravel()
    twice = 2.0 if getattr(model, "loss", "") == "exponential" else 1.0
    trees = [constant_tree(float(value) * twice, target) for target, value in enumerate(start)]
    share = float(model.learning_rate) * twice
    for stage in model.estimators_:
        trees += [sklearn_trees.tree_of(one, "regression", share, target) for target, one in enumerate(stage)]
    if task == "multiclass" and len(start) == 1:
        return _tree_scores(into, halved(trees), numbers, task)
    return _tree_scores(into, Trees(targets=len(start), trees=trees), numbers, task)


def _logistic(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    kind = type(model).__name__
    if kind == "SGDClassifier" and model.loss != "log_loss":
        raise ValueError(f"SGDClassifier with loss='{model.loss}' gives no probabilities; fit it with loss='log_loss'")
    several = len(model.classes_) > 2
    if several and (kind == "SGDClassifier" or getattr(model, "solver", "") == "liblinear"):
        raise ValueError(
            f"{kind} fits one model per class here, whose probabilities have no graph; use LogisticRegression"
        )
    coefficients, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if task == "multiclass" and not several:
        halves = np.array([[-0.5], [0.5]])
        coefficients, intercept = halves * coefficients, halves[:, 0] * intercept
    return _weighed(into, coefficients, intercept, numbers, alone=task != "multiclass")


def _linear(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:  # noqa: ARG001
    coefficients, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if len(coefficients) != 1:
        raise ValueError(f"{type(model).__name__} has {len(coefficients)} targets; a model here has one")
    return _weighed(into, coefficients, intercept, numbers, alone=True)


def _weighed(
    into: Preprocessing, coefficients: np.ndarray, intercept: np.ndarray, numbers: Numbers, *, alone: bool
) -> Raw:
    weights = coefficients[0] if alone else coefficients.T
    product = into.node("MatMul", [numbers.name, into.constant(weights)])
    raw = into.node("Add", [product, into.constant(intercept[0] if alone else intercept)])
    zeros, ones = [0.0] * numbers.width, [1.0] * numbers.width
    explanation = Linear(
        intercept=intercept.tolist(),
        numeric=list(range(numbers.width)),
        fill=zeros,
        mean=zeros,
        scale=ones,
        numeric_coefficients=coefficients.tolist(),
        categorical=[],
        codes=[],
        categorical_coefficients=[[] for _ in coefficients],
    )
    return _explained(numbers, raw, explanation)


def _generalised(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    raw = _linear(into, model, numbers, task)
    link = type(model._base_loss.link).__name__
    if link == "IdentityLink":
        return raw
    if link != "LogLink":
        raise ValueError(f"{type(model).__name__} with the link {link} has no graph")
    return Raw(into.node("Exp", [raw.name]), unexplained="it answers by the exponent of a sum")


def _perceptron(into: Preprocessing, model: Any, numbers: Numbers, task: Task) -> Raw:
    hidden = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}[model.activation]
    name = numbers.name
    for layer, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        if layer:
            name = into.node(hidden, [name])
        name = into.node("Add", [into.node("MatMul", [name, into.constant(weights)]), into.constant(bias)])
    reason = "it is a network"
    if task == "multiclass" and model.out_activation_ == "logistic":
        half = into.node("Mul", [name, into.constant([[-0.5, 0.5]])])
        return Raw(half, unexplained=reason)
    if task != "multiclass":
        name = into.node("Reshape", [name, into.constant([-1], np.int64)])
    return Raw(name, unexplained=reason)


def _one_target(model: Any) -> None:
    if getattr(model, "n_outputs_", 1) != 1:
        raise ValueError(f"{type(model).__name__} has {model.n_outputs_} targets; a model here has one")


_Adder = Callable[[Preprocessing, Any, Numbers, Task], Raw]
_ADDERS: dict[str, _Adder] = {
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(_LOGISTIC, _logistic),
    **dict.fromkeys(_GENERALISED, _generalised),
    **dict.fromkeys(_FORESTS, _forest),
    **dict.fromkeys(_TREES, _tree),
    "HistGradientBoostingClassifier": _hist,
    "HistGradientBoostingRegressor": _hist,
    "GradientBoostingClassifier": _gradient_boosting,
    "GradientBoostingRegressor": _gradient_boosting,
    "MLPClassifier": _perceptron,
    "MLPRegressor": _perceptron,
}
