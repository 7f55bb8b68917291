"""Commands, notebooks, training sets and batch scoring read the lake as whose key is set may see it."""

from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features import create_training_set, open_lake
from ml_platform.governance.access import guarded
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.speaker import policy_store
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.access import AccessDenied
from ml_platform.lake.bound import bound_lake
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import ProjectNotFound
from ml_platform.scoring.sources import find_source
from ml_platform.settings import Settings

AT = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with a table, a policy that grants Ada two of its columns, and her key."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    lake = Lake(settings.lake_uri)
    lake.append("raw/notes", pl.DataFrame({"id": [1, 2], "at": [AT, AT], "text": ["SECRETa", "SECRETb"]}))
    lake.append("raw/vault", pl.DataFrame({"id": [1], "text": ["SECRETvault"]}))
    store = KeyStore(settings.keys_dir)
    keys = {name: store.create(name, roles=roles)[1] for name, roles in (("ada", ["predict"]), ("root", ["admin"]))}
    granted = [Grant(privilege="select", object=f"raw.notes.{name}", principal="service:ada") for name in ("id", "at")]
    policy_store(settings).change(
        lambda document: msgspec.structs.replace(with_grants(document, granted), started=AT), "granted", "", by="root"
    )
    assert policy_store(settings).in_use()
    return settings, keys


@pytest.fixture
def speak(world, monkeypatch):
    """Speak with a key from here on."""
    settings, keys = world
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))

    def speak(name):
        monkeypatch.setenv("ML_PLATFORM_KEY", keys.get(name, ""))
        return Settings()

    return speak


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


ATTACKS = {
    "sql": (["sql", "SELECT text FROM raw.notes"], 1),
    "sql of all": (["sql", "FROM raw.notes", "--format", "json"], 0),
    "sql of a hidden table": (["sql", "FROM raw.vault"], 1),
    "sql at a version": (["sql", "SELECT text FROM raw.notes", "--version", "raw/notes=0"], 1),
    "sql as of": (["sql", "FROM raw.vault", "--as-of", "2999-01-01"], 1),
    "sql of a file": (["sql", "FROM read_parquet('/**/*.parquet')"], 1),
    "sql of the catalog": (["sql", "FROM duckdb_views()"], 1),
    "list": (["tables", "list", "--format", "json"], 0),
    "history": (["tables", "history", "raw/notes", "--format", "json"], 0),
    "history of a hidden table": (["tables", "history", "raw/vault"], 1),
    "restore": (["tables", "restore", "raw/notes", "--version", "0"], 1),
    "restore of a hidden table": (["tables", "restore", "raw/vault", "--version", "0"], 1),
    "quarantine": (["quarantine", "show", "raw/notes"], 1),
    "quarantine of a hidden table": (["quarantine", "show", "raw/vault"], 1),
    "readmissions": (["quarantine", "history", "raw/notes"], 1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_commands_tell_what_is_granted(speak, name):
    arguments, code = ATTACKS[name]
    speak("ada")
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert "SECRET" not in done.output
    speak("root")
    assert "SECRET" in run("sql", "FROM raw.notes").output  # it is there to be seen


@pytest.mark.parametrize("arguments", [["sql", "SELECT 1"], ["tables", "list"], ["quarantine", "show", "raw/notes"]])
def test_commands_want_a_key(speak, arguments):
    speak("nobody")
    done = run(*arguments)
    assert done.exit_code == 1
    assert "ML_PLATFORM_KEY" in done.output


def test_notebooks_see_what_is_granted(speak):
    speak("ada")
    lake = open_lake()
    assert lake.sql("FROM raw.notes").columns == ["id", "at"]
    assert lake.read("raw/notes").collect().columns == ["id", "at"]
    assert "raw/vault" not in lake.tables()
    with pytest.raises(TableNotFound):
        lake.sql("FROM raw.vault")
    with pytest.raises(AccessDenied):
        lake.snapshot("raw/notes")
    with pytest.raises(AccessDenied):
        lake.append("raw/notes", pl.DataFrame({"id": [3]}))
    with pytest.raises(AccessDenied, match="predict"):
        lake.sql("SELECT predict('any', n) FROM raw.notes n")


def test_training_sets_have_what_is_granted(speak):
    speak("ada")
    made = create_training_set("FROM raw.notes", [], label="id", timestamp="at", views={})
    assert made.frame.columns == ["id", "at"]
    with pytest.raises(TableNotFound):
        create_training_set("SELECT *, now() AS at FROM raw.vault", [], label="id", timestamp="at", views={})


@pytest.mark.parametrize("source", ["raw/notes", "FROM raw.notes"])
def test_batch_scoring_reads_as_who_speaks(speak, tmp_path, source):
    seen = {}
    for name in ("ada", "root"):
        found = find_source(bound_lake(speak(name), "batch"), source)
        seen[name] = list(found.open(tmp_path / name).schema), found.identity
    assert seen["ada"][0] == ["id", "at"]
    assert seen["root"][0] == ["id", "at", "text"]
    assert seen["ada"][1] != seen["root"][1]  # the rows that were written for one are not given to the other
    speak("ada")
    with pytest.raises(LookupError):
        find_source(bound_lake(Settings(), "batch"), "raw/vault@0")


def test_without_definitions_nothing_is_read(speak, monkeypatch):
    def none() -> None:
        raise ProjectNotFound("no project")

    speak("ada")
    monkeypatch.setattr(guarded, "current_project", none)
    with pytest.raises(AccessDenied, match="ML_PLATFORM_PROJECT"):
        open_lake()


def test_jobs_of_the_platform_see_everything(world):
    settings, _ = world
    assert bound_lake(settings, "training", principal="service:platform").schema("raw/notes").names()[-1] == "text"
    assert bound_lake(settings, "training", principal="service:ada").schema("raw/notes").names() == ["id", "at"]
    with pytest.raises(TableNotFound):
        bound_lake(settings, "training", principal="service:nobody").read("raw/notes")
