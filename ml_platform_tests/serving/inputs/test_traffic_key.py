"""The value that chooses a version: the same text as decoding gives, of bodies that decoding would refuse too."""

import json
from typing import Any

import pytest

from ml_platform.registry.manifest import Input
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.inputs.traffic_key import TrafficKey
from ml_platform.spec.input_rules import FieldType

SPELLINGS: dict[FieldType, list[str]] = {
    "string": ['"UA"', '"\\u0055A"'],
    "integer": ["7", "7.0", "7e0"],
    "number": ["7", "7.0", "0.7e1"],
    "boolean": ["true", "1"],
    "timestamp": ['"2013-07-01T12:00:00Z"', '"2013-07-01T14:00:00+02:00"', '"2013-07-01T12:00Z"'],
}


@pytest.mark.parametrize("kind", SPELLINGS)
@pytest.mark.parametrize("form", ['{{"other": 1, "key": {}}}', '{{"rows": [{{"key": {}}}, {{"key": null}}]}}'])
def test_every_spelling_of_a_value_has_the_text_of_the_decoded_value(kind: FieldType, form: str) -> None:
    field = Input(name="key", type=kind, required=False)
    decoder, key = RowDecoder((field,), others=("other",)), TrafficKey(field)
    for spelling in SPELLINGS[kind]:
        body = form.format(spelling).encode()
        assert key.of(body) == str(decoder.decode(body).values[0]["key"])


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "7", "null", '{"key": {}}', '{"key": "seven"}', '{"key": null}', '{"rows": []}', '{"rows": 3}',
     '{"rows": [3]}', '{"rows": [{}]}', '{"key": 1e999}', '{"key": 7.5}', '{"key": NaN}', "[" * 100_000, "\xff"],
)  # fmt: skip
def test_without_a_value_there_is_no_key(body: str) -> None:
    assert TrafficKey(Input(name="key", type="integer")).of(body.encode("latin-1")) is None


def test_what_else_a_body_has_does_not_matter() -> None:
    row: dict[str, Any] = {"key": "UA", "deep": [[{"key": 3}]], "big": 10**400}
    assert TrafficKey(Input(name="key", type="string")).of(json.dumps(row).encode()) == "UA"
    assert TrafficKey(Input(name="key", type="string")).of(b'{"key": "UA", "other": NaN}') == "UA"
    rows = {"rows": [row, {"key": 7}]}
    assert TrafficKey(Input(name="key", type="string")).of(json.dumps(rows).encode()) == "UA"
