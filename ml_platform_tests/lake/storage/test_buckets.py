"""The tests of the lake once more, on an S3 server: a URI and the environment are all that changes."""

import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import duckdb
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.lake.query.sql import attach
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.incremental_folder import list_files, load_new_files
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.resources import build_resources
from ml_platform.settings import Settings
from ml_platform_tests.lake.contracts import test_schema_evolution
from ml_platform_tests.lake.ingestion import test_ingest, test_quarantine
from ml_platform_tests.lake.storage import test_batched_writes, test_concurrency, test_tables

LOCAL = {  # these are about files or the terminal; the long run's writers, without a pause, starve a merge over HTTP
    "test_no_row_is_lost_or_doubled_in_a_long_run",
    "test_a_lake_that_is_not_there_yet_has_no_tables_and_is_not_created",
    "test_from_the_terminal_a_csv_is_shown_corrected_and_handed_in",
    "test_from_the_terminal_rows_that_stay_are_told_by_the_exit_code",
    "test_from_the_terminal_a_table_without_rejected_rows_has_none",
    "test_a_mistake_in_the_terminal_is_explained",
}
SLOW = (test_concurrency, test_schema_evolution, test_quarantine)


def _here(test: FunctionType, slow: bool) -> FunctionType:
    """Copy a test, so that a mark on it does not reach the original."""
    twin = FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    twin.__dict__.update({**vars(test), "pytestmark": list(getattr(test, "pytestmark", []))})
    return pytest.mark.slow(twin) if slow else twin


for _module in (test_tables, test_ingest, test_batched_writes, *SLOW):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and _name not in LOCAL:
            globals()[_name] = _here(_test, slow=_module in SLOW)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server with one bucket, `lake`."""
    with subprocess.Popen(
        [sys.executable, "-m", "ml_platform_tests.s3_server"],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the S3 server did not start"
            urllib.request.urlopen(urllib.request.Request(f"{address}/lake", method="PUT")).close()
            yield address
        finally:
            process.kill()


@pytest.fixture
def uri(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of its own in the bucket; credentials and endpoint are in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return f"s3://lake/{uuid.uuid4().hex}"


@pytest.fixture
def lake(uri: str) -> Lake:
    return Lake(uri)


def test_the_platform_s_lake_is_in_the_bucket_by_the_environment_alone(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", uri)
    platform = build_resources()["platform"]
    platform.lake.append("raw/x", pl.DataFrame({"value": [1]}))
    assert Lake(Settings().lake_uri).tables() == ["raw/x"]
    assert not (tmp_path / "lake").exists()


def test_a_table_is_read_while_another_is_written_from_it(lake: Lake) -> None:
    lake.append("raw/readings", pl.DataFrame({"sensor": ["a", "b", "c"], "value": [1.0, 2.0, 3.0]}))
    with duckdb.connect() as connection:
        attach(connection, lake, ["raw/readings"])
        select = "SELECT * FROM raw.readings WHERE sensor = '{}'"  # asks the bucket anew for each frame
        version = lake.replace_in_batches(
            "raw/copy", lambda: (connection.sql(select.format(sensor)).pl() for sensor in "abc")
        )
    assert lake.read("raw/copy", version=version).sort("sensor").collect()["value"].to_list() == [1.0, 2.0, 3.0]


def test_a_bucket_that_cannot_be_reached_is_told_with_what_to_check(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", "s3://no-such-bucket/lake")
    for command in (
        ["tables", "list"],
        ["tables", "history", "raw/x"],
        ["sql", "SELECT * FROM raw.x"],
        ["quarantine", "show", "raw/x"],
    ):
        answer = CliRunner().invoke(app, command)
        assert answer.exit_code == 1
        assert answer.stderr.startswith("The lake at s3://no-such-bucket/lake cannot be reached: ")
        assert "NoSuchBucket" in answer.stderr
        assert "Check ML_PLATFORM_LAKE_URI" in answer.stderr
        assert "\x1b" not in answer.stderr


def test_files_in_a_bucket_are_a_source_too(lake: Lake, uri: str) -> None:
    def put(name: str, rows: str) -> None:
        address = f"{os.environ['AWS_ENDPOINT_URL']}/{uri.removeprefix('s3://')}/input/{name}"
        content = f"sale,amount\n{rows}".encode()
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, data=content, headers=plain, method="PUT")).close()

    for name, rows in {"1.csv": "a,1\n", "2024/2.csv": "b,2\n", "notes.txt": ""}.items():
        put(name, rows)
    declared = {
        "name": "raw/sales",
        "description": "Sales.",
        "owner": "team:shop",
        "columns": {"sale": {"type": "string", "key": True}, "amount": {"type": "number"}},
    }
    file = SourceSpec.model_validate({**declared, "name": "raw/one", "file": {"path": f"{uri}/input/1.csv"}})
    assert raw_table(file).load(lake).rows_written == 1
    folder = {"path": f"{uri}/input", "pattern": "**/*.csv", "quiet_seconds": 0}
    growing = SourceSpec.model_validate({**declared, "folder": folder})
    assert load_new_files(lake, growing).rows_written == 2
    assert load_new_files(lake, growing).rows_read == 0
    flat = SourceSpec.model_validate({**declared, "folder": {**folder, "pattern": "*.csv"}})
    assert list_files(lake, flat).read == ("1.csv",)
    put("3.csv", "c,3\n")
    assert load_new_files(lake, growing).rows_written == 1
    lake.restore(growing.name, 0)
    assert list_files(lake, growing).new == ("3.csv",)
    with pytest.raises(FileNotFoundError, match=r"No file s3://.*nothing\.csv"):
        raw_table(SourceSpec.model_validate({**declared, "file": {"path": f"{uri}/nothing.csv"}})).load(lake)
