"""The catalogue of the real project over a lake of the test's own: asset, commands and console."""

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import msgspec
import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ml_platform.catalogue.collect.project import collect
from ml_platform.catalogue.document import Check, View, catalogue_path, read_catalogue
from ml_platform.catalogue.reader import browses
from ml_platform.cli import app
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.governance_catalogue import catalogue as catalogue_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.serving.app import create_app
from ml_platform.settings import Settings

AIRLINES = pl.DataFrame({"carrier": ["UA", "<b>"], "name": ["United", "<script>alert(1)</script>"]})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three tables, one of which nothing declares and one of which is damaged."""
    home = tmp_path_factory.mktemp("catalogue")
    lake = Lake(Settings(home=home).lake_uri)
    lake.replace("raw/airlines", AIRLINES.select("carrier"))
    lake.replace("raw/airlines", AIRLINES)
    lake.replace("mine/odd-Name.v1", pl.DataFrame({"a b": [1]}))
    lake.replace("quarantine/raw/flights", pl.DataFrame({"reason": ["x"]}))
    log = Path(lake.uri) / "raw" / "broken" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_text("no commit\n")
    return home


@pytest.fixture(scope="module")
def view(home: Path) -> View:
    return View(collect(Settings(home=home)))


def client_of(home: Path) -> TestClient:
    return TestClient(create_app(Settings(home=home)), base_url="http://127.0.0.1", client=("127.0.0.1", 1))


def test_declarations_and_tables_meet(view):
    airlines = view.get("raw.airlines")
    assert (airlines.rows, airlines.version, airlines.owner, airlines.problems) == (2, 1, "team:flights", ())
    assert [change.what for change in airlines.history] == ["1 columns", "added: name"]
    assert [column.description for column in airlines.columns] == ["IATA code.", "Name."]
    assert "not loaded yet" in view.get("raw.flights").problems[0]
    assert view.get("mine/odd-Name.v1").description == "No declaration describes it."
    assert "cannot be read" in view.get("raw.broken").problems[0]
    assert [one.name for one in view.models_of(view.get("raw.weather"))] == [
        "model:arrival_minutes",
        "model:flight_delay",
    ]
    assert view.problems == ()


def test_terms_are_found_from_both_sides(view):
    assert "late flight" in view.get("model:flight_delay").terms
    assert view.get("term:late flight").owner == "team:flights"
    assert [link for link, _ in view.linked(view.get("term:turnaround"))] == ["features.aircraft_rotation"]


def test_commands_run_as_they_are_written(view, home, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home))
    for name in ("raw.airlines", "mine.odd-Name.v1", "quarantine.raw.flights"):
        how = view.get(name).how
        words = shlex.split(how["SQL"])
        done = CliRunner().invoke(app, words[1:])
        assert (words[0], done.exit_code) == ("ml-platform", 0), done.output
        scope: dict[str, object] = {}
        *lines, last = how["Python"].splitlines()
        exec("\n".join(lines), scope)
        assert eval(last, scope).height >= 1


def test_what_did_not_change_is_taken_from_the_stored_catalogue(home):
    settings = Settings(home=home)
    first = collect(settings, checks={"raw.airlines": [Check(name="contract", verdict="passed")]})
    path = catalogue_path(home)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(first))
    again = View(collect(settings))
    assert again.get("raw.airlines").checks[0].verdict == "passed"
    assert again.get("raw.airlines").history == View(first).get("raw.airlines").history
    path.write_text("{")
    damaged = collect(settings)
    assert any("catalogue refresh" in problem for problem in damaged.problems)
    path.unlink()


def test_a_reader_browses_what_is_granted_and_nothing_names_the_rest(home):
    ada = Principal("ada", "user")
    grants = tuple(
        Grant(principal="user:ada", privilege="select", object=name, by="admin", at=datetime(2024, 1, 1, tzinfo=UTC))
        for name in ("raw.airlines", "features.carrier_reliability")
    )
    policy = Policy(Document(grants=grants))
    catalogue = collect(Settings(home=home))
    seen = View(catalogue, lambda entry: browses(policy, ada, entry))
    tables = {entry.name for entry in seen.entries.values() if entry.kind not in ("term", "notebook")}
    assert tables == {"raw.airlines", "source:airlines", "features.carrier_reliability"}
    text = msgspec.json.encode(list(seen.entries.values())).decode()
    assert "raw.flights" not in text
    assert "model:flight_delay" not in text


def test_the_asset_keeps_catalogue_and_pages_for_the_console(home):
    with dg.instance_for_test() as instance:
        done = dg.materialize([catalogue_asset], resources={"platform": Platform(home=str(home))}, instance=instance)
    assert done.success
    [evaluation] = done.get_asset_check_evaluations()
    assert evaluation.passed, evaluation.description
    stored = read_catalogue(home)
    assert stored is not None
    assert "raw.airlines" in {entry.name for entry in stored.entries}
    with client_of(home) as client:
        found = client.get("/catalogue/search", params={"q": "airlnes"}).json()
        assert found["hits"][0]["name"] == "raw.airlines"
        assert client.get("/catalogue/entries/raw.airlines").json()["upstream"] == ["source:airlines"]
        assert client.get("/catalogue/entries/raw.nope").status_code == 404
        assert "airlines" in client.get("/catalogue?q=airlnes&page=99").text
        page = client.get("/catalogue/raw.airlines?sample=1").text
        assert "United" in page
        assert "<script>alert(1)" not in page
        assert "Not trained yet" in client.get("/models/flight_delay/console/page").text
        assert client.get("/models/nope/console/page").status_code == 404


def test_without_a_catalogue_the_console_says_what_makes_one(tmp_path):
    with client_of(tmp_path) as client:
        assert "ml-platform catalogue refresh" in client.get("/catalogue").text
        assert client.get("/catalogue/search").status_code == 404


def test_the_commands(home, monkeypatch, tmp_path):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home))
    run = CliRunner().invoke
    assert run(app, ["catalogue", "search", "airlnes"]).output.startswith("raw.airlines  table, team:flights")
    assert (
        json.loads(run(app, ["catalogue", "search", "airlnes", "--format", "json"]).output)[0]["name"] == "raw.airlines"
    )
    assert "United" in run(app, ["catalogue", "show", "raw/airlines", "--sample"]).output
    wrong = run(app, ["catalogue", "search", "--kind", "tabel"])
    assert (wrong.exit_code, "there is no kind 'tabel'" in wrong.output) == (1, True)
    assert run(app, ["catalogue", "export", str(tmp_path / "site"), "--samples"]).exit_code == 0
    assert "United" in (tmp_path / "site" / "entries" / "raw.airlines.html").read_text()
    assert run(app, ["models", "page", "flight_delay", "--output", str(tmp_path / "page.pdf")]).exit_code == 0
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
    assert "there is no model 'nope'" in run(app, ["models", "page", "nope"]).output
