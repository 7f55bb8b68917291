"""Lineage and tags of an entry's columns, and what of them a reader may see."""

import msgspec
import pytest

from ml_platform.catalogue.collect.columns import with_lineage, with_tags
from ml_platform.catalogue.document import Catalogue, Column, ColumnRef, Entry, View
from ml_platform.catalogue.pages import MOST_NODES, console_link, entry_page, lineage_link
from ml_platform.governance.access.policy import Document, Policy, TagChange
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.spec.protection import Protection
from ml_platform_tests.catalogue.entries import catalogue

MAIL, DAY = Node("raw.people", "Mail"), Node("raw.people", "day")
DOMAIN, BEST = Node("features.domains", "domain"), Node("features.best", "top")
GRAPH = ColumnGraph([
    Edge(MAIL, DOMAIN, "projection"),
    Edge(MAIL, DOMAIN, "group"),
    Edge(DAY, DOMAIN, "filter"),
    Edge(DOMAIN, BEST, "aggregate"),
    Edge(DOMAIN, Node("online.domains", "domain"), "copy"),
    Edge(Node("online.domains", "domain"), Node("endpoint:late", "domain"), "copy"),
    Edge(Node("training_set:late", "x"), Node("model:late@3", "x"), "input"),
])  # fmt: skip
PROTECTIONS = {"raw/people": Protection(tags={"Mail": ("pii",)})}


def entry(name, kind, *columns, **facts):
    return Entry(name=name, kind=kind, columns=tuple(Column(name=one) for one in columns), **facts)


@pytest.fixture
def entries():
    return [
        entry("raw.people", "table", "Mail", "day", table="raw/people"),
        entry("features.domains", "view", "domain", table="features/domains", upstream=("raw.people", "raw.other")),
        entry("features.best", "view", "top", table="features/best", upstream=("features.domains",)),
        entry("endpoint:late", "endpoint", model="late"),
        entry("training_set:late", "training set", "x"),
        entry("version:late@v3", "version", "x", model="late"),
        entry("notebook:a", "notebook", upstream=("raw.people",)),
    ]


def test_entries_are_made_of_what_the_graph_says_and_else_of_what_they_declare(entries):
    made = {one.name: one for one in with_lineage(entries, GRAPH)}
    assert made["features.domains"].upstream == ("raw.people",)
    assert made["notebook:a"].upstream == ("raw.people",)
    assert made["version:late@v3"].upstream == ("training_set:late",)
    assert made["version:late@v3"].graph_name == "model:late@3"
    assert made["endpoint:late"].upstream == ("features.domains",)  # online values are their view's
    [domain] = made["features.domains"].lineage
    assert domain.upstream == (ColumnRef("raw.people", "Mail"), ColumnRef("raw.people", "day", False))
    assert domain.downstream == (ColumnRef("endpoint:late", "domain"), ColumnRef("features.best", "top"))


def test_tags_flow_and_say_from_where_until_they_are_removed(entries):
    made = {one.name: one for one in with_tags(entries, Policy(Document()), PROTECTIONS, GRAPH)}
    assert [(one.tags, one.flowing) for one in made["raw.people"].columns] == [(("pii",), {}), ((), {})]
    assert made["features.best"].columns[0].flowing == {"pii": (ColumnRef("raw.people", "Mail"),)}
    taken = Policy(Document(tags=(TagChange(object="features.domains.domain", tag="pii", removed=True),)))
    made = {one.name: one for one in with_tags(entries, taken, PROTECTIONS, GRAPH)}
    assert made["features.domains"].columns[0].tags == made["features.best"].columns[0].tags == ()
    added = Policy(Document(tags=(TagChange(object="features.domains.domain", tag="mine"),)))
    made = {one.name: one for one in with_tags(entries, added, PROTECTIONS, GRAPH)}
    [column] = made["features.domains"].columns
    assert (column.tags, set(column.flowing)) == (("mine", "pii"), {"pii"})


def test_a_reader_is_told_of_no_column_of_what_they_may_not_browse(entries):
    made = with_tags(with_lineage(entries, GRAPH), Policy(Document()), PROTECTIONS, GRAPH)
    whole = catalogue(made)
    seen = View(whole, lambda one: one.name != "raw.people")
    text = msgspec.json.encode(list(seen.entries.values())).decode()
    assert "raw.people" not in text
    assert "ail" not in text
    best = seen.get("features.best").columns[0]
    assert (best.tags, best.flowing) == (("pii",), {"pii": ()})
    assert "raw.people" in msgspec.json.encode(list(View(whole).entries.values())).decode()


def test_a_page_names_at_most_30_columns_of_a_columns_lineage():
    source, targets = Node("raw.a", "x"), [Node("raw.b", f"y{number:02}") for number in range(50)]
    made = with_lineage(
        [entry("raw.a", "table"), entry("raw.b", "table")],
        ColumnGraph(Edge(source, target, "copy") for target in targets),
    )
    page = entry_page(View(catalogue(made)), made[0], link=console_link("../"), lineage_link=lineage_link("../"))
    [column] = page["lineage"]
    assert (len(column["downstream"]), column["more_downstream"]) == (MOST_NODES, 20)
    assert page["lineage_link"]("raw.a", "x") == "../lineage/console?object=raw.a&column=x"


def test_a_stored_catalogue_without_lineage_is_still_read():
    stored = msgspec.json.encode(catalogue([entry("raw.a", "table", "x")]))
    assert msgspec.json.decode(stored, type=Catalogue).entries[0].lineage == ()
