"""Each rule has its keys in the spec and in the manifest, and says itself in every form that is asked of it."""

import json
import re
from typing import Any, get_args

import msgspec
import pytest

from ml_platform.registry.manifest import Input
from ml_platform.serving.openapi.predictions import field_schema, field_table
from ml_platform.spec.input_rules import RULE_OF_KEY, RULES, Rule, Violated, rules_among, rules_of
from ml_platform.spec.inputs import InputField

DECLARED: dict[str, tuple[dict[str, Any], Any, Any]] = {  # kind → keys, a value that keeps them, one that does not
    "range": ({"type": "number", "minimum": 0, "maximum": 10}, 10.0, 10.5),
    "allowed": ({"type": "string", "allowed": ("EWR", "JFK")}, "EWR", "EWK"),
    "pattern": ({"type": "string", "pattern": r"N\d+|none"}, "N14228", "14228"),
}


def test_kinds_and_keys_are_those_of_the_rules() -> None:
    assert [rule.kind for rule in RULES] == list(DECLARED)
    assert {"null", *DECLARED} == set(get_args(Violated))
    assert set(RULE_OF_KEY) <= set(InputField.model_fields) & set(Input.__struct_fields__)


def test_manifests_without_a_rules_key_load_and_say_that_there_is_none() -> None:
    field = msgspec.json.decode(b'{"name": "origin", "type": "string"}', type=Input)
    assert rules_of(field) == ()
    [rule] = rules_of(msgspec.structs.replace(field, pattern="[A-Z]{3}"))
    assert rule.kind == "pattern"


@pytest.mark.parametrize("kind", DECLARED)
def test_a_rule_judges_alike_and_says_itself_everywhere(kind: str) -> None:
    keys, good, bad = DECLARED[kind]
    [rule] = rules_among(keys)
    assert isinstance(rule, Rule)
    assert (rule.kind, rule.keeps(good), rule.keeps(bad)) == (kind, True, False)
    assert rule.broken_in([good, bad, good]) == {bad}
    field = Input(name="x", **keys)
    assert rules_of(field) == rules_of(InputField(name="x", **keys)) == (rule,)
    schema = field_schema(field)
    assert json.loads(json.dumps(rule.schema())).items() <= json.loads(json.dumps(schema)).items()
    flagged = field_schema(msgspec.structs.replace(field, flagged=(kind,)))
    assert flagged["x-expected"] == rule.schema()
    assert not set(rule.schema()) & set(flagged)
    for words in (rule.wanted("a value"), rule.hint(), rule.broken_words, rule.own_problem(bad), *rule.table_words()):
        assert words
        assert "None" not in words
    with pytest.raises(ValueError, match=re.escape(rule.own_problem(bad))):
        InputField(name="x", **keys, example=bad)


def test_the_table_of_the_api_page_keeps_its_columns() -> None:
    [_, _, line] = field_table([Input(name="tail", type="string", pattern=r"N\d+|none")]).splitlines()
    assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert r"matches `N\d+\|none`" in line
