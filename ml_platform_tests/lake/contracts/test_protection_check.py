"""Row filters and masks are refused where they are declared: each mistake with its key and what was wanted."""

import polars as pl
import pytest

from ml_platform.lake.contracts.protection_check import check_protection, for_principal
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.spec.protection import Protection

COLUMNS: dict[str, pl.DataType | None] = {
    "a": pl.String(), "n": pl.Int64(), "f": pl.Float64(), "t": pl.Datetime("us", "UTC"), "d": pl.Date(), "e": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"row_filter": "n >"}, "row_filter: 'n >' is no SQL expression"),
        ({"row_filter": "n) or (1=1"}, "is no SQL expression"),
        ({"row_filter": "true; DROP TABLE x"}, "is no SQL expression"),
        ({"row_filter": "n"}, "wanted a condition, found n, which is BIGINT"),
        ({"row_filter": "zz = 1"}, "does not fit the table"),
        ({"row_filter": "n in (SELECT 1)"}, "more than one expression"),
        ({"row_filter": "n in (SELECT n FROM raw.x)"}, "row_filter"),
        ({"row_filter": "sum(n) > 1"}, "does not fit the table"),
        ({"row_filter": "sum(n) OVER () > 1"}, "looks at other rows"),
        ({"row_filter": "unnest([true, false])"}, "does not fit the table"),
        ({"row_filter": "getenv('HOME') = ''"}, "may use the row's own columns only"),
        ({"row_filter": "read_text('/etc/passwd') = ''"}, "may use the row's own columns only"),
        ({"masks": {"n": "n::VARCHAR"}}, "masks.n: the mask n::VARCHAR is VARCHAR, the column BIGINT"),
        ({"masks": {"n": "1.5"}}, "the column BIGINT"),
        ({"masks": {"x": "NULL"}}, "masks.x: the table has no such column"),
        ({"tags": {"x": ["pii"]}}, "tags.x: the table has no such column"),
        ({"masks": {"n": "1", "N": "2"}}, "two masks"),
        ({"masks": {"n": {"sql": "1", "exempt": ["analysts"]}}}, "group:<name>, found 'analysts'"),
    ],
)
def test_what_cannot_be_applied_is_refused(declared: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        check_protection(Protection.model_validate(declared), COLUMNS)


@pytest.mark.parametrize(
    "declared",
    [
        {"row_filter": "n > 3 AND a = current_principal() OR is_member('x')"},
        {"row_filter": "e = 1 AND t > now()"},
        {
            "masks": {
                "n": "NULL",
                "a": "sha256(a)",
                "f": "round(f)",
                "t": "date_trunc('year', t)",
                "d": "DATE '2000-01-01'",
            }
        },
        {"masks": {"f": "0", "e": "'x'", "n": "-1"}},
    ],
)
def test_what_fits_is_taken(declared: dict[str, object]) -> None:
    check_protection(Protection.model_validate(declared), COLUMNS)


def test_a_principal_is_written_as_a_text_whatever_its_name() -> None:
    assert for_principal("a = current_principal ( )", "user:o'hara", []) == "a = 'user:o''hara'"
    assert for_principal("is_member('it''s') or is_member('group:x')", "user:a", ["it's", "x"]) == "TRUE or TRUE"


def test_a_contract_refuses_a_mask_of_another_type_when_it_loads() -> None:
    declared = {
        "name": "raw/people", "description": "…", "owner": "team:x", "file": {"path": "x.csv"},
        "columns": {"age": {"type": "integer", "tags": ["pii"]}}, "masks": {"age": "'old'"},
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"masks\.age: the mask 'old' is VARCHAR, the column BIGINT"):
        SourceSpec.model_validate(declared)
    spec = SourceSpec.model_validate({**declared, "masks": {"age": "age // 10 * 10"}})
    assert spec.protection.tags == {"age": ("pii",)}
