"""Artifacts of runs belong to the folder of state that they are in, wherever it is moved or copied to."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.registry.artifacts import open_artifacts
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port


def _tracked(home: Path, name: str, files: dict[str, bytes]) -> str:
    tracker = Tracker(Settings(home=home))
    with tracker.run("m", name) as run:
        tracker.log_files(run, files)
    return run


def test_a_copied_home_keeps_its_own_artifacts(tmp_path: Path) -> None:
    run = _tracked(tmp_path / "a", "first", {"plots/x.txt": b"1"})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    _tracked(tmp_path / "b", "second", {"plots/y.txt": b"2"})
    assert not list((tmp_path / "a").rglob("y.txt"))
    shutil.rmtree(tmp_path / "a")
    assert Tracker(Settings(home=tmp_path / "b")).read_plots(run) == {"x.txt": b"1"}


def test_the_database_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    _tracked(tmp_path / "home", "first", {"plots/x.txt": b"1"})
    with closing(sqlite3.connect(tmp_path / "home" / "mlflow.db")) as connection:
        told = [line for line in connection.iterdump() if str(tmp_path) in line or str(Path.cwd()) in line]
    assert told == []


def test_a_moved_home_of_an_earlier_release_is_made_relative(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run = _tracked(old, "first", {"plots/x.txt": b"1"})
    elsewhere = (tmp_path / "elsewhere" / "mlflow_artifacts" / "n").resolve()
    elsewhere.mkdir(parents=True)
    with closing(sqlite3.connect(old / "mlflow.db")) as connection, connection:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            update = f"UPDATE {table} SET {column} = replace({column}, 'home-artifacts:', ?)"
            connection.execute(update, (f"file://{old}/mlflow_artifacts",))
        columns = "name, artifact_location, lifecycle_stage"
        connection.execute(f"INSERT INTO experiments ({columns}) VALUES ('n', ?, 'active')", (elsewhere.as_uri(),))
    old.rename(new)
    tracker = Tracker(Settings(home=new))
    assert tracker.read_plots(run) == {"x.txt": b"1"}
    assert tracker.client.get_experiment_by_name("m").artifact_location == "home-artifacts:/m"
    assert tracker.client.get_experiment_by_name("n").artifact_location == elsewhere.as_uri()


@pytest.mark.parametrize(
    "address", ["sqlite:///{}?timeout=60", "sqlite+pysqlite:///{}", "sqlite:///file:{}?uri=true&mode=rwc"]
)
def test_the_address_of_the_database_may_name_a_driver_and_options(tmp_path: Path, address: str) -> None:
    home = tmp_path / "home"
    tracker = Tracker(Settings(home=home, tracking_uri=address.format(home / "mlflow.db")))
    with tracker.run("m", "first") as run:
        tracker.log_files(run, {"plots/x.txt": b"1"})
    assert tracker.read_plots(run) == {"x.txt": b"1"}
    assert tracker.client.get_experiment_by_name("m").artifact_location == "home-artifacts:/m"
    assert (home / "mlflow_artifacts" / "m" / run / "artifacts" / "plots" / "x.txt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"home"}  # nothing beside it


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = tmp_path / "100%41 why? #1"
    run = _tracked(home, "first", {"plots/x.txt": b"1"})
    assert Tracker(Settings(home=home)).read_plots(run) == {"x.txt": b"1"}
    assert (home / "mlflow.db").is_file()
    with open_online_store(Settings(home=home).online_uri) as store:
        assert store.read([("view", ("key",))]) == [None]


def test_an_address_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(ValueError, match="leads out of"):
        open_artifacts("home-artifacts:/m/../../mlflow.db", store)
    with pytest.raises(ValueError, match="wanted a SQLite tracking store"):
        open_artifacts("home-artifacts:/m", "http://127.0.0.1:1")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60):
            return True
    except urllib.error.URLError:
        return False


@pytest.mark.slow
def test_mlflows_own_server_finds_the_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _tracked(tmp_path / "home", "first", {"plots/x.txt": b"seen"})
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    port = free_port()
    command = [sys.executable, "-m", "ml_platform.registry.ui", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command) as server:
        try:
            while not _answers(f"{url}/health"):
                assert server.poll() is None, "the server ended"
                time.sleep(0.5)
            with urllib.request.urlopen(f"{url}/ajax-api/2.0/mlflow/artifacts/list?run_id={run}&path=plots") as answer:
                assert [file["path"] for file in json.load(answer)["files"]] == ["plots/x.txt"]
            with urllib.request.urlopen(f"{url}/get-artifact?run_uuid={run}&path=plots/x.txt") as answer:
                assert answer.read() == b"seen"
        finally:
            server.terminate()
