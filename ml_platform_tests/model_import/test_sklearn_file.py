"""Pipelines of scikit-learn: their graphs answer as they do, whatever category, null or number they are given."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import GammaRegressor, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from ml_platform.model_import.file_kinds import PICKLE
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.sklearn_file import read_sklearn, sklearn_model
from ml_platform.spec.types import Task
from ml_platform.training.export.parity import compare
from ml_platform_tests.model_import.parity import check, number, text, world

NUMBERS, TEXTS = ["weight", "load"], ["shop"]
Data = dict[str, Any]


@pytest.fixture(scope="module")
def data() -> Data:
    return world()


def columns(encoder: Any, numbers: Any = "passthrough") -> ColumnTransformer:
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("texts", encoder, TEXTS)])


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", **options)


def imputed(*steps: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="median", add_indicator=True), *steps)


CASES: dict[str, tuple[Task, str, Any]] = {
    "one-hot, scaled, logistic": (
        "binary",
        "late",
        make_pipeline(columns(one_hot(drop="first"), imputed(StandardScaler())), LogisticRegression()),
    ),
    "imputer before the encoder": (
        "binary",
        "late",
        make_pipeline(
            columns(
                make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot(min_frequency=130)),
                imputed(RobustScaler()),
            ),
            LinearDiscriminantAnalysis(),
        ),
    ),
    "ordinal, forest": (
        "multiclass",
        "outcome",
        make_pipeline(
            columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-7)),
            RandomForestClassifier(5, max_depth=4, random_state=0),
        ),
    ),
    "target encoder, boosting, sparse": (
        "multiclass",
        "outcome",
        make_pipeline(columns(TargetEncoder(random_state=0), imputed()), GradientBoostingClassifier(n_estimators=4)),
    ),
    "perceptron of several classes": (
        "multiclass",
        "outcome",
        make_pipeline(
            columns(one_hot(), imputed(MinMaxScaler(clip=True))), MLPClassifier((4,), max_iter=5, random_state=0)
        ),
    ),
    "logistic of several classes": (
        "multiclass",
        "outcome",
        make_pipeline(columns(one_hot(), imputed(StandardScaler())), LogisticRegression()),
    ),
    "union, PCA, selection, vote": (
        "binary",
        "late",
        make_pipeline(
            columns(one_hot(), imputed(make_union(PCA(2), FunctionTransformer(np.abs)))),
            SelectKBest(k=5),
            VotingClassifier(
                [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft", weights=[2, 1]
            ),
        ),
    ),
    "calibrated trees": (
        "binary",
        "late",
        make_pipeline(
            columns(one_hot(), imputed()), CalibratedClassifierCV(RandomForestClassifier(3, max_depth=3), cv=2)
        ),
    ),
    "calibrated lines": (
        "binary",
        "late",
        CalibratedClassifierCV(
            make_pipeline(columns(one_hot(), imputed(StandardScaler())), LogisticRegression()), cv=2
        ),
    ),
    "logarithm of the target": (
        "regression",
        "value",
        TransformedTargetRegressor(
            make_pipeline(columns(one_hot(), imputed(StandardScaler(), PolynomialFeatures(2))), Ridge()),
            func=np.log1p,
            inverse_func=np.expm1,
        ),
    ),
    "histograms": (
        "regression",
        "value",
        make_pipeline(columns(TargetEncoder()), HistGradientBoostingRegressor(max_iter=5)),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_answers_as_its_graph(data: Data, case: str) -> None:
    task, target, pipeline = CASES[case]
    labels = data[target]
    if case == "logarithm of the target":
        labels = labels - labels.min()
    model = sklearn_model(pipeline.fit(data["frame"], labels), Path("model"))
    assert model.inputs == ("weight", "load", "shop")
    bound = model.bind(task, data["features"], 1)
    assert bound.unexplained
    if case == "logarithm of the target":  # far values have no finite exponent
        compare(bound.native, bound.onnx, task, data["features"], data["X"], tolerance=bound.tolerance)
    else:
        check(model, task, data["features"], data["X"])


def test_a_tree_of_numbers_is_explained_and_so_is_a_line(data: Data) -> None:
    features = data["features"][:2]
    for estimator in (DecisionTreeClassifier(max_depth=3), ExtraTreesClassifier(3, max_depth=3)):
        model = sklearn_model(estimator.fit(data["frame"][NUMBERS], data["late"]), Path("model"))
        assert not check(model, "binary", features, data["X"][:, :2]).unexplained
    filled = data["frame"][NUMBERS].fillna(0)
    model = sklearn_model(LogisticRegression().fit(filled, data["late"]), Path("model"))
    assert not model.bind("binary", features, 1).unexplained


def test_the_class_that_means_true_may_be_the_first(data: Data) -> None:
    labels = np.where(data["late"] == 1, "arrears", "paid")
    model = sklearn_model(
        make_pipeline(SimpleImputer(), LogisticRegression()).fit(data["frame"][NUMBERS], labels), Path("m")
    )
    assert model.classes == ("arrears", "paid")
    first = check(model, "binary", data["features"][:2], data["X"][:, :2], positive=0)
    second = check(model, "binary", data["features"][:2], data["X"][:, :2], positive=1)
    assert np.allclose(first.native(data["X"][:5, :2]), 1 - second.native(data["X"][:5, :2]))


def test_numbers_that_are_categories_are_looked_up(data: Data) -> None:
    frame = data["frame"].assign(size=np.arange(400) % 3, weight=data["frame"]["weight"].round())
    encoder = ColumnTransformer([("both", one_hot(), ["shop", "size"])], remainder="drop")
    model = sklearn_model(
        make_pipeline(encoder, LogisticRegression()).fit(frame[["size", "shop"]], data["late"]), Path("m")
    )
    X = np.column_stack([np.arange(400) % 3, data["X"][:, 2]]).astype(float)
    check(model, "binary", [number("size"), text("shop")], X)


def test_a_model_without_names_takes_an_array(data: Data) -> None:
    model = sklearn_model(make_pipeline(SimpleImputer(), Ridge()).fit(data["X"][:, :2], data["value"]), Path("model"))
    assert (model.inputs, model.width) == ((), 2)
    check(model, "regression", data["features"][:2], data["X"][:, :2])


@pytest.mark.parametrize(
    ("estimator", "target", "message"),
    [
        (SVC(), "late", "gives no probabilities"),
        (LinearSVC(), "late", "gives no probabilities"),
        (LogisticRegression(solver="liblinear"), "late", ""),
    ],
)
def test_what_gives_no_probabilities_is_refused(data: Data, estimator: Any, target: str, message: str) -> None:
    fitted = estimator.fit(data["frame"][NUMBERS].fillna(0), data[target])
    if message:
        with pytest.raises(ImportRefused, match=message):
            sklearn_model(fitted, Path("model"))
    else:
        assert sklearn_model(fitted, Path("model")).classes == (0, 1)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FunctionTransformer(lambda rows: rows * 2), "is Python code, which has no graph"),
        (KBinsDiscretizer(3, encode="ordinal", quantile_method="linear"), "KBinsDiscretizer has no exact graph here"),
    ],
)
def test_a_step_without_a_graph_is_refused_by_name(data: Data, step: Any, message: str) -> None:
    fitted = make_pipeline(SimpleImputer(), step, Ridge()).fit(data["frame"][NUMBERS], data["value"])
    with pytest.raises(ValueError, match=message):
        sklearn_model(fitted, Path("model")).bind("regression", data["features"][:2], 1)


def test_text_that_nothing_encodes_is_refused(data: Data) -> None:
    fitted = GammaRegressor().fit(data["frame"][NUMBERS].fillna(0), np.abs(data["value"]) + 1)
    with pytest.raises(ValueError, match="text goes into a step that takes numbers: shop"):
        sklearn_model(fitted, Path("model")).bind("regression", [number("weight"), text("shop")], 1)


def test_a_file_that_cannot_be_loaded_says_which_versions_there_are(tmp_path: Path, data: Data) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(make_pipeline(SimpleImputer(), Ridge()).fit(data["X"][:, :2], data["value"]), path)
    model, notes = read_sklearn(path, PICKLE)
    assert (model.summary, notes) == ("Pipeline of SimpleImputer, Ridge", [])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImportRefused, match=r"cannot be loaded.*here: scikit-learn"):
        read_sklearn(path, PICKLE)
    for thing, message in (([1], "has no `predict`"), (Ridge(), "not fitted")):
        joblib.dump(thing, path)
        with pytest.raises(ImportRefused, match=message):
            read_sklearn(path, PICKLE)


def test_an_estimator_of_lightgbm_keeps_its_categories_and_labels(data: Data) -> None:
    import lightgbm
    import pandas as pd

    order = ["west", "south", "north"]
    frame = data["frame"].assign(shop=pd.Categorical(data["frame"]["shop"], categories=order))
    fitted = lightgbm.LGBMClassifier(n_estimators=4, min_data_per_group=5, verbosity=-1).fit(frame, data["outcome"])
    model = sklearn_model(fitted, Path("model"))
    assert (model.classes, model.categories) == (("early", "late", "on time"), {2: tuple(order)})
    codes = [order.index(one) if isinstance(one, str) else -2.0 for one in data["frame"]["shop"]]
    X = np.column_stack([data["X"][:, :2], codes])
    bound = check(model, "multiclass", [*data["features"][:2], text("shop", order)], X)
    assert np.allclose(bound.native(X), fitted.predict_proba(frame))
