"""A page from elsewhere reaches nothing through a name that points here; the names that people use keep working."""

import socket
from collections.abc import Callable

import httpx
import pytest
from pydantic import ValidationError

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.access.hosts import Hosts
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.releases import MODEL, ROW

FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "evil.example@localhost",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "localhost:8000:8000",
    "[::1",
    "local host",
    "",
    "\xff",
]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [("POST", f"/predict/{MODEL}"), ("GET", "/models"), ("GET", "/health")])
def test_a_foreign_host_gets_421(server: Server, method: str, path: str, host: str) -> None:
    body = ROW if method == "POST" else None
    answer = server.client.request(method, path, json=body, headers={b"Host": host.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "misdirected")
    assert "evil" not in answer.text
    assert answer.headers["connection"] == "close"


def test_other_protocols_are_told_in_their_shape(server: Server) -> None:
    headers = {"Host": "evil.example"}
    assert server.client.post("/invocations", json={}, headers=headers).json()["error_code"] == "BAD_REQUEST"
    assert set(server.client.get("/v2", headers=headers).json()) == {"error"}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_the_machines_own_names_are_answered(server: Server, host: str) -> None:
    assert server.client.post(f"/predict/{MODEL}", json=ROW, headers={"Host": host}).status_code == 200


def test_http_1_1_wants_a_host_and_1_0_knows_none(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for version, wanted in (("1.1", b"400"), ("1.0", b"200")):
        with socket.create_connection((host, int(port)), 60) as raw:
            raw.sendall(f"GET /health/live HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
            assert raw.recv(12)[-3:] == wanted


def test_named_hosts_are_answered_with_keys_too(
    settings: Settings, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_ALLOWED_HOSTS", "ml.example.com, *.internal")
    monkeypatch.setenv("ML_PLATFORM_SERVING_URL", "https://scores.example.com/ml")
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    server = serve(settings)

    def status(host: str) -> int:
        headers = {"Host": host, **bearer(token)}
        return server.client.get("/models", headers=headers).status_code

    for good in ("ml.example.com:443", "Scores.Example.com", "a.b.internal", "localhost"):
        assert status(good) == 200
    for foreign in ("internal", "xinternal", "other.example.com", "ml.example.com.evil.example"):
        assert status(foreign) == 421


def test_the_address_that_was_connected_to_is_answered() -> None:
    hosts = Hosts()
    assert hosts.answers(b"10.0.0.5:8000", ("10.0.0.5", 8000))
    assert hosts.answers(b"[fe80::1]", ("fe80::1", 8000))
    assert not hosts.answers(b"10.0.0.6", ("10.0.0.5", 8000))
    assert not hosts.answers(b"socket", ("socket", None))  # a path is no address
    assert not Hosts().answers(b"10.0.0.5", None)


def test_spellings_that_are_remembered_are_bounded() -> None:
    hosts = Hosts(["*.internal"])
    for number in range(3000):
        assert hosts.answers(f"{number}.internal".encode(), None)
    assert len(hosts._good) == 1000


def test_any_host_and_mistaken_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_ALLOWED_HOSTS", "*")
    assert Hosts(ServingSettings().allowed_hosts).any
    for wrong in ("https://ml.example.com", "ml.example.com:8000", "a b"):
        monkeypatch.setenv("ML_PLATFORM_SERVING_ALLOWED_HOSTS", wrong)
        with pytest.raises(ValidationError, match="without scheme and port"):
            ServingSettings()


def test_the_name_to_listen_on_is_answered(settings: Settings, serve: Callable[..., Server]) -> None:
    name = socket.gethostname()
    try:
        socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's name stands for no address")
    KeyStore(settings.keys_dir).create("job", roles=["predict"])
    server = serve(settings, "--host", name)
    assert server.url.startswith(f"http://{name}:")
    assert httpx.get(f"{server.url}/health/live", timeout=60).status_code == 200
