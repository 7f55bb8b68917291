"""The search: what is found, in which order, with typos, filters, and only what the reader may know of."""

import json
import random
import string
import time

import pytest

from ml_platform.catalogue.document import Column, Entry, View
from ml_platform.catalogue.search import choices, likeness, search
from ml_platform_tests.catalogue.entries import FLIGHTS, catalogue


def found(query: str, view: View | None = None, **narrowed: str) -> list[str]:
    return [hit.entry.name for hit in search(view or View(catalogue()), query, **narrowed)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("flights", "raw.flights"),
        ("raw.flights", "raw.flights"),
        ("carrier delay", "features.carrier_reliability"),
        ("carier dealy", "features.carrier_reliability"),
        ("CARRIER Reliability", "features.carrier_reliability"),
        ("wether", "raw.weather"),
        ("airline", "term:airline"),
        ("traffic", "features.carrier_reliability"),
        ("data@example.com", "features.carrier_reliability"),
        ("contract", "raw.flights"),
    ],
)
def test_the_best_hit_comes_first(query, first):
    assert found(query)[0] == first


def test_every_word_has_to_be_somewhere():
    assert found("carrier zebra") == []
    assert found("???") == []


def test_a_hit_names_the_columns_that_fit():
    [hit] = [hit for hit in search(View(catalogue()), "arrival dealy") if hit.entry.name == "raw.flights"]
    assert hit.columns == ("arr_delay",)


def test_without_words_everything_is_listed_by_kind_and_name():
    assert found("")[:3] == ["raw.flights", "raw.weather", "features.carrier_reliability"]


def test_filters():
    assert found("", owner="team:flights") == ["raw.flights", "source:flights"]
    assert found("", tag="domain") == found("", tag="domain=traffic") == ["features.carrier_reliability"]
    assert found("", tag="domain=other") == []
    assert found("", tag="pii") == ["raw.flights"]
    assert found("delay", kinds=["model"]) == ["model:flight_delay"]  # type: ignore[arg-type]


def test_choices_are_those_of_what_may_be_browsed():
    seen = choices(View(catalogue(), lambda entry: entry.kind == "view"))
    assert seen == {"kinds": ["view"], "owners": ["data@example.com"], "tags": ["domain=traffic"]}


def test_what_may_not_be_browsed_is_nowhere():
    view = View(catalogue(), lambda entry: entry.name != "raw.flights")
    assert "raw.flights" not in found("flights", view)
    with pytest.raises(LookupError, match=r"nothing in the catalogue is called 'raw\.flights'") as refused:
        view.get("raw.flights")
    assert "nearest: raw.flights" not in str(refused.value)
    assert view.upstream(view.get("features.carrier_reliability")) == []


def test_names_are_found_as_people_write_them():
    view = View(catalogue())
    assert view.get("raw/flights").name == "raw.flights"
    assert view.get("flight_delay").name == "model:flight_delay"
    with pytest.raises(LookupError, match=r"the nearest: raw\.flights"):
        view.get("raw.flihgts")


def test_models_are_followed_however_far_down():
    view = View(catalogue())
    assert [one.name for one in view.models_of(FLIGHTS)] == ["model:flight_delay"]


def test_entries_in_a_circle_end():
    circle = [Entry(name="a.b", kind="table", upstream=("a.c",)), Entry(name="a.c", kind="table", upstream=("a.b",))]
    view = View(catalogue(circle))
    assert view.models_of(view.get("a.b")) == []


@pytest.mark.parametrize(("wanted", "word"), [("delay", "dealy"), ("delay", "delya"), ("reliability", "reliabilty")])
def test_letters_may_be_wrong_missing_or_swapped(wanted, word):
    assert likeness(wanted, word) > 0
    assert likeness(word, wanted) > 0


def test_short_words_have_to_be_right():
    assert likeness("ewr", "ewx") == 0
    assert likeness("a", "b") == 0


def test_a_large_catalogue_is_searched_without_work_that_grows_with_its_columns_squared():
    """The likeness of each distinct word is computed once: the work is that of reading the entries."""
    draw = random.Random(7)
    vocabulary = ["".join(draw.choices(string.ascii_lowercase, k=8)) for _ in range(500)]
    entries = [
        Entry(
            name=f"raw.table_{number}",
            kind="table",
            columns=tuple(Column(name="_".join(draw.choices(vocabulary, k=2)) + f"_{c}") for c in range(100)),
        )
        for number in range(300)
    ]
    entries[123] = Entry(name="raw.orders", kind="table", columns=(Column(name="customer_address"),))
    view = View(catalogue(entries))
    started = time.process_time()
    assert found("custmer adress", view) == ["raw.orders"]
    first = time.process_time() - started
    assert json.dumps(found("", view)[:1])
    assert first < 60  # about 0.3 s on one core; the bound is against a hang only
