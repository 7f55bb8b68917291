"""The column graph without what a reader may not browse: no object, column, edge or text of it is left."""

from datetime import UTC, datetime

import msgspec
import pytest

from ml_platform.catalogue.visible_lineage import visible_lineage
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.lineage.objects import Lineage, document_of
from ml_platform.lineage.project_graph import build_lineage, read_project

ADA = Principal("ada", "user")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def flights() -> Lineage:
    return build_lineage(read_project())[0]


def seen(lineage: Lineage, *grants: tuple[str, str]) -> Lineage:
    made = tuple(Grant(privilege=privilege, object=on, principal="user:ada", at=NOW) for privilege, on in grants)
    return visible_lineage(lineage, Policy(Document(grants=made)), ADA)


def test_what_is_granted_is_seen_with_what_belongs_to_it(flights: Lineage) -> None:
    view = seen(flights, ("browse", "raw.weather"), ("use_feature", "features.origin_weather"))
    assert set(view.graph.objects) == {
        "source:weather", "raw.weather", "features.origin_weather", "online.origin_weather",
    }  # fmt: skip
    assert view.info("features.origin_weather").sql  # all that it reads is seen
    weather = [node for node in flights.graph.nodes if node.object == "raw.weather"]
    assert {node for node in view.graph.nodes if node.object == "raw.weather"} == set(weather)


def test_nothing_names_what_is_hidden(flights: Lineage) -> None:
    view = seen(flights, ("browse", "features.carrier_reliability"), ("predict", "model:flight_delay"))
    text = msgspec.json.encode(document_of(view, "now")).decode()
    assert set(view.graph.objects) >= {"features.carrier_reliability", "model:flight_delay"}
    for hidden in ("raw.flights", "raw.planes", "features.origin_weather", "arrival_minutes", "source:flights"):
        assert hidden in flights.objects or hidden == "arrival_minutes"
        assert hidden not in text, hidden
    with pytest.raises(LookupError) as refused:
        view.find("raw.flights")
    assert "raw.planes" not in str(refused.value)


def test_who_may_everything_sees_everything_and_who_may_nothing_sees_nothing(flights: Lineage) -> None:
    assert seen(flights, ("manage", "platform")).graph.edges == flights.graph.edges
    assert seen(flights).graph.objects == ()
