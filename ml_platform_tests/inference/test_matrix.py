import math

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.matrix import (
    MAX_CATEGORIES,
    MIN_CATEGORY_ROWS,
    UNKNOWN_LABEL,
    FeatureEncoder,
    encode_labels,
    feature_columns,
    label_classes,
)
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE
from ml_platform.training.data.split import read_rows
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import START, Shops, multiclass_spec, regression_spec, shop_spec

CARRIER = FeatureInfo(name="carrier", kind="categorical", source="input")
WEIGHT = FeatureInfo(name="weight", kind="numeric", source="input")


def test_offline_matrix_is_the_online_one(trained_shops: tuple[Shops, TrainedModel]) -> None:
    """Every training row, encoded by Polars and row by row as a request would be: bit for bit the same."""
    shops, trained = trained_shops
    scorer = Scorer.load(shops.store.bundle_path(trained.digest))
    rows = read_rows(shops.lake, shops.spec, trained.training_set)
    offline = FeatureEncoder(scorer.manifest.features).transform(rows)
    inputs = [field.name for field in scorer.manifest.inputs]
    looked_up = [name for lookup in scorer.manifest.lookups for name in lookup.features]
    online = scorer.encode(
        {**request, **scorer.derive(request), **found}
        for request, found in zip(rows.select(inputs).to_dicts(), rows.select(looked_up).to_dicts(), strict=True)
    )
    assert rows.height > 3000
    assert np.isnan(offline).any()
    np.testing.assert_array_equal(offline, online)


def test_categories_are_ordered_by_target_and_rare_ones_are_unseen() -> None:
    names = ["low"] * 50 + ["high"] * 50 + ["mid"] * 50 + ["rare"] * (MIN_CATEGORY_ROWS - 1)
    target = np.array([0.0] * 50 + [1.0] * 50 + [0.0, 1.0] * 25 + [1.0] * (MIN_CATEGORY_ROWS - 1))
    encoder = FeatureEncoder.fit(pl.DataFrame({"carrier": names}), [CARRIER], target)
    assert encoder.features[0].categories == ("low", "mid", "high")
    codes = encoder.transform(pl.DataFrame({"carrier": ["mid", "rare", "new", None, ""]})).ravel()
    assert codes.tolist() == [1.0, UNSEEN_CODE, UNSEEN_CODE, MISSING_CODE, UNSEEN_CODE]


def test_number_of_categories_is_bounded() -> None:
    names = [f"c{i:04}" for i in range(MAX_CATEGORIES + 40) for _ in range(MIN_CATEGORY_ROWS)]
    encoder = FeatureEncoder.fit(pl.DataFrame({"carrier": names}), [CARRIER], None)
    assert len(encoder.features[0].categories or ()) == MAX_CATEGORIES


def test_column_of_nulls_and_numbers_of_any_type() -> None:
    nulls = pl.DataFrame(
        {"carrier": [None, None], "weight": [None, 3]}, schema={"carrier": pl.String, "weight": pl.Int8}
    )
    encoder = FeatureEncoder.fit(nulls, [CARRIER, WEIGHT], np.array([0.0, 1.0]))
    assert encoder.features[0].categories == ()
    matrix = encoder.transform(nulls)
    assert matrix[:, 0].tolist() == [MISSING_CODE, MISSING_CODE]
    assert math.isnan(matrix[0, 1])
    assert encoder.transform(nulls.with_columns(weight=pl.lit(True)))[:, 1].tolist() == [1.0, 1.0]
    assert matrix.flags["C_CONTIGUOUS"]
    assert matrix.dtype == np.float64


def test_wrong_columns_are_named() -> None:
    encoder = FeatureEncoder.fit(pl.DataFrame({"weight": [1.0]}), [WEIGHT], None)
    with pytest.raises(ValueError, match=r"missing from the rows: \['weight'\]"):
        encoder.transform(pl.DataFrame({"other": [1]}))
    with pytest.raises(ValueError, match="'weight': wanted a number or boolean, found String"):
        encoder.transform(pl.DataFrame({"weight": ["1"]}))
    with pytest.raises(ValueError, match="'carrier': wanted strings, found Int64"):
        FeatureEncoder.fit(pl.DataFrame({"carrier": [1]}), [CARRIER], None).transform(pl.DataFrame({"carrier": [1]}))


def test_scored_rows_keep_features_flat() -> None:
    rows = pl.DataFrame({"carrier": ["UA"], "weight": [True], "other": [1]})
    encoder = FeatureEncoder.fit(rows, [CARRIER, WEIGHT], None)
    assert feature_columns(rows, encoder.features).schema == {"carrier": pl.String, "weight": pl.Float64}


def test_labels_become_numbers() -> None:
    assert encode_labels(pl.Series([True, False]), shop_spec()).tolist() == [1.0, 0.0]
    assert encode_labels(pl.Series([1, 0]), shop_spec()).tolist() == [1.0, 0.0]
    assert encode_labels(pl.Series([1.5, -2.0]), regression_spec()).tolist() == [1.5, -2.0]
    outcomes = pl.Series(["late", "early", "late"])
    assert label_classes(outcomes) == ("early", "late")
    assert encode_labels(outcomes, multiclass_spec(), ("early", "late")).tolist() == [1.0, 0.0, 1.0]


def test_a_class_that_the_model_does_not_know_is_told_apart() -> None:
    found = encode_labels(pl.Series(["late", "lost", "early"]), multiclass_spec(), ("early", "late"))
    assert found.tolist() == [1.0, UNKNOWN_LABEL, 0.0]


def test_integer_classes_stay_integers_however_they_are_stored() -> None:
    for labels in (pl.Series([10, 9]), pl.Series([10.0, 9.0, None]), pl.Series(["10.00", "9"]).cast(pl.Decimal(6, 2))):
        classes = label_classes(labels)
        assert classes == (9, 10)
        assert all(isinstance(name, int) for name in classes)
        assert encode_labels(labels.drop_nulls(), multiclass_spec(), classes).tolist() == [1.0, 0.0]
    assert encode_labels(pl.Series([10, 9]), multiclass_spec(), ("10", "9")).tolist() == [0.0, 1.0]  # of an old version


@pytest.mark.parametrize(
    "words", [("yes", "NO"), ("True", "false"), ("Y", "n"), ("t", "F"), ("1", "0"), (" yes ", "no"), ("yes", "yes")]
)
def test_words_of_one_pair_are_labels(words: tuple[str, str]) -> None:
    for labels in (pl.Series(words), pl.Series(words, dtype=pl.Categorical)):
        assert encode_labels(labels, shop_spec()).tolist() == [1.0, float(words[1] == "yes")]


@pytest.mark.parametrize(
    ("labels", "spec", "said"),
    [
        (
            pl.Series(["yes", "maybe"]),
            shop_spec(),
            r"words of one pair \(yes/no, .*found 'maybe' .1 row., 'yes' .1 row.; say in the",
        ),
        (pl.Series(["yes", "false"]), shop_spec(), "words of one pair"),
        (pl.Series(["yes", "1"]), shop_spec(), "words of one pair"),
        (pl.Series(["yes", ""]), shop_spec(), "words of one pair"),
        (pl.Series([START]), shop_spec(), "a binary task wants true/false or 0/1, found .*1 row.* of type Datetime"),
        (
            pl.Series(["1.5", "ten"]),
            regression_spec(),
            "a regression task wants numbers, found '1.5' .* of type String",
        ),
        (pl.Series([1.5, 2.0]), multiclass_spec(), "classes of a multiclass task are texts, whole .*found 1.5"),
        (pl.Series([True, None]), shop_spec(), "1 labels are null"),
        (pl.Series([0, 2]), shop_spec(), r"wants true/false or 0/1, found 0 \(1 row\), 2 \(1 row\); .* \(late = 2\)"),
        (pl.Series([1, 2, 2]), shop_spec(), r"found 2 \(2 rows\), 1 \(1 row\); .* what is true \(late = 2\)"),
        (pl.Series([-1.0, 1.0]), shop_spec(), r"found -1.0 \(1 row\), 1.0 \(1 row\)"),
        (pl.Series([1.0, float("nan")]), shop_spec(), r"wants true/false or 0/1, found 1.0 \(1 row\), nan \(1 row\)"),
        (pl.Series(range(9)), shop_spec(), r"4 \(1 row\) and 4 other values; .* \(late = …\)"),
        (
            pl.Series(["stays", "leaves", "stays"]),
            shop_spec(),
            r"found 'stays' \(2 rows\), 'leaves' .*\(late = 'stays'\)",
        ),
        (pl.Series([1.0, float("inf")]), regression_spec(), r"finite numbers, found inf \(1 row\) among 2 rows"),
        (pl.Series([1.0, float("nan")]), regression_spec(), r"finite numbers, found nan \(1 row\)"),
        (pl.Series([1.0, float("nan")]), multiclass_spec(), r"classes .* found nan \(1 row\)"),
        (pl.Series([START]), multiclass_spec(), "wants texts, whole numbers or booleans, found .* of type Datetime"),
        (pl.Series([[1], [2]]), multiclass_spec(), r"found 2 values of type List"),
    ],
)
def test_impossible_labels_are_refused(labels, spec, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encode_labels(labels, spec, ("early", "late"))
