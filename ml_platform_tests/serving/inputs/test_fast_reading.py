"""Ordinary requests are read the fast way: the slow one, which explains what is wrong, costs fifty times as much."""

import json
from typing import Any

import pytest

from ml_platform.json_keys import key_marks
from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.inputs import request_decoder, validation_errors
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.inputs.tabular_formats import body_of, rows_of_json

INPUTS = (
    Input(name="at", type="timestamp"),
    Input(name="weight", type="number"),
    Input(name="city", type="string"),
)
ORDINARY: dict[str, dict[str, Any]] = {
    "two digits and many decimals": {"at": "2013-07-01T12:00:00Z", "weight": 14.182973285089745, "city": "Ulm"},
    "an escaped text": {"at": "2013-07-01T12:00:00+02:00", "weight": 1.5, "city": "Zürich"},
    "microseconds": {"at": "2013-07-01T12:00:00.123456Z", "weight": -0.1, "city": "12:00:14"},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_values_are_read_the_fast_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        pytest.fail("the slow way was taken")

    monkeypatch.setattr(request_decoder, "find_problems", slow)
    decoder, row = RowDecoder(INPUTS), ORDINARY[name]
    (value,) = decoder.decode(json.dumps(row).encode()).values
    assert (value["weight"], value["city"]) == (row["weight"], row["city"])
    columns = decoder.decode_columns(json.dumps({"rows": [row] * 30}).encode())
    assert columns.objects("weight") == [row["weight"]] * 30


@pytest.mark.parametrize("indent", [None, 2])
def test_times_in_a_foreign_format_are_not_taken_for_repeated_keys(
    indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_errors, "_refuse_twice", lambda _: pytest.fail("the slow way was taken"))
    rows = list(ORDINARY.values())
    split = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    body = json.dumps({"dataframe_split": split}, indent=indent).encode()
    assert rows_of_json(body, INPUTS) == rows


@pytest.mark.parametrize("space", ["", " ", "\n", " \t\r\n"])
def test_a_key_that_appears_twice_is_refused_however_it_is_written(space: str) -> None:
    text = '{"inputs": {"weight"_: [1.0], "city": ["a"], "weight"_:_ [2.0]}}'.replace("_", space)
    with pytest.raises(InvalidRequest, match="weight: appears twice"):
        rows_of_json(text.encode(), INPUTS)


def test_a_text_like_a_key_is_a_text() -> None:
    row = {"at": "2013-07-01T12:00:00Z", "weight": 1.0, "city": 'a "quoted": text'}
    rows = rows_of_json(json.dumps({"dataframe_records": [row]}).encode(), INPUTS)
    assert rows == [row]
    (value,) = RowDecoder(INPUTS).decode(body_of(rows, INPUTS)).values
    assert value["city"] == row["city"]


@pytest.mark.parametrize("repeat", [1, 2, 3, 999, 1000, 1001])
def test_marks_are_counted_alike_in_short_and_long_texts(repeat: int) -> None:
    text = b",".join([b'"k":1'] * repeat)
    assert key_marks(text) == key_marks(b"x" + text) == repeat
