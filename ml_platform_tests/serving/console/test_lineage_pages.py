"""The pages and JSON of the column graph, over HTTP."""

import re

import pytest

from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.lineage.objects import Lineage, ObjectInfo
from ml_platform.lineage.pages import MOST, column_facts, object_facts, overview_facts
from ml_platform.lineage.project_graph import build_lineage, read_project
from ml_platform.lineage.store import lineage_path, write_lineage
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import start_server
from ml_platform_tests.serving.releases import publish


@pytest.fixture(scope="module")
def flights():
    return build_lineage(read_project())[0]


@pytest.fixture(scope="module")
def served(tmp_path_factory, flights):
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    publish(settings, 1)
    server = start_server(settings)
    yield server, settings
    server.stop()


def test_pages_and_json_answer_from_the_stored_graph(served, flights):
    server, settings = served
    before = server.client.get("/lineage/console")
    assert before.status_code == 200
    assert "ml-platform lineage refresh" in before.text
    assert server.client.get("/lineage").status_code == 404
    write_lineage(settings, flights, ["view x: its columns cannot be traced: <b>"])
    whole = server.client.get("/lineage/console").text
    assert "features.carrier_reliability" in whole
    assert "traced: &lt;b&gt;" in whole
    page = server.client.get("/lineage/console", params={"object": "raw.flights", "column": "tailnum"}).text
    assert "What breaks if it is dropped" in page
    assert "endpoint:flight_delay" in page
    assert server.client.get("/lineage/console", params={"object": "raw.nothing"}).status_code == 404
    part = server.client.get("/lineage", params={"name": "raw.flights.tailnum", "direction": "upstream"}).json()
    assert part["columns"] == [["raw.flights", "tailnum"], ["source:flights", "tailnum"]]
    impact = server.client.get("/lineage/impact", params={"name": "raw.flights.dep_delay"}).json()
    assert {"features.carrier_reliability", "model:flight_delay"} <= {one["object"] for one in impact["affected"]}
    assert server.client.get("/lineage/impact", params={"name": "raw.flights.dep_dela"}).status_code == 404
    lineage_path(settings).write_text("{", encoding="utf-8")
    assert "cannot be read" in server.client.get("/lineage/console").text


def test_every_link_of_a_drawing_leads_somewhere_and_no_drawing_is_too_large(flights):
    drawings = [overview_facts(flights)]
    drawings += [object_facts(flights, name) for name in flights.graph.objects]
    drawings += [column_facts(flights, Node("raw.flights", "actual_arrival"))]
    for facts in drawings:
        assert 1 <= facts["picture"].count("<rect") <= MOST
        for target in re.findall(r'href="\?object=([^"&]+)', facts["picture"]):
            assert target.replace("%3A", ":").replace("%40", "@") in flights.graph.objects


def test_what_does_not_fit_is_counted_and_names_are_escaped():
    hub = Node("raw.hub", "x")
    edges = [Edge(hub, Node(f"features.v{number}", "<y>"), "copy") for number in range(80)]
    facts = object_facts(Lineage(ColumnGraph(edges), {"raw.hub": ObjectInfo(kind="table")}), "raw.hub")
    assert facts["picture"].count("<rect") == MOST
    assert facts["hidden"] == 81 - MOST
    column = column_facts(Lineage(ColumnGraph(edges), {}), hub)
    assert "<y>" not in column["picture"]


def test_a_circle_of_objects_is_drawn():
    edges = [Edge(Node("a.a", "x"), Node("b.b", "y"), "copy"), Edge(Node("b.b", "z"), Node("a.a", "w"), "filter")]
    assert object_facts(Lineage(ColumnGraph(edges), {}), "a.a")["picture"].count("<path class") == 2
