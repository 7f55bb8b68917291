"""A server without keys answers its own machine alone, and only until there is a key."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from ml_platform.governance.keys import RELOAD_SECONDS, KeyStore
from ml_platform.serving.access.authorization import Access
from ml_platform.serving.http.messages import Refused
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port
from ml_platform_tests.serving.conftest import Server, answering, bearer
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

ROOT = Path(__file__).parents[3]


def test_the_first_key_soon_shuts_an_open_server(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert server.client.get("/models").status_code == 200
    _, token = KeyStore(settings.keys_dir).create("first", roles=["predict"])
    server.wait_until(lambda client: client.get("/models").status_code == 401)
    assert server.client.get("/models", headers=bearer(token)).status_code == 200
    (settings.keys_dir / "keys.json").write_text("{")
    end = time.monotonic() + 3 * RELOAD_SECONDS
    answers = set()
    while time.monotonic() < end:
        answers.add(server.client.get("/models").status_code)
        time.sleep(0.05)
    assert answers <= {401, 503}  # a damaged file opens nothing: 503 where the request is the one that finds it so


def start_on_all(settings: Settings, *command: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "ML_PLATFORM_HOME": str(settings.home)}
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_without_keys_it_refuses_to_listen_elsewhere(settings: Settings) -> None:
    refused = start_on_all(settings, "ml_platform.serving", "--host", "0.0.0.0", "--port", "0")
    _, told = refused.communicate(timeout=120)
    assert refused.returncode == 1
    assert "no API keys" in told
    assert "ml-platform keys create" in told
    KeyStore(settings.keys_dir).create("job", roles=["predict"])
    started = start_on_all(settings, "ml_platform.serving", "--host", "0.0.0.0", "--port", "0")
    try:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("serving: http://0.0.0.0:")
    finally:
        started.terminate()
        started.communicate(timeout=120)


@pytest.mark.parametrize(
    ("address", "comes_in"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.5", False),
        ("12.7.0.1", False),
        ("fe80::1", False),
    ],
)
def test_only_loopback_addresses_are_the_machines_own(settings: Settings, address: str, comes_in: bool) -> None:
    access = Access(KeyStore(settings.keys_dir), lambda: None)
    with nullcontext() if comes_in else pytest.raises(Refused, match="answers its own machine only"):
        access.check_open({"client": (address, 1)})


def test_without_keys_it_answers_its_own_machine_alone_however_it_was_started(settings: Settings) -> None:
    address = next(
        (found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
         if not str(found[4][0]).startswith("127.")), None
    )  # fmt: skip
    if address is None:
        pytest.skip("this machine has no address but its loopback")
    port = free_port()
    process = start_on_all(settings, "uvicorn", "serving.app:app", "--host", "0.0.0.0", "--port", str(port))
    try:
        assert answering(f"http://127.0.0.1:{port}/health/live").status_code == 200
        answer = httpx.get(f"http://{address}:{port}/models", timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_keys")
    finally:
        process.terminate()
        process.communicate(timeout=120)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null"])
def test_a_page_from_elsewhere_cannot_write_to_a_server_without_keys(
    settings: Settings, serve: Callable[..., Server], origin: str
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    # What a browser sends for a page's `fetch(url, {method: "POST", mode: "no-cors", body: text})`, unasked.
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    for path in (f"/predict/{MODEL}", f"/models/{MODEL}/invocations", "/features/origin_weather"):
        answer = server.client.post(path, content=json.dumps(ROW), headers=headers)
        assert answer.status_code == 403
        assert "answers no pages but its own" in answer.text
    assert list(settings.inference_log_dir.glob("*/*.jsonl")) == []
    own = server.client.post(f"/predict/{MODEL}", json=ROW, headers={"Origin": server.url})
    assert own.status_code == 200
