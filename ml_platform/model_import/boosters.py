"""XGBoost, LightGBM and CatBoost from their own data formats. Their trees are exported exactly."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.distribution import DISTRIBUTION
from ml_platform.inference.explain import Trees
from ml_platform.model_import.foreign import EXACT, FLOAT32, Bound, ForeignModel, Raw, finish, scores_of
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.category_sets import CategorySets
from ml_platform.training.export.float32_splits import in_float32_range
from ml_platform.training.export.graph import Graph
from ml_platform.training.export.onnx_trees import add_trees
from ml_platform.training.families import catboost, lightgbm, xgboost

BY_SETS = "its trees split by sets of categories"
_LARGEST_NUMBER = 100_000  # of a category: a table has a row for each up to it


def read_xgboost(path: Path) -> ForeignModel:
    """Read XGBoost's JSON or UBJSON; rounds after the best one, where it stopped early, are left out."""
    library = library_of("xgboost", "xgboost")
    booster = library.Booster()
    try:
        booster.load_model(bytearray(path.read_bytes()))
        document = json.loads(booster.save_raw("json"))
    except (library.core.XGBoostError, ValueError, KeyError) as error:
        raise _unreadable(path, "xgboost", error) from error
    return xgboost_model(booster, document)


def xgboost_model(booster: Any, document: Mapping[str, Any] | None = None) -> ForeignModel:
    """Describe a booster."""
    best = booster.attributes().get("best_iteration")
    if best is not None:
        booster = booster[: int(best) + 1]
    if best is not None or document is None:
        document = json.loads(booster.save_raw("json"))
    learner = document["learner"]
    objective = str(learner["objective"]["name"])
    classes = int(learner["learner_model_param"]["num_class"])
    is_classifier = objective.startswith(("binary:", "multi:"))
    categories, numbers = _xgboost_categories(learner)
    names = tuple(learner.get("feature_names") or ())
    kinds = list(learner.get("feature_types") or ())

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        sets = CategorySets(len(features), coded(features), numbers, null_is_nan=True)
        log_link = objective in xgboost.LOG_OBJECTIVES
        raw_trees = xgboost.trees_of(document, task, sets, log_link=log_link)
        types = [
            "c" if one.categories is not None or (kinds and kinds[i] == "c") else "q" for i, one in enumerate(features)
        ]

        def native(X: np.ndarray) -> np.ndarray:
            import xgboost as library

            values = _codes(in_float32_range(X), features, numbers)
            rows = library.DMatrix(
                values,
                feature_names=list(names) or None,
                feature_types=types if "c" in types else None,
                enable_categorical="c" in types,
            )
            answers = booster.predict(rows, validate_features=False)
            return _of_softmax(booster, rows, answers, task, positive)

        return _bound(native, raw_trees, sets, task, features, positive, tolerance=FLOAT32, exp=log_link)

    return ForeignModel(
        library=f"xgboost {version_of('xgboost', 'xgboost-cpu')}",
        summary=f"XGBoost, {booster.num_boosted_rounds()} rounds for {objective}",
        inputs=names,
        width=int(learner["learner_model_param"]["num_feature"]),
        is_classifier=is_classifier,
        classes=(),
        outputs=max(classes, 2) if is_classifier else None,
        bind=bind,
        categories=categories,
        native_name="model.ubj",
    )


def _of_softmax(booster: Any, rows: Any, answers: np.ndarray, task: Task, positive: int) -> np.ndarray:
    """Scores of a booster, also of one whose objective answers with classes, or of two classes taken for several."""
    if task == "multiclass" and answers.ndim == 1:
        margins = booster.predict(rows, output_margin=True, validate_features=False).astype(np.float64)
        if margins.ndim == 1:
            return np.column_stack([1 - answers, answers]).astype(np.float64)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        share: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return share
    return scores_of(answers, task, positive)


def _xgboost_categories(
    learner: Mapping[str, Any],
) -> tuple[dict[int, tuple[str, ...]], dict[int, tuple[int, ...]]]:
    """Categories that XGBoost has kept since 3.1, by position: texts, and whole numbers."""
    stored = learner["gradient_booster"].get("model", {}).get("cats", {}).get("enc", [])
    texts, numbers = dict[int, tuple[str, ...]](), dict[int, tuple[int, ...]]()
    for position, one in enumerate(stored):
        offsets = one.get("offsets") or []
        if len(offsets) > 1:
            text = bytes(code % 256 for code in one["values"])
            texts[position] = tuple(text[a:b].decode() for a, b in pairwise(offsets))
        elif one.get("values"):
            numbers[position] = _whole(one["values"], f"number {position}")
    return texts, numbers


def _whole(values: Sequence[Any], name: str) -> tuple[int, ...]:
    """Categories that are whole numbers (raises ImportRefused for any other)."""
    if any(isinstance(one, str) or one != int(one) or not 0 <= one <= _LARGEST_NUMBER for one in values):
        raise ImportRefused(
            f"the categories of the feature {name} are {list(values)[:5]}: wanted texts, or whole numbers from 0 to "
            f"{_LARGEST_NUMBER:,}. Train it on texts"
        )
    return tuple(map(int, values))


def _codes(X: np.ndarray, features: Sequence[Feature], numbers: Mapping[int, Sequence[int]]) -> np.ndarray:
    """A matrix with the codes that a library has for categories, NaN for null and unseen ones."""
    codes = X.copy()
    for position, feature in enumerate(features):
        column = codes[:, position]
        if feature.categories is not None:
            codes[:, position] = np.where(column < 0, np.nan, column)
        elif position in numbers:
            code_of = {float(value): float(code) for code, value in enumerate(numbers[position])}
            codes[:, position] = [code_of.get(value, np.nan) for value in column.tolist()]
    return codes


def read_lightgbm(path: Path) -> ForeignModel:
    """Read LightGBM's text format."""
    import lightgbm as library

    text = path.read_text(encoding="utf-8", errors="replace")
    if "end of trees" not in text:
        raise ImportRefused(f"{path} is cut off: a LightGBM model ends its trees by `end of trees`; copy it again")
    try:
        booster = library.Booster(model_str=text)
    except (library.basic.LightGBMError, ValueError) as error:
        raise _unreadable(path, "lightgbm", error) from error
    return lightgbm_model(booster)


def lightgbm_model(booster: Any) -> ForeignModel:
    """Describe a booster."""
    document = booster.dump_model()
    objective = str(document.get("objective", "none"))
    is_classifier = objective.startswith(("binary", "multiclass", "cross_entropy"))
    names = tuple(booster.feature_name())
    if names == tuple(f"Column_{number}" for number in range(len(names))):
        names = ()
    lists = booster.pandas_categorical or []
    listed = [
        i for i, name in enumerate(booster.feature_name()) if document["feature_infos"].get(name, {}).get("values")
    ]
    categories: dict[int, tuple[str, ...]] = {}
    numbers: dict[int, tuple[int, ...]] = {}
    if len(lists) == len(listed):
        for position, values in zip(listed, lists, strict=True):
            if all(isinstance(one, str) for one in values):
                categories[position] = tuple(values)
            else:
                numbers[position] = _whole(values, booster.feature_name()[position])

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        sets = CategorySets(len(features), coded(features), numbers)
        log_link = objective.split(maxsplit=1)[0] in lightgbm.LOG_OBJECTIVES
        raw_trees = lightgbm.trees_of(booster, task, sets, log_link=log_link)

        def native(X: np.ndarray) -> np.ndarray:
            values = _codes(X, features, numbers)
            answers = np.asarray(booster.predict(values, num_threads=1))
            if task == "multiclass" and answers.ndim == 1:
                return np.column_stack([1 - answers, answers])
            return scores_of(answers, task, positive)

        return _bound(native, raw_trees, sets, task, features, positive, tolerance=EXACT, exp=log_link)

    return ForeignModel(
        library=f"lightgbm {version('lightgbm')}",
        summary=f"LightGBM, {booster.num_trees()} trees for {objective}",
        inputs=names,
        width=booster.num_feature(),
        is_classifier=is_classifier,
        classes=(),
        outputs=max(int(document["num_class"]), 2) if is_classifier else None,
        bind=bind,
        categories=categories,
        native_name="model.lgb",
        blanks_replaced=True,
    )


def read_catboost(path: Path) -> ForeignModel:
    """Read CatBoost's cbm format."""
    library = library_of("catboost", "catboost")
    model = library.CatBoost()
    try:
        model.load_model(str(path))
    except library.CatBoostError as error:
        raise _unreadable(path, "catboost", error) from error
    return catboost_model(model)


def catboost_model(model: Any) -> ForeignModel:
    """Describe a model (raises ImportRefused for features that are no numbers)."""
    names = tuple(map(str, model.feature_names_))
    special = [names[i] for i in (*model.get_cat_feature_indices(), *model.get_text_feature_indices())]
    if special:
        raise ImportRefused(
            f"CatBoost counts statistics of the categories or words of {', '.join(special)} by hashes, which have no "
            "exact "
            "graph. Train it on codes of the categories (OrdinalEncoder, or a number for each), or import LightGBM or "
            "XGBoost, whose splits by categories are exported"
        )
    if names == tuple(map(str, range(len(names)))):
        names = ()
    params = model.get_all_params()
    loss = str(params.get("loss_function", "")).partition(":")[0]
    classes = tuple(_label(one) for one in (model.classes_ if model.classes_ is not None else ()))
    is_classifier = loss in ("Logloss", "CrossEntropy", "MultiClass")
    if not is_classifier and loss not in (
        "RMSE",
        "MAE",
        "Quantile",
        "Huber",
        "LogCosh",
        "MAPE",
        "Lq",
        "Expectile",
        "Poisson",
    ):
        raise ImportRefused(f"CatBoost for the loss '{loss}' has no export; wanted Logloss, MultiClass or RMSE")
    exp = loss == "Poisson"

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        raw_trees = catboost.trees_of(model)
        if task == "multiclass" and raw_trees.targets == 1:
            raise ValueError("CatBoost's Logloss has one raw score; in a folder of two classes set `task: binary`")

        def native(X: np.ndarray) -> np.ndarray:
            values = catboost.filled_where_unknown(model, X)
            kind = "Probability" if is_classifier else "Exponent" if exp else "RawFormulaVal"
            return scores_of(model.predict(values, prediction_type=kind, thread_count=1), task, positive)

        sets = CategorySets(len(features), {})
        return _bound(native, raw_trees, sets, task, features, positive, tolerance=EXACT, exp=exp)

    return ForeignModel(
        library=f"catboost {version('catboost')}",
        summary=f"CatBoost, {model.tree_count_} trees for {loss}",
        inputs=names,
        width=len(model.feature_names_),
        is_classifier=is_classifier,
        classes=classes if is_classifier else (),
        outputs=max(len(classes), 2) if is_classifier else None,
        bind=bind,
        native_name="model.cbm",
    )


def _bound(  # noqa: PLR0917 - private
    native: Any,
    model: Trees,
    sets: CategorySets,
    task: Task,
    features: Sequence[Feature],
    positive: int,
    *,
    tolerance: float,
    exp: bool = False,
) -> Bound:
    graph = Graph()
    raw = tree_scores(graph, model, sets, task, source="X")
    if exp:
        raw = Raw(
            graph.add("Exp", [raw.name], "value_of_log"), unexplained="it answers by the exponent of its trees' sum"
        )
    onnx, reason = finish(graph, raw, task, width=len(features), outputs=model.targets, positive=positive)
    return Bound(native, onnx, tolerance, unexplained=reason)


def tree_scores(graph: Graph, model: Trees, sets: CategorySets, task: Task, *, source: str) -> Raw:
    """Add the raw scores of trees, which are explained where they see the matrix itself."""
    part = Graph()
    wide = sets.extend(part, source)
    name = graph.join(part, add_trees(part, model, alone=task != "multiclass", source=wide))
    if wide == "X":
        return Raw(name, model.probabilities, model)
    return Raw(
        name, model.probabilities, unexplained=BY_SETS if sets.columns else "columns are changed before its trees"
    )


def coded(features: Sequence[Feature]) -> dict[int, int]:
    """Position of each categorical feature → number of its categories."""
    return {i: len(one.categories) for i, one in enumerate(features) if one.categories is not None}


def _label(value: Any) -> str | int:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool | int):
        return int(number)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return str(number)


def library_of(module: str, extra: str) -> Any:
    """Import an optional library (raises ImportRefused, which names the extra that brings it)."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ImportRefused(f"to read this file needs {module}: pip install '{DISTRIBUTION}[{extra}]'") from error


def version_of(*distributions: str) -> str:
    """Version of the first distribution that is installed."""
    from importlib.metadata import PackageNotFoundError

    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _unreadable(path: Path, library: str, error: Exception) -> ImportRefused:
    first = next(iter(str(error).strip().splitlines()), "")
    return ImportRefused(
        f"{path} cannot be read by {library} {version_of(library, f'{library}-cpu')}: {first}. It is cut off, "
        "damaged, or of a "
        f"version that this one does not read: copy it again, or store it anew by {library} of this version"
    )
