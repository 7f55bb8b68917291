"""Terms of the glossary: read, checked, linked."""

from pathlib import Path

import pytest

from ml_platform.catalogue.terms import check_links, load_terms
from ml_platform.yaml_documents import SpecError

GOOD = """terms:
  late flight:
    definition: Lands 15 or more minutes late.
    owner: team:flights
    links: [raw.flights.arr_delay]
    metrics: [flight_delay.roc_auc]
"""


def write(folder: Path, text: str, name: str = "terms.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_terms_are_read(tmp_path):
    write(tmp_path, GOOD)
    [(name, (_, term))] = load_terms(tmp_path).items()
    assert (name, term.owner, term.links) == ("late flight", "team:flights", ("raw.flights.arr_delay",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("terms:\n  late:\n    definition: x\n", "owner: is missing and has no default"),
        (GOOD.replace("links:", "link:"), "unknown key 'link'; did you mean 'links'?"),
        (GOOD.replace("owner: team:flights", "owner: ''"), "owner"),
        ("late: {}\n", "terms: is missing"),
        ("- 1\n", "a mapping with the key terms was wanted"),
        ("", "one document was wanted, found 0"),
        ("terms: {a: [}\n", "terms.yaml:1"),
        (GOOD + GOOD, "terms.yaml"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, says):
    write(tmp_path, text)
    with pytest.raises(SpecError) as told:
        load_terms(tmp_path)
    assert says in str(told.value)


def test_a_term_stands_in_one_file(tmp_path):
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "flights/terms.yaml")
    with pytest.raises(SpecError, match="'late flight' is already a term of"):
        load_terms(tmp_path)


def test_a_link_that_leads_nowhere_names_the_nearest_and_its_line(tmp_path):
    path = write(tmp_path, GOOD)
    terms = load_terms(tmp_path)
    assert check_links(terms, ["raw.flights.arr_delay"], ["flight_delay.roc_auc"]) == []
    first, second = check_links(terms, ["raw.flights.arrival_delay"], ["flight_delay.mae"])
    assert str(first) == (
        f"{path}:5: late flight.links.0: 'raw.flights.arr_delay' is no name in the catalogue; did you mean "
        "'raw.flights.arrival_delay'?"
    )
    assert "'flight_delay.roc_auc' is no metric of a model" in str(second)
