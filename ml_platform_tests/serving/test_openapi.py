"""Requests made from the OpenAPI document, fit and unfit: none is a 5xx, and every answer is as the document says."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.governance.keys import KeyStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish


def assert_keeps_its_contract(server: Server, folder: Path, *options: str) -> None:
    """Run schemathesis with all its checks; it leaves its own files in a folder."""
    # The same requests each time; that few of what it draws fit a pattern is the generator's trouble, not the server's.
    repeatable = ("--generation-deterministic", "--suppress-health-check", "filter_too_much")
    document = f"{server.url}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", document, "--no-color", *repeatable, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "✅ Coverage" in done.stdout.replace("  ", " ")


def test_a_few_requests_of_each_kind(server: Server, tmp_path: Path) -> None:
    options = ("--phases", "examples,coverage,fuzzing", "--max-examples", "5")
    assert_keeps_its_contract(server, tmp_path, *options)
    assert server.client.post(f"/predict/{MODEL}", json=ROW).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with keys"])
def test_many_requests(settings: Settings, serve: Callable[..., Server], tmp_path: Path, guarded: bool) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    options = ["--max-examples", "300"]
    if guarded:
        _, token = KeyStore(settings.keys_dir).create("fuzz", roles=["admin"])
        options += ["--header", f"Authorization: Bearer {token}"]
    assert_keeps_its_contract(serve(settings), tmp_path, *options)


def test_the_document_tells_of_keys_and_of_the_door(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "421" in operation["responses"]
            assert ("401" in operation["responses"]) is not path.startswith("/health")
            assert "HTTPValidationError" not in str(operation)
