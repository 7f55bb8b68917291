"""Values that are written down or shown: mistakes are refused where they are declared, examples keep all rules."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.registry.manifest import Input
from ml_platform.spec.input_values import example_of
from ml_platform.spec.inputs import InputField
from ml_platform.spec.text_pattern import TextPattern


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("string", 7, "7 is no string"),
        ("integer", True, "True is no integer"),
        ("integer", 2**63, "9223372036854775808 is no integer of 64 bits"),
        ("number", float("nan"), "nan is no finite number"),
        ("number", 2**53 + 1, "9007199254740993 is no finite number that a 64-bit float has"),
        ("number", 10**400, "is no finite number"),
        ("boolean", 1, "1 is no boolean"),
        ("timestamp", "soon", "'soon' is no timestamp: read are 2013-07-01T12:00Z"),
        ("timestamp", "2013-07-01", "it is a date without a time"),
        ("timestamp", datetime(2013, 7, 1), "it has no offset from UTC"),
        ("timestamp", "1500-07-01T12:00:00Z", "is not of the years 1678 to 2261"),
    ],
)
def test_an_example_that_no_request_could_have_is_refused(kind: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        InputField.model_validate({"name": "x", "type": kind, "example": value})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", -(2**63)),
        ("number", 2**53),
        ("number", 1400),
        ("timestamp", "2013-07-01T12:00+02:00"),
        ("timestamp", datetime(2013, 7, 1, tzinfo=UTC)),
    ],
)
def test_an_example_that_a_request_could_have_is_kept(kind: str, value: Any) -> None:
    assert InputField.model_validate({"name": "x", "type": kind, "example": value}).example == value


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "no integer of 64 bits is 0.2 to 0.8"),
        ({"type": "integer", "minimum": 1e19}, "no integer of 64 bits is at least"),
        ({"type": "integer", "maximum": -1e19}, "no integer of 64 bits is at most"),
        ({"type": "number", "minimum": float("inf")}, "wanted a finite number, found inf; leave minimum out"),
        ({"type": "number", "maximum": float("nan")}, "wanted a finite number, found nan; leave maximum out"),
    ],
)
def test_a_range_without_values_is_refused(rules: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        InputField.model_validate({"name": "x", **rules})


@pytest.mark.parametrize(
    ("keys", "given", "example"),
    [
        ({"type": "string"}, (), "text"),
        ({"type": "string", "allowed": ("EWR", "JFK")}, (), "EWR"),
        ({"type": "string", "allowed": ("EWR", "JFK")}, (None, "JFK"), "JFK"),
        ({"type": "string", "allowed": ("EWR", "JFK")}, ("ewr",), "EWR"),  # data that was only flagged
        ({"type": "string", "pattern": r"N\d{1,5}[A-Z]{0,2}"}, (), "N0"),
        ({"type": "integer", "minimum": 10}, (), 10),
        ({"type": "integer", "minimum": 10.5}, (), 11),
        ({"type": "integer", "maximum": -3.5}, (), -4),
        ({"type": "number", "minimum": 0.2, "maximum": 0.8}, (), 0.2),
        ({"type": "number", "minimum": 0, "maximum": 12500}, (), 1.0),
        ({"type": "integer", "allowed": (3, 5)}, (), 3),
        ({"type": "string", "pattern": "[^\u0000-\U0010ffff]"}, (), None),  # which nothing matches
    ],
)
def test_the_first_that_keeps_the_rules_is_the_example(keys: dict[str, Any], given: Any, example: Any) -> None:
    assert example_of(Input(name="x", **keys), *given) == example


SETS = st.sampled_from(
    ["a", "Z", r"\d", r"\w", "[^a-z]", "[ -~]", ".", r"\.", "é", "[\U0001f600-\U0001f64f]", "[^A-Z0-9]"]
)
PATTERNS = st.recursive(
    SETS,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map("".join),
        st.lists(parts, min_size=1, max_size=3).map(lambda ways: f"({'|'.join(ways)})"),
        st.tuples(parts, st.sampled_from("*+?")).map(lambda pair: f"({pair[0]}){pair[1]}"),
        st.tuples(parts, st.sampled_from(["{2}", "{1,3}", "{0,2}", "{3,}"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
).filter(lambda text: len(text) <= 200)


@settings(deadline=None)
@given(PATTERNS)
def test_the_example_of_a_pattern_matches_it(pattern: str) -> None:
    try:
        made = TextPattern(pattern)
    except ValueError as error:
        assert "states" in str(error) or "repeat more than" in str(error)  # noqa: PT017 - of some drawn patterns
        return
    assert made.matches(made.example)
