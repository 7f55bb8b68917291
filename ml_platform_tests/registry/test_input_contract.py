"""A value is judged alike in one row, in a column and by the decoder that refuses it."""

from itertools import product
from typing import Any

import msgspec
import pytest

from ml_platform.registry.input_contract import Contract, wanted_of
from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.spec.input_rules import RULES

VALUES: dict[str, tuple[Any, ...]] = {
    "string": (None, "EWR", "JFK", "ewr", ""),
    "integer": (None, -1, 0, 3, 10, 11),
    "number": (None, -0.5, 0.0, 2.5, 10.0, 10.5),
    "boolean": (None, True, False),
    "timestamp": (None, "2013-07-01T12:00:00Z"),
}
DECLARED: dict[str, tuple[dict[str, Any], ...]] = {
    "string": ({}, {"allowed": ("EWR", "JFK")}, {"pattern": "[A-Z]{3}"}),
    "integer": ({}, {"allowed": (0, 3)}, {"minimum": 0, "maximum": 10}, {"maximum": 10.5}),
    "number": ({}, {"minimum": 0, "maximum": 10}, {"minimum": 0.5}),
    "boolean": ({},),
    "timestamp": ({},),
}
BROKEN = tuple(rule.kind for rule in RULES)
FLAGGED = ((), ("null",), BROKEN, ("null", *BROKEN))
FIELDS = [
    Input(name="x", type=kind, required=required and "null" not in flagged, flagged=flagged, **rule)  # type: ignore[arg-type]
    for kind, rules in DECLARED.items()
    for rule, required, flagged in product(rules, (True, False), FLAGGED)
]


def is_refused(field: Input, value: Any) -> bool:
    try:
        RowDecoder([field]).decode(msgspec.json.encode({"x": value}))
    except InvalidRequest:
        return True
    return False


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.type}-{wanted_of(field)}-{field.flagged}")
def test_decoder_row_and_column_judge_alike(field: Input) -> None:
    values = VALUES[field.type]
    refusing, flagging = Contract.refusing([field]), Contract.flagging([field])
    for value in values:
        assert is_refused(field, value) == bool(refusing.check_row({"x": value})), value
    for contract in (refusing, flagging):
        if contract is None or not contract.fields:
            continue
        alone = [found for number, value in enumerate(values) for found in contract.check_row({"x": value}, number)]
        assert contract.check_columns({"x": list(values)}) == alone
    if flagging is not None:
        kinds = {found.kind for found in flagging.check_columns({"x": list(values)})}
        assert kinds <= set(field.flagged)


def test_what_is_found_names_row_field_kind_and_what_was_meant() -> None:
    contract = Contract.flagging(
        [
            Input(name="origin", type="string", allowed=("EWR", "JFK"), flagged=("allowed",)),
            Input(name="miles", type="number", minimum=0, flagged=("range",)),
        ]
    )
    assert contract is not None
    found = contract.check_columns({"origin": ["EWR", "EWK", "JFK"], "miles": [1.0, 2.0, -3.0]})
    assert [(one.row, one.field, one.kind) for one in found] == [(1, "origin", "allowed"), (2, "miles", "range")]
    assert found[0].message == 'wanted one of "EWR", "JFK", found "EWK"; did you mean "EWR"?'
    assert found[1].message == "wanted a finite number of at least 0, found -3.0"


def test_defaults_stand_for_nulls_in_both_forms() -> None:
    contract = Contract.flagging([Input(name="bags", type="integer", required=False, default=0)])
    assert contract is not None
    row = {"bags": None}
    columns = {"bags": [None, 2, None]}
    assert contract.check_row(row) == contract.check_columns(columns) == []
    assert (row, columns) == ({"bags": 0}, {"bags": [0, 2, 0]})


def test_inputs_that_declare_nothing_cost_nothing() -> None:
    assert Contract.flagging([Input(name="x", type="number", minimum=0, required=False)]) is None
