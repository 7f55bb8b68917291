"""Reads on record: each one a line of the chained log, found by object, column, reader and time."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.governance.audit_table import ingest_audit, verify_audit
from ml_platform.governance.keys import KeyStore
from ml_platform.governance.read_history import reads, span, what_read, who_read
from ml_platform.lake.access import AccessDenied, TableRead
from ml_platform.lake.bound import bound_lake
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.alerts.conditions import conditions
from ml_platform.orchestration.audit_asset import ALERT, audit
from ml_platform.orchestration.resources import build_resources
from ml_platform.settings import Settings

TABLE = "raw/customers"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    made = Settings()
    Lake(made.lake_uri).append(TABLE, pl.DataFrame({"id": [1, 2], "email": ["a@x", "b@x"]}))
    return made


def kept(settings):
    return reads(Lake(settings.lake_uri), settings)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_an_open_platform_writes_no_read_down_unless_told(settings):
    assert bound_lake(settings, "sql").reads is None
    bound_lake(settings, "sql").read(TABLE).collect()
    assert not settings.audit_dir.exists()
    told = settings.model_copy(update={"audit_reads": True})
    bound_lake(told, "notebook").read(TABLE).collect()
    (row,) = kept(settings).rows(named=True)
    assert (row["object"], row["version"], row["columns"], row["path"]) == (
        "raw.customers", 0, ["id", "email"], "notebook",
    )  # fmt: skip
    assert row["who"].startswith("user:")


def test_reads_of_a_key_are_found_by_column_reader_and_month(settings, monkeypatch):
    _, token = KeyStore(settings.keys_dir).create("nightly job", roles=["admin"])
    with pytest.raises(AccessDenied):
        bound_lake(settings, "sql")
    monkeypatch.setenv("ML_PLATFORM_KEY", token)
    answer = run("sql", "SELECT count(*) FROM raw.customers WHERE email LIKE 'a%'")
    assert answer.exit_code == 0, answer.output
    found = kept(settings)
    assert set(found["who"]) == {"service:nightly job"}
    assert what_read(found, "nightly job").height == who_read(found, ["raw.customers"], ["email"]).height == 1
    assert who_read(found, ["raw.customers"], ["id"]).is_empty()
    month = f"{datetime.now(UTC):%Y-%m}"
    shown = run("audit", "who-read", "raw.customers", "--in", month, "--columns", "email", "--format", "csv")
    assert "service:nightly job,raw.customers,sql,1" in shown.output
    assert run("audit", "who-read", "raw.customers", "--in", "2001").exit_code == 1
    assert "raw.customers" in run("audit", "what-read", "nightly job").output
    assert "A year, month or day" in run("audit", "what-read", "x", "--in", "May").output
    monkeypatch.delenv("ML_PLATFORM_KEY")
    assert run("audit", "who-read", "raw.customers").exit_code == 1


def test_requests_to_the_server_are_reads_of_views_and_models(settings):
    log = AuditLog(settings.audit_dir, settings.keys_dir)
    for path, status in (("/features/weather/lookup", 200), ("/predict/churn", 403), ("/metrics", 200)):
        log.record(Entry(time=datetime.now(UTC), name="app", method="POST", path=path, status=status, rows=3))
    log.close()
    found = kept(settings)
    assert found.select("object", "path", "rows", "refused").rows() == [
        ("features.weather", "lookup", 3, False),
        ("model:churn", "prediction", 3, True),
    ]


def test_reads_of_threads_and_a_killed_process_are_all_there_and_chained(settings):
    told = settings.model_copy(update={"audit_reads": True})
    lake = bound_lake(told, "sql")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: lake.read(TABLE).collect(), range(40)))
    code = (
        "import os, signal; from ml_platform.lake.bound import bound_lake; from ml_platform.settings import Settings\n"
        f"lake = bound_lake(Settings(), 'batch'); [lake.read('{TABLE}') for _ in range(5)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"ML_PLATFORM_AUDIT_READS": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    found = kept(settings)
    assert found["path"].value_counts().sort("path").rows() == [("batch", 5), ("sql", 40)]
    plain = Lake(settings.lake_uri)
    ingest_audit(plain, settings)
    assert kept(settings).height == 45
    assert verify_audit(plain, settings)[1] == []


def test_refused_reads_are_told_by_the_check_and_an_alert(settings):
    told = settings.model_copy(update={"audit_reads": True})
    listener = bound_lake(told, "sql").reads
    assert listener is not None
    for _ in range(12):
        listener(TableRead("user:eve", TABLE, None, ("email",), None, "sql", is_refused=True))
    result = dg.materialize([audit], resources=build_resources(settings), raise_on_error=True)
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "usual_access"]
    assert not check.passed
    (condition,) = [one for one in conditions(settings) if one.kind == ALERT]
    assert condition.subject == "refusals of user:eve"
    answer = run("audit", "unusual")
    assert answer.exit_code == 1
    assert "user:eve was refused 12 reads" in answer.output


def test_spans_of_time():
    assert span("2024-12-31")[1] == datetime(2025, 1, 1, tzinfo=UTC)
    assert span("2024") == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
