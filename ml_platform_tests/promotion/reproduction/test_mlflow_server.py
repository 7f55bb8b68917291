"""A version of an MLflow server on PostgreSQL is made again, and its report is kept there."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.promotion.reproduction.keep import keep
from ml_platform.promotion.reproduction.pages import reproduction_text
from ml_platform.promotion.reproduction.reproduce import reproduce
from ml_platform.promotion.versions import register
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port
from ml_platform_tests.postgres_server import running_postgres
from ml_platform_tests.promotion.reproduction.test_reproduce import project
from ml_platform_tests.toy_world import START, build_shops, shop_spec

pytestmark = pytest.mark.slow


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[str]:
    """Run `mlflow server` on a database, which it makes its tables in, and give its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        (folder / "mlflow.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quiet}, cwd=folder) as process,
    ):
        try:
            deadline = time.monotonic() + 300
            while True:
                assert process.poll() is None, (folder / "mlflow.log").read_text()
                assert time.monotonic() < deadline, "MLflow does not answer"
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_version_of_a_server_on_postgresql_is_equal_and_has_its_report(tmp_path: Path) -> None:
    with (
        running_postgres() as url,
        mlflow_server(url.replace("postgresql:", "postgresql+psycopg:"), tmp_path) as server,
    ):
        settings = Settings(home=tmp_path / "home", tracking_uri=server)
        spec = shop_spec(families=["logistic_regression"], tuning={"trials": 1, "seed": 7})
        shops = build_shops(settings, tmp_path / "shop", spec, rows=3000)
        trained = shops.train(START + timedelta(days=50))
        version = register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
        store, defs = ReleaseStore(settings.releases_dir), project(tmp_path / "defs", shops)
        report = reproduce(shops.lake, store, defs, "order_late", version.version, by="somebody", search=True)
        assert report.verdict == "equal", "\n".join(reproduction_text(report))
        assert keep(store, shops.tracker, report) == ()
        entry = shops.tracker.client.get_model_version("order_late", str(version.version))
        assert entry.tags["reproduced"] == report.line
        names = [item.path for item in shops.tracker.client.list_artifacts(entry.run_id, "reproductions")]
        assert len(names) == 3
        assert "recipe.json" in [item.path for item in shops.tracker.client.list_artifacts(entry.run_id)]
