"""Rows of MLflow's JSON formats and of CSV, without a server: each conversion and each refusal."""

import json
from typing import Any

import pytest

from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.inputs.tabular_formats import body_of, rows_of_csv, rows_of_json

FIELDS = [
    Input(name="n", type="integer"),
    Input(name="x", type="number"),
    Input(name="ok", type="boolean"),
    Input(name="at", type="timestamp"),
]
FULL = [1, 2.5, True, "2026-01-02"]


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def problem(refused: pytest.ExceptionInfo[InvalidRequest]) -> tuple[int | None, str | None, str]:
    [one] = refused.value.problems
    return one.row, one.field, one.message


@pytest.mark.parametrize(
    "given",
    [
        {"dataframe_split": {"columns": ["n", "x", "ok", "at"], "data": [FULL]}},
        {"dataframe_split": {"columns": ["at", "n", "x", "ok"], "data": [[FULL[3], *FULL[:3]]], "index": [7]}},
        {"dataframe_records": [dict(zip(["n", "x", "ok", "at"], FULL, strict=True))]},
        {"instances": [FULL]},
        {"instances": [{"n": 1, "x": 2.5, "ok": True, "at": "2026-01-02"}]},
        {"inputs": {"n": [1], "x": [2.5], "ok": [True], "at": ["2026-01-02"]}},
        {"inputs": {"n": 1, "x": 2.5, "ok": True, "at": "2026-01-02"}},
        {"inputs": [FULL]},
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_every_format_gives_the_same_rows(given: dict[str, Any], strict: bool) -> None:
    assert rows_of_json(body(**given), FIELDS, strict=strict) == [{"n": 1, "x": 2.5, "ok": True, "at": "2026-01-02"}]


def test_nan_is_null() -> None:
    assert rows_of_json(b'{"inputs": {"x": [NaN, 1.0]}}', FIELDS) == [{"x": None}, {"x": 1.0}]


def test_what_mlflow_ignores_is_refused_when_strict() -> None:
    extra = body(dataframe_records=[{"n": 1, "other": 2}], params={"a": 1}, unknown=3)
    assert rows_of_json(extra, FIELDS) == [{"n": 1}]
    with pytest.raises(InvalidRequest) as refused:
        rows_of_json(extra, FIELDS, strict=True)
    assert problem(refused) == (
        None,
        "params",
        "the only parameter that models here take is `interval`: leave others out",
    )
    with pytest.raises(InvalidRequest) as refused:
        rows_of_json(body(instances=[FULL], unknown=3), FIELDS, strict=True)
    assert problem(refused)[2].endswith("and nothing else, found unknown")
    own = body(dataframe_records=[{"n": 1, "other": 2}], params={}, client_request_id="a", usage_context={})
    assert rows_of_json(own, FIELDS, strict=True) == [{"n": 1, "other": 2}], "the columns are refused with the rows"


@pytest.mark.parametrize(
    ("given", "place", "message"),
    [
        ([1], (None, None), "wanted an object with one of dataframe_split, dataframe_records, instances, inputs"),
        ({}, (None, None), "found nothing"),
        ({"rows": []}, (None, None), "found rows"),
        ({"inputs": [], "instances": []}, (None, None), "found inputs, instances"),
        ({"dataframe_split": []}, (None, "dataframe_split"), "wanted an object with columns and data"),
        ({"dataframe_split": {"columns": []}}, (None, "dataframe_split"), "wanted an object with columns and data"),
        ({"dataframe_split": {"columns": [1], "data": []}}, (None, "columns"), "wanted an array of names"),
        ({"dataframe_split": {"columns": ["n", "n"], "data": []}}, (None, "columns"), "'n' appears twice"),
        ({"dataframe_split": {"columns": ["n"], "data": {}}}, (None, "data"), "wanted an array of rows"),
        ({"dataframe_split": {"columns": ["n"], "data": [[1], [1, 2]]}}, (1, None), "wanted 1 values, one for each"),
        ({"dataframe_split": {"columns": ["n"], "data": [3]}}, (0, None), "found no array"),
        ({"dataframe_records": {}}, (None, "dataframe_records"), "wanted an array of rows"),
        ({"instances": "x"}, (None, "instances"), "wanted an array of rows"),
        ({"instances": [FULL, [1]]}, (1, None), "wanted 4 values (n, x, ok, at) or an object, found 1 values"),
        ({"inputs": {"n": [1, 2], "x": [1]}}, (None, "inputs"), "wanted columns of one length, found n 2, x 1"),
        ({"inputs": [[1]] * (MAX_ROWS + 1)}, (None, "rows"), f"wanted at most {MAX_ROWS:,} rows"),
        ({"inputs": {"n": [1] * (MAX_ROWS + 1)}}, (None, "rows"), f"found {MAX_ROWS + 1:,}"),
    ],
)
def test_a_body_in_no_format_is_refused_with_its_place(given: Any, place: tuple[Any, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rows_of_json(json.dumps(given).encode(), FIELDS)
    row, field, found = problem(refused)
    assert ((row, field), refused.value.status) == (place, 422)
    assert message in found


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("1", {"n": 1}),
        ("+12", {"n": 12}),
        ("1.0", {"n": 1.0}),
        ("1_000", {"n": "1_000"}),
        ("one", {"n": "one"}),
        ("", {"n": None}),
    ],
)
def test_integers_of_csv(text: str, row: dict[str, Any]) -> None:
    assert rows_of_csv(f"n,ok\n{text},\n".encode(), FIELDS) == [{**row, "ok": None}]


@pytest.mark.parametrize(("text", "value"), [("1e3", 1000.0), ("inf", "inf"), ("-Infinity", "-Infinity"), ("é", "é")])
def test_numbers_of_csv(text: str, value: Any) -> None:
    assert rows_of_csv(f"x,n\n{text},1\n".encode(), FIELDS) == [{"x": value, "n": 1}]


def test_booleans_byte_order_mark_empty_lines_and_foreign_columns_of_csv() -> None:
    text = '\ufeffok,note\r\nTrue,"a, b"\r\n\r\nFALSE,x\r\nperhaps,y\r\n'.encode()
    assert rows_of_csv(text, FIELDS) == [{"ok": True}, {"ok": False}, {"ok": "perhaps"}]
    assert rows_of_csv(text, FIELDS, strict=True)[0] == {"ok": True, "note": "a, b"}


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b"", 400, "the body is empty: wanted a header and rows"),
        (b"\xff\xfe", 400, "the body is not UTF-8 at byte 0"),
        (b'n\n"1"2\n', 400, "the body is not CSV"),
        (b"n,n\n1,2\n", 422, "'n' appears twice"),
        (b"n,x\n1\n", 422, "wanted 2 values, one for each column, found 1 values"),
        (b",n\n0,1\n", 422, "a column has no name: if it is the index of pandas"),
        (b"n\n" + b"1\n" * (MAX_ROWS + 1), 422, f"wanted at most {MAX_ROWS:,} rows"),
    ],
)
def test_bad_csv_is_refused(text: bytes, status: int, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rows_of_csv(text, FIELDS, strict=True)
    assert refused.value.status == status
    assert message in problem(refused)[2]


def test_rows_become_a_body_of_our_own_route() -> None:
    rows = [
        {"at": "2026-01-02", "n": 3.0, "x": 3.0},
        {"at": "2026-01-02T03:04", "n": 3.5},
        {"at": "2026-01-02T03:04+01:00", "n": "3.0"},
        {"at": 5, "n": None},
        "no row",
    ]
    assert json.loads(body_of(rows, FIELDS)) == {
        "rows": [
            {"at": "2026-01-02T00:00Z", "n": 3, "x": 3.0},
            {"at": "2026-01-02T03:04Z", "n": 3.5},
            {"at": "2026-01-02T03:04+01:00", "n": "3.0"},
            {"at": 5, "n": None},
            "no row",
        ]
    }


def test_a_row_that_is_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidRequest, match="nested"):
        body_of([{"n": value}], FIELDS)
    while value:  # so that freeing it does not recurse
        value = value.pop()
