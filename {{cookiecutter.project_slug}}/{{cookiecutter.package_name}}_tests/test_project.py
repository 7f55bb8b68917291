"""The project's definitions: they load, contracts hold, no feature sees the future, every model serves what it trained.

`UPDATE_SNAPSHOTS=1 make test` writes the snapshot of the graph anew; read the difference before you commit it.
"""

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

HERE = Path(__file__).parent
# When the rows of a table become known, for tables with several times; `ml-platform docs testing` says how.
ARRIVES: dict[str, Arrives] = {}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SampleHome:
    """State of this file's tests alone, with the first weeks of the project's own data.

    Rows for a source that is not there when tests run (a database, a bucket) go into the folder `samples` beside this
    file: `samples/raw/<table>.csv`.
    """
    return sample_home(tmp_path_factory.mktemp("home"), samples=HERE / "samples", arrives=ARRIVES)


def test_definitions_load() -> None:
    check_definitions_load()


def test_the_graph_is_as_it_was() -> None:
    check_graph_snapshot(HERE / "graph_snapshot.json")


@pytest.mark.parametrize("table", tables())
def test_contract_holds(table: str, home: SampleHome) -> None:
    check_contract_holds(table, home)


@pytest.mark.parametrize("view", views())
def test_view_is_point_in_time(view: str, home: SampleHome) -> None:
    check_view_is_point_in_time(view, home)


@pytest.mark.parametrize("model", models())
def test_model_serves_what_it_trained(model: str, home: SampleHome) -> None:
    check_model_serves_what_it_trained(model, home)
