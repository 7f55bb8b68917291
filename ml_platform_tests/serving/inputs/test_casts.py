"""What a request may send is what a spine may give: both take the same values, with the same result."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_platform.features.training_sets.spine_values import typed_inputs
from ml_platform.lake.contracts.contract import apply_contract
from ml_platform.lake.contracts.conversion import typed
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import ingest
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.inputs.tabular_formats import body_of, rows_of_csv

REFUSED = "refused"
TYPES = ("string", "integer", "number", "boolean", "timestamp")
values = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.integers(-(2**65), 2**65),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**53), 2**53).map(float),
    st.sampled_from([3.0, 3.7, -0.0, 1e20, 2.0**63]),
)


def requested(value: Any, kind: Any) -> Any:
    decoder = RowDecoder((Input(name="x", type=kind, required=False),))
    body = json.dumps({"x": value}).encode()
    try:
        (row,) = decoder.decode(body).values
        (many,) = decoder.decode(b'{"rows": [' + body + b"]}").values
        assert decoder.decode_columns(b'{"rows": [' + body + b"]}").objects("x") == [row["x"]]
    except InvalidRequest:
        return REFUSED
    assert row == many
    return row["x"]


def trained(value: Any, kind: Any) -> Any:
    dtype = pl.Int128 if isinstance(value, int) and not isinstance(value, bool) else None
    rows = pl.DataFrame({"id": ["a"], "x": pl.Series([value], dtype=dtype)})
    field = Input(name="x", type=kind, required=False)
    try:
        return typed_inputs(rows, [field], {}, id_column="id", where="a spine")["x"][0]
    except ValueError:
        return REFUSED


def check(value: Any, kind: str) -> None:
    online, offline = requested(value, kind), trained(value, kind)
    if isinstance(online, float) and isinstance(value, int) and int(online) != value:
        assert offline is REFUSED  # 2^63 as JavaScript writes it, 9223372036854776000: a table has no such integer
    elif online is not REFUSED:
        assert (offline, type(offline)) == (online, type(online))
    elif offline is not REFUSED and value is not None:  # the table stores it otherwise than JSON: 5 for "5"
        as_request = requested(offline, kind)
        assert (as_request, type(as_request)) == (offline, type(offline))


@settings(derandomize=True, deadline=None, max_examples=250)
@given(values, st.sampled_from(TYPES))
@example(3.0, "integer")
@example(2**53 + 1, "number")
@example(9223372036854776000, "number")
def test_a_request_and_a_spine_take_the_same_values(value: Any, kind: str) -> None:
    check(value, kind)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=20_000)
@given(values, st.sampled_from(TYPES))
def test_no_value_is_taken_on_one_side_only(value: Any, kind: str) -> None:
    check(value, kind)


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"x": 3.0}', "integer", 3),
        (b'{"x": 1e3}', "integer", 1000),
        (b'{"x": 3.7}', "integer", REFUSED),
        (b'{"x": 9223372036854775808}', "integer", REFUSED),
        (b'{"x": 9007199254740993}', "number", REFUSED),
        (b'{"x": 9223372036854776000}', "number", 2.0**63),
        (b'{"x": 100000000000000000000}', "number", 1e20),
        (b'{"x": 1e300}', "number", 1e300),
        (b'{"x": 1}', "boolean", True),
        (b'{"x": 0.0}', "boolean", False),
        (b'{"x": 2}', "boolean", REFUSED),
        (b'{"x": "true"}', "boolean", REFUSED),
        (b'{"x": 12345}', "string", REFUSED),
    ],
)
def test_numbers_as_clients_write_them(body: bytes, kind: Any, value: Any) -> None:
    decoder = RowDecoder((Input(name="x", type=kind),))
    if value is REFUSED:
        with pytest.raises(InvalidRequest, match="x: wanted"):
            decoder.decode(body)
    else:
        (row,) = decoder.decode(body).values
        assert (row["x"], type(row["x"])) == (value, type(value))


def ingested(value: Any) -> Any:
    frame = pl.DataFrame({"x": [value, None]})
    contract = type("Flags", (dy.Schema,), {"x": dy.Bool(nullable=True)})
    try:
        accepted = apply_contract(frame, contract, where="flags").accepted
    except SchemaMismatch:
        return REFUSED
    return accepted["x"][0] if accepted.height == 2 else REFUSED


def appended(value: Any, lake: Lake) -> Any:
    lake.replace("raw/flags", pl.DataFrame({"x": [None]}, schema={"x": pl.Boolean}))
    try:
        lake.append("raw/flags", pl.DataFrame({"x": [value]}))
    except SchemaMismatch:
        return REFUSED
    return lake.read("raw/flags").filter(pl.col("x").is_not_null()).collect().item()


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *((value, True) for value in (True, 1, 1.0)),
        *((value, False) for value in (False, 0, 0.0, -0.0)),
        *((value, REFUSED) for value in (2, -1, 0.25, 1e300)),
    ],
)
def test_one_and_zero_are_booleans_on_every_way(value: Any, flag: Any, tmp_path: Path) -> None:
    found = [
        requested(value, "boolean"),
        trained(value, "boolean"),
        ingested(value),
        appended(value, Lake(str(tmp_path))),
    ]
    assert [(one, type(one)) for one in found] == [(flag, type(flag))] * 4


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        *((text, True) for text in ("true", "True", "TRUE", "1", "1.0")),
        *((text, False) for text in ("false", "False", "0", "0.0")),
        *((text, REFUSED) for text in ("yes", "t", "2", "on", "wahr", "0.25")),
    ],
)
def test_texts_are_booleans_where_only_texts_can_be_sent(text: str, flag: Any, tmp_path: Path) -> None:
    assert ingested(text) is flag or ingested(text) == flag
    field = Input(name="x", type="boolean", required=False)
    body = body_of(rows_of_csv(f"x\n{text}\n".encode(), [field]), [field])
    if flag is REFUSED:
        with pytest.raises(InvalidRequest, match="x: wanted true or false"):
            RowDecoder((field,)).decode(body)
    else:
        assert RowDecoder((field,)).decode(body).values == [{"x": flag}]
    for way in (requested(text, "boolean"), trained(text, "boolean"), appended(text, Lake(str(tmp_path)))):
        assert way == REFUSED  # they have booleans of their own


def test_a_contract_of_numbers_does_not_write_into_booleans(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.replace("raw/flags", pl.DataFrame({"x": [True]}))
    contract = type("Numbers", (dy.Schema,), {"x": dy.Int64()})
    with pytest.raises(SchemaMismatch, match=r"column 'x': wanted Boolean, found Int64.*A type cannot change in place"):
        ingest(lake, "raw/flags", contract, pl.DataFrame({"x": ["1"]}), source="x.csv")


@pytest.mark.parametrize(
    ("fraction", "microseconds"),
    [
        (".123456", 123_456),
        (".1234560", 123_456),
        (".0000000", 0),
        (".1234567", REFUSED),
        (".0000001", REFUSED),
        (".9999996", REFUSED),
        (".123456789", REFUSED),
        (".000000\\u0037", REFUSED),
        ("\\u002e1234567", REFUSED),
    ],
)
def test_an_instant_keeps_its_microseconds_and_has_no_more(fraction: str, microseconds: Any) -> None:
    text = f"2013-07-01T12:00:00{fraction}Z"
    decoder = RowDecoder((Input(name="x", type="timestamp"), Input(name="note", type="string")))
    body = b'{"x": "%s", "note": "at 12:00:00.1234567"}' % text.encode()  # the note may say what it likes
    rows = b'{"rows": [' + b",".join([body] * 2) + b"]}"
    ingested = pl.DataFrame({"x": [json.loads(f'"{text}"')]}).select(
        typed("x", pl.String(), pl.Datetime("us", "UTC"), {})
    )
    if microseconds is REFUSED:
        for ask in (lambda: decoder.decode(body), lambda: decoder.decode(rows), lambda: decoder.decode_columns(rows)):
            with pytest.raises(InvalidRequest, match=r"x: wanted a timestamp .* at most six decimals") as refused:
                ask()
            assert refused.value.status == 422
        assert ingested["x"].to_list() == [None]
    else:
        instant = datetime(2013, 7, 1, 12, 0, 0, microseconds, UTC)
        (row,) = decoder.decode(body).values
        assert decoder.decode_columns(rows).objects("x") == [row["x"]] * 2 == [instant] * 2
        assert ingested["x"].to_list() == [instant]
