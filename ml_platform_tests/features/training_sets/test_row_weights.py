"""What is no weight of a row is refused, with the row."""

import polars as pl
import pytest

from ml_platform.features.training_sets.row_weights import check_weights
from ml_platform_tests.toy_world import shop_spec

SPEC = shop_spec(weight="importance")


def rows(*weights: object) -> pl.DataFrame:
    ids = [f"order-{number}" for number in range(len(weights))]
    return pl.DataFrame({"order_id": ids, "importance": weights}, strict=False)


def test_weights_are_summarised() -> None:
    summary = check_weights(rows(0, 1, 3), SPEC)
    assert summary == {"smallest": 0, "mean": pytest.approx(4 / 3), "largest": 3, "effective_rows": 1.6}
    assert check_weights(rows(1.5, 1.5), SPEC)["effective_rows"] == pytest.approx(2)
    assert check_weights(rows(1), shop_spec()) == {}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1.0, -0.5, -2.0), r"found -0\.5 in the row with order_id 'order-1' \(of 2 such rows\)"),
        ((1.0, 2.0, None), r"found None in the row with order_id 'order-2' \(of 1 such rows\)"),
        ((float("nan"), 1.0), "found nan in the row with order_id 'order-0'"),
        ((1.0, float("inf")), "found inf in the row with order_id 'order-1'"),
        ((0, 0), "all 2 rows have weight 0"),
        (("much", "little"), "wanted numbers, found String; cast it in the spine's query"),
    ],
)
def test_what_is_no_weight_is_refused(weights: tuple[object, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_weights(rows(*weights), SPEC)
