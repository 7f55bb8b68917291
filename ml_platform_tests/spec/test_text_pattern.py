r"""A pattern means the same to Rust, Python and a schema's reader, and none can be declared that costs too much."""

import re
from itertools import product

import pytest

from ml_platform.spec.text_pattern import LONGEST_TEXT, MOST_POSITIONS, MOST_STATES, TextPattern

TEXTS = ["".join(letters) for n in range(4) for letters in product("aZ9-_.\\/]\n é", repeat=n)]


@pytest.mark.parametrize(
    ("pattern", "portable"),
    [
        ("[A-Z]{3}", "^(?:[A-Z]{3})$"),
        (r"\d+", "^(?:[0-9]+)$"),
        (r"\w{1,2}-?\d", "^(?:[0-9A-Z_a-z]{1,2}-?[0-9])$"),
        ("a|Z9|(?:-|_){2,}", r"^(?:a|Z9|(?:-|_){2,})$"),
        (".*", "^(?:.*)$"),
        ("[^a-z]9?", "^(?:[^a-z]9?)$"),
        (r"[a\]\-\\/.]+", r"^(?:[\--\/\\-\]a]+)$"),
        ("[-a][9-]", r"^(?:[\-a][\-9])$"),
        (r"\.\-?\/?\\?", r"^(?:\.-?\/?\\?)$"),
        ("é é?", "^(?:é é?)$"),
        ("(a*)*9", "^(?:(?:a*)*9)$"),
        ("(a|Z|aZ){0,2}", "^(?:(?:a|Z|aZ){0,2})$"),
    ],
)
def test_all_engines_judge_alike(pattern: str, portable: str) -> None:
    made = TextPattern(pattern)
    assert made.portable == portable
    # Python's `$` takes a line end too, JavaScript's does not.
    searched = re.compile(portable.removesuffix("$") + r"\Z")
    assert sum(made.matches(text) for text in TEXTS) >= 1
    for text in TEXTS:
        in_python = re.fullmatch(pattern, text, re.ASCII) is not None
        assert (made.matches(text), searched.search(text) is not None) == (in_python, in_python), text


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "wanted 1 to 200 characters, found 0"),
        ("a" * 201, "wanted 1 to 200 characters, found 201"),
        ("(?=a)", "character 1, '(?', is not supported; write groups as"),
        ("(?i)a", "character 1, '(?'"),
        (r"(a)\1", r"character 4, '\\1', is not supported; there are \d, \w"),
        (r"\p{Lu}", "is not supported"),
        (r"a\b", "is not supported"),
        (r"\s", "is not supported"),
        ("a\\", "is not supported"),
        ("^a$", "character 1, '^', is not needed: the whole text is matched"),
        ("a$", "character 2, '$', is not needed"),
        ("a**", "character 3, '*', repeats a repetition"),
        ("a+?", "character 3, '?', repeats a repetition"),
        ("*a", "character 1, '*', has nothing to repeat"),
        ("a]", "character 2, ']', has nothing to repeat or close"),
        ("a{2,1}", "character 2, '{2,1}', repeats nothing"),
        ("a{0}", "repeats nothing"),
        ("a{,2}", "wants {m}, {m,} or {m,n}"),
        ("a{1234}", "wants {m}, {m,} or {m,n}"),
        ("(a", "character 1, '(', is never closed"),
        ("a)", "character 2, ')', has no opening parenthesis"),
        ("[a", "character 1, '[', is never closed"),
        ("[]", "is an empty class"),
        ("[z-a]", "character 2, 'z-a', is no range"),
        (r"[\d-z]", "is no range"),
        ("[[:alpha:]]", r"stands in a class: write \["),
        ("()", "an empty alternative"),
        ("a|", "its end follows an empty alternative"),
    ],
)
def test_what_engines_read_differently_is_refused_by_its_place(pattern: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        TextPattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(a{99}){99}", f"more than {MOST_POSITIONS} characters and classes"),
        ("(a|b)*a(a|b){12}", f"more than {MOST_STATES} states"),
    ],
)
def test_patterns_that_are_slow_even_without_backtracking_are_refused(pattern: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TextPattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", r"(\w+\.?)+b"])
def test_nothing_backtracks(pattern: str) -> None:
    made = TextPattern(pattern)
    assert not made.matches("a" * LONGEST_TEXT)  # a backtracking engine would not come to an end
    assert made.matches("a" * (LONGEST_TEXT - 1) + "b")
    assert not made.matches("a" * LONGEST_TEXT + "b")  # too long for any pattern
