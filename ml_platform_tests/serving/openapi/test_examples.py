"""Every example in the document is a request that is answered without a flag, whatever the rules of the inputs are."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ml_platform.registry.input_contract import Contract
from ml_platform.registry.manifest import Input, Manifest
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.openapi.predictions import example_row, row_schema
from ml_platform.settings import Settings
from ml_platform.spec.inputs import InputField
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import INPUTS, MODEL, bundle, fill_online_store, publish

MANIFEST = msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest)
NUMBERS = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(-1e300, 1e300), st.sampled_from([0, 0.2, 0.8]))
RULES = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean", "timestamp"])}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"]), "minimum": NUMBERS, "maximum": NUMBERS}),
    st.fixed_dictionaries(
        {"type": st.just("string"), "allowed": st.lists(st.text(min_size=1, max_size=4), min_size=1, unique=True)}
    ),
    st.fixed_dictionaries(
        {"type": st.just("integer"), "allowed": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True)}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("string"),
            "pattern": st.sampled_from([r"N\d{1,5}[A-Z]{0,2}", "[^a-z]+|x", "é?", r"(\w\.){3}"]),
        }
    ),
)
VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.booleans(), st.text(max_size=4), st.just("2013-07-01T12:00+02:00")
)
FIELDS = st.tuples(
    RULES,
    st.fixed_dictionaries(
        {
            "required": st.booleans(),
            "example": VALUES,
            "default": VALUES,
            "flagged": st.sampled_from([(), ("range", "allowed", "pattern")]),
        }
    ),
)


def declared(name: str, rules: dict[str, Any], more: dict[str, Any]) -> Input:
    """An input that could be declared; its example is what some row had, so it may break the rules."""
    checked = {key: more[key] for key in ("required", "default") if more["required"] is False or key != "default"}
    try:
        field = InputField.model_validate({"name": name, **rules, **checked})
    except ValidationError:
        assume(False)
    keys = {key: getattr(field, key) for key in ("type", "minimum", "maximum", "allowed", "pattern", "default")}
    return Input(name=name, example=more["example"], required=field.rejects_null, flagged=more["flagged"], **keys)


@settings(deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=3))
def test_examples_are_decoded_break_no_rule_and_fit_the_schema(
    drawn: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    inputs = tuple(declared(f"field_{place}", *one) for place, one in enumerate(drawn))
    manifest = msgspec.structs.replace(MANIFEST, inputs=inputs)
    row, schema = example_row(manifest), row_schema(manifest)
    assert {field.name for field in inputs if field.required} <= set(row)
    for example in (row, *({**row, name: one["examples"][0]} for name, one in schema["properties"].items())):
        jsonschema.Draft202012Validator(schema).validate(example)
        body = json.loads(msgspec.json.encode(example))
        values = RowDecoder(inputs).decode(msgspec.json.encode(body)).values
        flagging = Contract.flagging(inputs)
        assert flagging is None or not [one for one in flagging.check_row(dict(values[0])) if one.kind != "null"]


def examples(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Path and body of each example of a request for predictions."""
    for path, operations in document["paths"].items():
        if "post" in operations and path.startswith(("/predict/", "/invocations", "/models/", "/v2/")):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            for one in [found["value"] for found in content.get("examples", {}).values()] or [content["example"]]:
                yield path.format(version=1), one


def test_inputs_with_rules_and_without_examples_have_examples_that_are_answered(
    settings: Settings, serve: Callable[..., Server]
) -> None:
    rules: dict[str, dict[str, Any]] = {
        "carrier": {"allowed": ("AA", "B6", "UA"), "flagged": ("allowed",)},
        "tailnum": {"pattern": r"N\d{1,5}[A-Z]{0,2}", "required": True},
        "distance": {"minimum": 80.0, "maximum": 6000.0},
    }
    inputs = [msgspec.structs.replace(field, **{"example": None, **rules.get(field.name, {})}) for field in INPUTS]
    fill_online_store(settings)
    publish(settings, 1, inputs=tuple(inputs))
    server = serve(settings)
    found = list(examples(server.client.get("/openapi.json").json()))
    assert {path for path, _ in found} >= {f"/predict/{MODEL}", "/invocations", f"/v2/models/{MODEL}/infer"}
    for path, body in found:
        answer = server.client.post(path, json=body)
        assert (answer.status_code, answer.json().get("flags")) == (200, None), (path, body, answer.text)
    page = server.client.get(f"/models/{MODEL}/console").text
    assert 'value="N0"' in page
    assert 'value="80"' in page
