"""A project's state is examined without changing it; what is broken is named, with what to do."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.doctor.databases import DAGSTER_DATABASES
from ml_platform.doctor.examination import examine
from ml_platform.doctor.findings import Finding
from ml_platform.doctor.sqlite_files import library_schema
from ml_platform.features.online.publish import publish_view
from ml_platform.features.online.sqlite_store import SqliteOnlineStore
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.private_files import make_private
from ml_platform.processes.child import NAME_MARK, RUNNER_MARK
from ml_platform.processes.platform import dagster_home
from ml_platform.registry.digests import bundle_digest
from ml_platform.registry.manifest import Target
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import sqlite_file
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port
from ml_platform_tests.toy_world import Shops


@pytest.fixture(scope="module")
def healthy(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a project whose model serves: lake, releases, online store, MLflow, Dagster's databases."""
    world, trained = trained_shops
    home = shutil.copytree(world.settings.home, tmp_path_factory.mktemp("healthy") / "home")
    shops = Shops(type(world.settings)(home=home), world.folder, world.spec, world.views)
    shops.store.publish(world.spec.name, [Target(version=1, digest=trained.digest)], reason="test", by="test")
    with SqliteOnlineStore(sqlite_file(shops.settings.online_uri)) as online:
        for view in world.views.values():
            publish_view(shops.lake, view, online)
    dagster_home(shops.settings)
    for name in DAGSTER_DATABASES:
        write_revision(home / "dagster_home" / name, library_schema("dagster", "_core/storage/alembic/versions").newest)
    make_private(home)
    return home


def write_revision(file: Path, revision: str) -> None:
    """Make a database whose schema is at a revision."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    connection.close()


@pytest.fixture
def home(project: Callable[..., Path], healthy: Path) -> Path:
    """The healthy home as a copy to break, of a project of its own."""
    root = project()
    (root / "shop" / "defs").mkdir(parents=True)
    (root / "requirements.lock").write_text("")
    return shutil.copytree(healthy, root / "data")


def wrong() -> list[Finding]:
    """What is not fine; ports are the machine's and may be anybody's."""
    return [one for one in examine() if one.status != "ok" and one.check != "ports"]


def only(check: str) -> Finding:
    """The one finding that is not fine, of this check."""
    [finding] = wrong()
    assert finding.check == check, finding
    assert finding.remedy
    return finding


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Contents and modes of all that is in a folder."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def test_a_healthy_state_is_fine_and_stays_as_it_is(home: Path) -> None:
    before = digests(home.parent)
    assert wrong() == []
    printed = CliRunner().invoke(app, ["doctor", "--json"])
    assert digests(home.parent) == before
    document = json.loads(printed.output)
    assert document["formats"]["release manifest"] == [1]
    assert document["formats"]["online store in SQLite"] == [0]
    assert {"releases", "tables", "Dagster", "tracking", "clock"} <= {one["check"] for one in document["findings"]}
    assert any("1 bundles, 1 versions serve" in one["message"] for one in document["findings"])


def test_nothing_is_made_by_looking_at_a_project_that_never_ran(project: Callable[..., Path]) -> None:
    root = project("dev: {home: state}")
    (root / "shop" / "defs").mkdir(parents=True)
    (root / "requirements.lock").write_text("")
    before = digests(root)
    assert wrong() == []
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
    assert digests(root) == before


def test_a_torn_log_of_a_table(home: Path) -> None:
    newest = max((home / "lake" / "raw" / "orders" / "_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:40])
    found = only("tables")
    assert found.status == "error"
    assert found.message.startswith("raw/orders cannot be opened")
    assert "from a backup" in found.remedy


def test_a_file_of_a_table_that_is_gone(home: Path) -> None:
    next((home / "lake" / "raw" / "loads").glob("*.parquet")).unlink()
    assert "raw/loads at version 0 lacks 1 of its 1 files" in only("tables").message


def test_a_file_of_a_table_that_is_cut_off(home: Path) -> None:
    file = next((home / "lake" / "raw" / "loads").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    assert "raw/loads at version 0 has another size than was written in 1 of its 1 files" in only("tables").message


def test_a_table_whose_log_is_gone(home: Path) -> None:
    shutil.rmtree(home / "lake" / "raw" / "loads" / "_delta_log")
    found = only("tables")
    assert found.status == "warning"
    assert found.message.endswith("raw/loads holds Parquet files and no _delta_log, so it is no table")


@pytest.mark.slow  # the store is asked several times
def test_a_lake_that_cannot_be_reached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", "s3://no-such-bucket/lake")
    found = next(one for one in wrong() if one.check == "tables")
    assert "s3://no-such-bucket/lake cannot be reached" in found.message
    assert "ML_PLATFORM_LAKE_URI" in found.remedy


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "postgresql://ml:s3cret@127.0.0.1:{port}/mlflow"])
def test_a_tracking_server_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("ML_PLATFORM_TRACKING_URI", uri.format(port=free_port()))
    found = only("tracking")
    assert "127.0.0.1" in found.message
    assert "s3cret" not in found.message
    assert "ML_PLATFORM_TRACKING_URI" in found.remedy


def test_a_file_where_a_folder_is_wanted(home: Path) -> None:
    shutil.rmtree(home / "releases")
    (home / "releases").write_text("")
    assert "releases is a file, a folder is wanted" in next(one for one in wrong() if one.check == "folders").message


@pytest.mark.parametrize(("file", "check"), [("mlflow.db", "tracking"), ("dagster_home/history/runs.db", "Dagster")])
def test_a_database_that_is_cut_off(home: Path, file: str, check: str) -> None:
    whole = (home / file).read_bytes()
    (home / file).write_bytes(whole[:-100])
    found = only(check)
    assert "it is cut off" in found.message
    assert found.remedy == f"restore {home / file} from a backup"


def test_a_document_of_the_history_that_is_no_json(home: Path) -> None:
    document = next((home / "releases" / "history").rglob("*.json"))
    document.write_text("{")
    found = only("releases")
    assert document.name in found.message
    assert "from a backup" in found.remedy


def test_a_file_of_the_bundle_that_serves_is_gone(home: Path) -> None:
    next((home / "releases" / "bundles").glob("*/model.onnx")).unlink()
    found = only("releases")
    assert found.status == "error"
    assert "version 1, which serves" in found.message
    assert "missing model.onnx" in found.message
    assert "ml-platform rollback" in found.remedy
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_a_bundle_of_a_newer_format(home: Path) -> None:
    [bundle] = (home / "releases" / "bundles").iterdir()
    manifest = json.loads((bundle / "manifest.json").read_text()) | {"format": 2, "what_is_new": 1}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    digest = bundle_digest({path.name: path.read_bytes() for path in bundle.iterdir()})
    bundle.rename(bundle.parent / digest)
    [document] = (home / "releases" / "endpoints").iterdir()
    document.write_text(document.read_text().replace(bundle.name, digest))
    serving, formats = wrong()
    assert "its manifest has the format 2, this engine reads 1" in serving.message
    assert formats.message == "release manifest: format 2 is stored, 1 can be read"
    assert "go back to the engine that wrote it" in formats.remedy


def test_an_endpoint_document_that_is_no_json(home: Path) -> None:
    [document] = (home / "releases" / "endpoints").iterdir()
    document.write_text("{")
    found = only("releases")
    assert "not an endpoint document" in found.message
    assert "history" in found.remedy


def test_an_online_store_that_is_no_database(home: Path) -> None:
    (home / "online.db").write_bytes(b"no database at all" * 100)
    found = only("online store")
    assert found.status == "error"
    assert "file is not a database" in found.message
    assert "materialise the assets online/<view>" in found.remedy


def test_an_online_store_of_another_format(home: Path) -> None:
    with sqlite3.connect(home / "online.db") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    messages = [one.message for one in wrong()]
    assert any("has the format 7, which is not read here" in message for message in messages)
    assert "online store in SQLite: format 7 is stored, 0 can be read" in messages


def test_an_online_store_that_lacks_what_a_release_looks_up(home: Path) -> None:
    (home / "online.db").unlink()
    found = only("releases")
    assert "looks up the view shop_load, of which the online store holds none of it" in found.message
    assert "materialise online/shop_load" in found.remedy


def test_an_online_store_that_cannot_be_reached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_ONLINE_URI", f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    found = only("online store")
    assert found.status == "error"
    assert "s3cret" not in found.message


@pytest.mark.parametrize(
    ("file", "package", "folder", "command"),
    [
        ("dagster_home/history/runs.db", "dagster", "_core/storage/alembic/versions", "dagster instance migrate"),
        ("mlflow.db", "mlflow", "store/db_migrations/versions", "mlflow db upgrade"),
    ],
)
def test_a_database_of_another_schema(home: Path, file: str, package: str, folder: str, command: str) -> None:
    schema = library_schema(package, folder)
    write_revision(home / file, min(schema.known - {schema.newest}))
    older = wrong()
    assert [one.status for one in older] == ["error"]
    assert "has an older schema" in older[0].message
    assert command in older[0].remedy
    write_revision(home / file, "ffffffffffff")
    assert "a newer one wrote it" in wrong()[0].message


def test_secrets_and_files_that_others_can_read(home: Path) -> None:
    (home / "mlflow.db").chmod(0o644)
    found = only("permissions")
    assert (found.status, found.message) == ("warning", "others can read: mlflow.db")
    (home / "keys").mkdir(mode=0o700)
    (home / "keys" / "audit.secret").write_bytes(b"x")
    (home / "keys" / "audit.secret").chmod(0o644)
    found = only("permissions")
    assert found.status == "error"
    assert found.message == "others can read secrets: keys/audit.secret"
    assert "chmod -R go=" in found.remedy


def test_the_secret_of_an_audit_log_is_gone(home: Path) -> None:
    log = AuditLog(Settings().audit_dir, home / "keys")
    log.record(Entry(time=datetime.now(UTC), action="key created"))
    log.close()
    assert not wrong()
    (home / "keys" / "audit.secret").unlink()
    missing = only("logs")
    assert missing.status == "error"
    assert missing.message.startswith("keys/audit.secret is not there")
    assert "from a backup" in missing.remedy


def test_a_lock_that_is_held_is_named_with_its_holder(home: Path) -> None:
    path = home / "releases" / "locks" / "late.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        path.chmod(0o600)
        assert wrong() == []  # a file that nobody holds is no lock
        fcntl.flock(file, fcntl.LOCK_EX)
        found = only("locks")
        assert found.message.startswith(f"releases/locks/late.lock is held by pid {os.getpid()} (")
        assert f"kill {os.getpid()}" in found.remedy


def test_a_clock_that_is_behind_what_was_written(home: Path) -> None:
    [document] = (home / "releases" / "endpoints").iterdir()
    later = time.time() + 7200
    os.utime(document, (later, later))
    found = only("clock")
    assert found.status == "error"
    assert str(document) in found.message


@pytest.mark.parametrize(("least", "status"), [("_LEAST", "error"), ("_LITTLE", "warning")])
def test_a_disk_that_is_nearly_full(home: Path, monkeypatch: pytest.MonkeyPatch, least: str, status: str) -> None:
    """Of which any real disk has less free than is wanted here."""
    monkeypatch.setattr(f"ml_platform.doctor.home.{least}", 2**62)
    found = only("disk")
    assert found.status == status
    assert str(home) in found.message


def test_a_log_that_does_not_get_into_the_lake(home: Path) -> None:
    log = SegmentLog(home / "inference_log", "inference log")
    log.append("late", [msgspec.defstruct("Line", [("n", int)])(1)])
    log.close()
    make_private(home)
    assert wrong() == []
    [segment] = (home / "inference_log" / "late").glob("*.jsonl")
    long_ago = time.time() - 3 * 86_400
    os.utime(segment, (long_ago, long_ago))
    found = only("logs")
    assert found.message.startswith("inference log of late: 8 bytes wait to get into the lake, the oldest for 3.0 days")


def test_a_port_that_somebody_else_has(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("ML_PLATFORM_SERVING_PORT", str(port))
        [found] = [one for one in examine() if one.check == "ports" and "serving" in one.message]
        assert found.status == "warning"
        assert found.message.startswith(f"{port}, meant for serving, is taken by pid {os.getpid()}")


def test_a_process_that_a_killed_run_left(home: Path) -> None:
    marks = {"ML_PLATFORM_HOME": str(home), NAME_MARK: "serving", RUNNER_MARK: "999999999.1.x"}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command, env={**os.environ, **marks}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        found = only("processes")
        assert found.message == f"serving, pid {process.pid}, is left from a run that was killed"
        process.kill()


def test_what_is_installed_is_held_against_pin_extras_and_lock(home: Path) -> None:
    root = home.parent
    (root / "pyproject.toml").write_text(
        '[project]\nname = "shop"\ndependencies = ["dagster-ml-platform[platform, docs]==0.0.1"]\n'
        '[tool.dg.project]\nroot_module = "shop"\n'
    )
    (root / "requirements.lock").write_text("polars==0.1\nno-such-package==1\n")
    found = {one.check: one for one in wrong()}
    assert set(found) == {"engine", "lock"}
    assert "pins 0.0.1" in found["engine"].message or "in place of the pinned 0.0.1" in found["engine"].message
    assert "in place of 0.1" in found["lock"].message
    (root / "requirements.lock").unlink()
    assert "is missing" in next(one for one in wrong() if one.check == "lock").message


def doctor_without(left_out: tuple[str, ...], root: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command by a Python that has all of this one's packages but those whose names begin so."""
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(left_out):
            (packages / path.name).symlink_to(path)
    return subprocess.run(
        [sys.executable, "-S", "-m", "ml_platform", "doctor"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{PROJECT_ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_extra_that_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    """By a Python that has all of this one's packages but those of PostgreSQL."""
    (home.parent / "pyproject.toml").write_text(
        '[project]\nname = "shop"\ndependencies = ["dagster-ml-platform[postgres]==0.0.1"]\n'
        '[tool.dg.project]\nroot_module = "shop"\n'
    )
    done = doctor_without(("psycopg",), home.parent, tmp_path)
    assert "ERROR   extras: the extra 'postgres' is wanted, and psycopg is not installed" in done.stdout, done.stderr
    assert "→ add postgres to the brackets behind dagster-ml-platform in pyproject.toml, then make setup" in done.stdout
    assert done.returncode == 1


def test_the_extra_that_a_model_needs_is_named_with_the_line(home: Path, tmp_path: Path) -> None:
    """By a Python that has all of this one's packages but those of XGBoost and Ray."""
    model = home.parent / "shop" / "defs" / "sales"
    model.mkdir(parents=True)
    (model / "defs.yaml").write_text(
        "type: ml_platform.orchestration.TabularModel\n"
        "attributes:\n"
        "  families: [ridge, xgboost]\n"
        "  tuning:\n"
        "    executor: ray\n"
    )
    done = doctor_without(("xgboost", "ray"), home.parent, tmp_path)
    assert "ERROR   extras: the extra 'xgboost' is needed by sales/defs.yaml:3, and xgboost-cpu is not" in done.stdout
    assert "ERROR   extras: the extra 'ray' is needed by sales/defs.yaml:5, and ray is not installed" in done.stdout
    assert "→ add xgboost to the brackets behind dagster-ml-platform in pyproject.toml, then make setup" in done.stdout
    assert done.returncode == 1


def test_settings_that_cannot_be_used_are_told_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.parent / "environments.yaml").write_text("dev: {lake_url: x}")
    found = only("settings")
    assert "unknown setting 'lake_url'" in found.message
    (home.parent / "environments.yaml").write_text("dev:\n  lake_retention_days: 7\n")
    monkeypatch.setenv("ML_PLATFORM_LAKE_RETENTION_DAYS", "8")
    found = only("settings")
    assert found.status == "warning"
    assert found.message == "ML_PLATFORM_LAKE_RETENTION_DAYS wins over line 2 of environments.yaml"


def test_without_a_project_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
    [found] = examine()
    assert (found.check, found.status) == ("project", "error")
