"""Estimators of scikit-learn from pickles, joblib and skops. All three run code of the file: only with `--trust`."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.model_import import boosters
from ml_platform.model_import.columns_to_numbers import Preprocessing, Selected, texts_by_input
from ml_platform.model_import.estimators import add_model
from ml_platform.model_import.file_kinds import SKOPS, FileKind
from ml_platform.model_import.foreign import EXACT, FLOAT32, Bound, ForeignModel, decoded, finish, scores_of
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import Feature, Label
from ml_platform.spec.types import Task
from ml_platform.training.export.float32_splits import in_float32_range
from ml_platform.training.export.graph import Graph


def read_sklearn(path: Path, kind: FileKind) -> tuple[ForeignModel, list[str]]:
    """Load a trusted file, and say what its library warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _skops(path) if kind == SKOPS else _joblib(path)
        except ImportRefused:
            raise
        except Exception as error:  # unpickling runs code, which may raise anything
            raise ImportRefused(
                f"{path} cannot be loaded: {type(error).__name__}: {error}. It is cut off, or was written by other "
                "versions of "
                f"its libraries (here: scikit-learn {version('scikit-learn')}, NumPy {version('numpy')}): install "
                "those, or "
                "convert the model to ONNX where it was trained"
            ) from error
    notes = [str(one.message).split("\n")[0] for one in caught if "version" in str(one.message)]
    return sklearn_model(model, path), notes[:1]


def _joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _skops(path: Path) -> Any:
    from skops import io

    return io.load(path, trusted=io.get_untrusted_types(file=path))


def sklearn_model(model: Any, path: Path) -> ForeignModel:
    """Describe a loaded object (raises ImportRefused when it is no fitted estimator)."""
    if not hasattr(model, "predict"):
        raise ImportRefused(f"{path} holds a {type(model).__name__}, which has no `predict`: wanted a fitted estimator")
    kind = type(model).__name__
    if kind == "Booster" and hasattr(model, "save_raw"):
        return boosters.xgboost_model(model)
    if kind == "Booster":
        return boosters.lightgbm_model(model)
    classes = getattr(model, "classes_", None)
    if (booster := _booster(model, kind)) is not None:
        labels = tuple(_plain(one) for one in classes) if classes is not None and booster.is_classifier else ()
        return replace(booster, classes=labels, native_name="model")
    if _is_classifier(model) and not hasattr(model, "predict_proba"):
        raise ImportRefused(
            f"{kind} gives no probabilities, of which a classifier's scores are; fit it so that it has `predict_proba`"
        )
    if classes is not None and _is_classifier(model) and any(isinstance(one, np.ndarray | list) for one in classes):
        raise ImportRefused(f"{kind} has several targets; a model here has one")
    names = getattr(model, "feature_names_in_", None)
    width = getattr(model, "n_features_in_", None)
    if width is None:
        raise ImportRefused(f"{path} holds a {kind} that is not fitted: fit it before it is stored")
    labels = tuple(_plain(one) for one in classes) if classes is not None and _is_classifier(model) else ()

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        graph = Graph()
        into = Preprocessing(graph, features, named=names is not None)
        raw = add_model(into, model, Selected(tuple(range(len(features)))), task)
        outputs = max(len(labels), 2) if task == "multiclass" else 1
        onnx, reason = finish(graph, raw, task, width=len(features), outputs=outputs, positive=positive)

        def native(X: np.ndarray) -> np.ndarray:
            frame = decoded(in_float32_range(X), features)
            if names is not None:
                frame.columns = list(names)
            rows = frame if names is not None else frame.to_numpy()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = model.predict(rows) if task == "regression" else model.predict_proba(rows)
            return scores_of(answers, task, positive)

        return Bound(native, onnx, FLOAT32 if _has(model, "XGB") else EXACT, unexplained=reason)

    return ForeignModel(
        library=f"scikit-learn {version('scikit-learn')}",
        summary=_summary(model),
        inputs=tuple(map(str, names)) if names is not None and len(names) == width else (),
        width=int(width),
        is_classifier=_is_classifier(model),
        classes=labels,
        outputs=max(len(labels), 2) if labels else None,
        bind=bind,
        categories={position: tuple(sorted(names)) for position, names in texts_by_input(model).items() if names},
    )


def _booster(model: Any, kind: str) -> ForeignModel | None:
    """An estimator of XGBoost, LightGBM or CatBoost by itself, with its categories; None for any other."""
    if kind.startswith("XGB") and hasattr(model, "_Booster"):
        return boosters.xgboost_model(model.get_booster())
    if kind.startswith("LGBM") and getattr(model, "fitted_", False):
        return boosters.lightgbm_model(model.booster_)
    if kind.startswith("CatBoost") and model.is_fitted():
        return boosters.catboost_model(model)
    return None


def _plain(value: Any) -> Label:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool | int):
        return int(number)
    return int(number) if isinstance(number, float) and number.is_integer() else str(number)


def _is_classifier(model: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(model))


def _summary(model: Any) -> str:
    steps = getattr(model, "steps", None)
    if steps:
        return "Pipeline of " + ", ".join(type(one).__name__ for _, one in steps)
    return type(model).__name__


def _has(model: Any, prefix: str) -> bool:
    return type(model).__name__.startswith(prefix) or any(_has(one, prefix) for _, one in getattr(model, "steps", ()))
