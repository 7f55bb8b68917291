"""XGBoost, LightGBM and CatBoost from their own formats: exact, with categories, and with what they start from."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.model_import.binding import bind_features
from ml_platform.model_import.boosters import BY_SETS, read_catboost, read_lightgbm, read_xgboost
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.refused import ImportRefused
from ml_platform.training.export.category_sets import CategorySets
from ml_platform_tests.model_import.parity import check, number, text, world

NUMBERS = ["weight", "load"]
Data = dict[str, Any]


@pytest.fixture(scope="module")
def data() -> Data:
    return world()


def with_categories(data: Data) -> Any:
    import pandas as pd

    order = ["west", "north", "south"]  # as pandas may have it, not the alphabet
    return data["frame"].assign(shop=pd.Categorical(data["frame"]["shop"], categories=order)), order


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_lightgbm_splits_categories_in_the_order_of_pandas(data: Data, tmp_path: Path, task: Any) -> None:
    import lightgbm

    frame, order = with_categories(data)
    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    target = {"binary": "late", "regression": "value", "multiclass": "outcome"}[task]
    fitted = kind(n_estimators=6, verbosity=-1, min_data_per_group=5, cat_smooth=0).fit(frame, data[target])
    fitted.booster_.save_model(tmp_path / "m")
    model = read_lightgbm(tmp_path / "m")
    assert (model.inputs, model.categories) == (("weight", "load", "shop"), {2: tuple(order)})
    X = data["X"].copy()
    known = X[:, 2] >= 0
    X[known, 2] = [order.index(data["features"][2].categories[int(code)]) for code in X[known, 2]]
    bound = check(model, task, [*data["features"][:2], text("shop", order)], X)
    assert bound.unexplained == BY_SETS
    own = fitted.predict(frame) if task == "regression" else fitted.predict_proba(frame)
    assert np.allclose(bound.native(X), own[:, 1] if task == "binary" else own)


def test_xgboost_keeps_its_categories_and_its_base_score(data: Data, tmp_path: Path) -> None:
    import xgboost

    frame, order = with_categories(data)
    fitted = xgboost.XGBClassifier(n_estimators=5, max_depth=3, enable_categorical=True, base_score=0.2)
    fitted.fit(frame, data["late"]).save_model(tmp_path / "m.json")
    model = read_xgboost(tmp_path / "m.json")
    assert model.categories == {2: tuple(order)}
    X = data["X"].copy()
    known = X[:, 2] >= 0
    X[known, 2] = [order.index(data["features"][2].categories[int(code)]) for code in X[known, 2]]
    bound = check(model, "binary", [*data["features"][:2], text("shop", order)], X)
    assert np.allclose(bound.native(X), fitted.predict_proba(frame)[:, 1])


@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:absoluteerror", "count:poisson", "reg:gamma"])
def test_objectives_of_xgboost(data: Data, tmp_path: Path, objective: str) -> None:
    import xgboost

    value = np.abs(data["value"]) + 1
    fitted = xgboost.XGBRegressor(n_estimators=5, max_depth=3, objective=objective).fit(data["frame"][NUMBERS], value)
    fitted.save_model(tmp_path / "m.ubj")
    bound = check(read_xgboost(tmp_path / "m.ubj"), "regression", data["features"][:2], data["X"][:, :2])
    assert bool(bound.unexplained) == (objective in ("count:poisson", "reg:gamma"))


def test_rounds_after_the_best_are_left_out(data: Data, tmp_path: Path) -> None:
    import xgboost

    X, y = data["frame"][NUMBERS], data["late"]
    fitted = xgboost.XGBClassifier(n_estimators=60, learning_rate=1.0, early_stopping_rounds=3)
    fitted.fit(X[:200], y[:200], eval_set=[(X[200:], y[200:])], verbose=False).save_model(tmp_path / "m.ubj")
    bound = check(read_xgboost(tmp_path / "m.ubj"), "binary", data["features"][:2], data["X"][:, :2])
    assert np.allclose(bound.native(data["X"][:, :2]), fitted.predict_proba(X)[:, 1])


@pytest.mark.parametrize("nan_mode", ["Min", "Max"])
def test_catboost_with_nulls_either_way(data: Data, tmp_path: Path, nan_mode: str) -> None:
    import catboost

    labels = np.where(data["late"] == 1, "yes", "no")
    fitted = catboost.CatBoostClassifier(
        iterations=6, depth=3, nan_mode=nan_mode, verbose=False, allow_writing_files=False
    )
    fitted.fit(data["frame"][NUMBERS], labels).save_model(str(tmp_path / "m"))
    model = read_catboost(tmp_path / "m")
    assert (model.classes, model.inputs) == (("no", "yes"), ("weight", "load"))
    bound = check(model, "binary", data["features"][:2], data["X"][:, :2])
    assert np.allclose(bound.native(data["X"][:, :2]), fitted.predict_proba(data["frame"][NUMBERS])[:, 1])


def test_catboost_with_categories_of_text_is_refused_by_name(data: Data, tmp_path: Path) -> None:
    import catboost

    frame = data["frame"].fillna({"shop": "none"})
    fitted = catboost.CatBoostClassifier(iterations=3, cat_features=["shop"], verbose=False, allow_writing_files=False)
    fitted.fit(frame, data["late"]).save_model(str(tmp_path / "m"))
    with pytest.raises(ImportRefused, match=r"of shop by hashes, which have no exact graph"):
        read_catboost(tmp_path / "m")


def test_files_that_are_cut_off_are_refused(data: Data, tmp_path: Path) -> None:
    import catboost
    import lightgbm
    import xgboost

    X, y = data["frame"][NUMBERS], data["late"]
    path = tmp_path / "m"
    lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(X, y).booster_.save_model(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImportRefused, match="cut off"):
        read_lightgbm(path)
    xgboost.XGBClassifier(n_estimators=3).fit(X, y).save_model(tmp_path / "m.json")
    path.write_bytes((tmp_path / "m.json").read_bytes()[:400])
    with pytest.raises(ImportRefused, match="cannot be read by xgboost"):
        read_xgboost(path)
    fitted = catboost.CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False).fit(X, y)
    fitted.save_model(str(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImportRefused, match="cannot be read by catboost"):
        read_catboost(path)


def test_whole_numbers_may_be_codes_of_categories(tmp_path: Path) -> None:
    import lightgbm

    random = np.random.default_rng(1)
    X = np.column_stack([random.normal(size=600), random.integers(0, 9, 600)]).astype(float)
    y = np.isin(X[:, 1], [1, 4, 7]).astype(int)
    fitted = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "min_data_per_group": 5, "cat_smooth": 0},
        lightgbm.Dataset(X, y, feature_name=["a", "b"], categorical_feature=[1]),
        num_boost_round=4,
    )
    fitted.save_model(tmp_path / "m")
    bound = check(read_lightgbm(tmp_path / "m"), "binary", [number("a"), number("b")], X)
    assert np.allclose(bound.native(X), fitted.predict(X))


def test_too_many_sets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_platform.training.export.category_sets.MOST_SETS", 1)
    sets = CategorySets(3, {2: 4})
    assert (sets.column(2, [1, 2]), sets.column(2, [2, 1])) == (3, 3)
    with pytest.raises(ValueError, match="more than 1 different sets"):
        sets.column(2, [1])


def numbered() -> tuple[Any, np.ndarray, np.ndarray]:
    """A frame with a category of whole numbers that are not their own codes, its matrix, and labels."""
    import pandas as pd

    random = np.random.default_rng(2)
    size, weight = random.choice([2, 5, 9], 500), random.normal(size=500)
    frame = pd.DataFrame({"size": pd.Categorical(size, categories=[9, 2, 5]), "weight": weight})
    return frame, np.column_stack([size, weight]).astype(float), ((size == 5) ^ (weight > 1)).astype(int)


def test_categories_of_pandas_that_are_numbers_are_told_by_their_values(tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    frame, X, late = numbered()
    features = [number("size"), number("weight")]
    forest = lightgbm.LGBMClassifier(
        n_estimators=4, boosting_type="rf", subsample=0.7, subsample_freq=1, min_data_per_group=5, verbosity=-1
    )
    forest.fit(frame, late).booster_.save_model(tmp_path / "m.txt")
    bound = check(read_lightgbm(tmp_path / "m.txt"), "binary", features, X)
    assert np.allclose(bound.native(X), forest.predict_proba(frame)[:, 1])
    trees = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(frame, late)
    trees.save_model(tmp_path / "m.ubj")
    bound = check(read_xgboost(tmp_path / "m.ubj"), "binary", features, X)
    assert np.allclose(bound.native(X), trees.predict_proba(frame)[:, 1])


def test_trees_with_lines_in_their_leaves_are_refused(data: Data, tmp_path: Path) -> None:
    import lightgbm

    filled = data["frame"][NUMBERS].fillna(0)
    params = {"objective": "binary", "linear_tree": True, "verbosity": -1}
    lightgbm.train(params, lightgbm.Dataset(filled, data["late"]), 2).save_model(tmp_path / "m")
    with pytest.raises(ValueError, match="leave out `linear_tree`"):
        read_lightgbm(tmp_path / "m").bind("binary", data["features"][:2], 1)


def test_names_with_blanks_are_bound_as_lightgbm_stores_them(data: Data, tmp_path: Path) -> None:
    import lightgbm

    frame = data["frame"][NUMBERS].rename(columns={"weight": "gross weight"})
    fitted = lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1).fit(frame, data["late"])
    fitted.booster_.save_model(tmp_path / "m")
    model = read_lightgbm(tmp_path / "m")
    assert model.inputs == ("gross_weight", "load")
    rows, nothing = pl.DataFrame(), Declaration.model_validate({})

    def names(*features: str) -> list[str]:
        infos = [FeatureInfo(name=name, kind="numeric", source="input") for name in features]
        return [one.name for one in bind_features(model, infos, rows, nothing, ())]

    assert names("load", "gross weight", "net weight") == ["gross weight", "load"]
    assert names("load", "gross weight", "gross_weight") == ["gross_weight", "load"]
    with pytest.raises(ImportRefused, match="unknown feature 'gross_weight'"):
        names("load", "weight")
