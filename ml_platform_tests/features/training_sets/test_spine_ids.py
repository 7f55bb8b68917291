"""An id is there, unique, and the same text in batch scores, labels and a request's answer."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ml_platform.features.training_sets.build import spine_labels
from ml_platform.features.training_sets.spine import read_spine
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.toy_world import shop_spec

AT = datetime(2024, 1, 1, tzinfo=UTC)
NUMBERED = [
    {"name": "order_id", "type": "integer", "required": False, "feature": False},
    {"name": "weight", "type": "number"},
    {"name": "ordered_at", "type": "timestamp", "feature": False},
]


def ids_of(lake: Lake, folder: Path, sql: str, **changes) -> pl.Series:
    """Read the ids that some SQL makes of n = 1, 2, null."""
    lake.append("raw/orders", pl.DataFrame({"n": [1, 2, None], "known_at": [AT] * 3}))
    (folder / "late.sql").write_text(f"SELECT {sql} AS order_id, known_at, true AS late FROM raw.orders")
    spec = shop_spec(**({"inputs": shop_spec().inputs[1:]} | changes))
    return read_spine(lake, spec, folder, ["order_id"])["order_id"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "n",
            r"'order_late': late\.sql gives 1 of 3 rows without an id \('order_id' is null\).* order_id IS NOT NULL\)",
        ),
        ("NULL", "gives 3 of 3 rows without an id"),
        ("CASE n WHEN 1 THEN 'a' END", "gives 2 of 3 rows without an id"),
        ("coalesce(n, 2)", r"gives 1 rows with the id of another row, e\.g\. 2; .*QUALIFY"),
        ("coalesce(n, 2)::DOUBLE", r"gives 1 rows with the id of another row, e\.g\. 2;"),
        ("coalesce(n, 3) / 2", r"one spelling; found 2 of 3 ids that are Float64, e\.g\. 0\.5; .*AS VARCHAR"),
        ("coalesce(n, 3)::DECIMAL(4, 1) / 10", r"e\.g\. 0\.1"),
        ("coalesce(n, 3) + 1e300", r"found 3 of 3 ids that are Float64, e\.g\. 1e\+300"),
        ("'nan'::DOUBLE", "found 3 of 3 ids that are Float64, e.g. nan"),
        ("n > 1", "found 2 of 3 ids that are Boolean"),
        ("known_at", r"found 3 of 3 ids that are Datetime.*, e\.g\. 2024-01-01"),
        ("[n]", "found 3 of 3 ids that are List"),
        ("'a'::BLOB", "found 3 of 3 ids that are Binary"),
    ],
)
def test_an_id_that_is_none_is_refused_with_counts(lake: Lake, tmp_path: Path, sql: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ids_of(lake, tmp_path, sql)


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("coalesce(n, 3)", [1, 2, 3]),
        ("coalesce(n, 3)::DOUBLE", [1, 2, 3]),
        ("coalesce(n, 3)::DECIMAL(20, 2)", [1, 2, 3]),
        ("coalesce(n, 3)::HUGEINT", [1, 2, 3]),
        ("'o' || coalesce(n, 3)", ["o1", "o2", "o3"]),
        ("DATE '2024-01-01' + coalesce(n, 3)::INT", ["2024-01-02", "2024-01-03", "2024-01-04"]),
    ],
)
def test_an_id_has_one_spelling(lake: Lake, tmp_path: Path, sql: str, read: list) -> None:
    assert ids_of(lake, tmp_path, sql).cast(pl.String).to_list() == [str(one) for one in read]


def test_an_id_that_is_an_input_has_its_declared_type(lake: Lake, tmp_path: Path) -> None:
    assert ids_of(lake, tmp_path, "coalesce(n, 3)::DOUBLE", inputs=NUMBERED).to_list() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"the id: column 'order_id' is declared as integer, .* e\.g\. 0\.5; write it"):
        ids_of(lake, tmp_path, "coalesce(n, 3) / 2", inputs=NUMBERED)
    with pytest.raises(ValueError, match="the id: column 'order_id' is declared as string, its values are Float64"):
        ids_of(lake, tmp_path, "coalesce(n, 3)::DOUBLE", inputs=shop_spec().inputs)


def test_labels_have_the_ids_of_a_request_and_none_without(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without an id"):
        ids_of(lake, tmp_path, "n::DOUBLE", inputs=NUMBERED)
    labels = spine_labels(lake, shop_spec(inputs=NUMBERED), tmp_path).collect()
    assert labels["order_id"].cast(pl.String).to_list() == ["1", "2"], "as serving's log has them, not 1.0 and 2.0"
