"""The flights' definitions: they load, contracts hold, no feature sees the future, every model serves what it trained.

`UPDATE_SNAPSHOTS=1 make test` writes the snapshot of the graph anew; read the difference before you commit it.
"""

from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.testing import (
    Arrives,
    SampleHome,
    check_contract_holds,
    check_definitions_load,
    check_graph_snapshot,
    check_model_serves_what_it_trained,
    check_view_is_point_in_time,
    models,
    sample_home,
    tables,
    views,
)

# A flight is there by its schedule; what happens to it is known when it has happened.
FLOWN = {"actual_departure": ["dep_delay"], "actual_arrival": ["arr_delay", "air_time"]}
# A report is stamped with the full hour, and made up to 51 minutes into it.
ARRIVES = {"raw/flights": Arrives(filled=FLOWN), "raw/weather": Arrives("observed_at", after=timedelta(hours=1))}

REJECTED = {"raw/weather": 0.001}  # a wind of 1,048 miles per hour


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SampleHome:
    """State of this file's tests alone, with the first weeks of the flights."""
    return sample_home(tmp_path_factory.mktemp("home"), days=45, arrives=ARRIVES)


def test_definitions_load() -> None:
    check_definitions_load()


def test_the_graph_is_as_it_was() -> None:
    check_graph_snapshot(Path(__file__).with_name("graph_snapshot.json"))


@pytest.mark.parametrize("table", tables())
def test_contract_holds(table: str, home: SampleHome) -> None:
    check_contract_holds(table, home, rejected=REJECTED.get(table, 0.0))


@pytest.mark.parametrize("view", views())
def test_view_is_point_in_time(view: str, home: SampleHome) -> None:
    check_view_is_point_in_time(view, home)


@pytest.mark.parametrize("model", models())
def test_model_serves_what_it_trained(model: str, home: SampleHome) -> None:
    check_model_serves_what_it_trained(model, home)
