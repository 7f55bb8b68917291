"""Who asks too often is told so, without harm to anybody else, whichever worker and protocol."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.access.rate_limit import Buckets, Limits, create_table
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


def test_a_bucket_empties_by_the_burst_and_fills_by_the_rate() -> None:
    buckets = Buckets()
    assert [buckets.take("a", 2.0, 3, now=100.0) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    assert buckets.take("b", 2.0, 3, now=100.0) == 0  # another's
    assert buckets.take("a", 2.0, 3, now=100.4) == pytest.approx(0.1)
    assert buckets.take("a", 2.0, 3, now=100.5) == 0
    assert [buckets.take("a", 2.0, 3, now=200.0) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]  # never fuller


def test_over_time_exactly_the_rate_passes() -> None:
    buckets = Buckets()
    passed = sum(buckets.take("a", 50.0, 10, now=step / 1000) == 0 for step in range(10_000))
    assert passed == pytest.approx(50 * 10 + 10, abs=2)


def test_any_number_of_callers_fit_a_table_of_fixed_size() -> None:
    buckets = Buckets()
    size = len(buckets._map)
    for number in range(200_000):
        buckets.take(f"address {number}", 1.0, 1, now=number / 1000)
    assert len(buckets._map) == size <= 2 * 2**20
    buckets.take("new", 1.0, 1, now=200.0)
    assert buckets.take("new", 1.0, 1, now=200.0) == 1.0


def test_processes_share_a_table(tmp_path: Path) -> None:
    create_table(tmp_path)
    one, two = Buckets(tmp_path / "rates"), Buckets(tmp_path / "rates")
    assert one.take("a", 1.0, 2, now=5.0) == two.take("a", 1.0, 2, now=5.0) == 0
    assert one.take("a", 1.0, 2, now=5.0) == two.take("a", 1.0, 2, now=5.0) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one customer's /64
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_addresses_of_one_network_are_one_caller(first: str, second: str, same: bool) -> None:
    limits = Limits(ServingSettings(rate=0.001))
    limits.check({"path": "/models", "client": (first, 1), "headers": []})
    for _ in range(3):
        limits.check({"path": "/health/live", "client": (first, 1), "headers": []})  # probes are never turned away
    if same:
        with pytest.raises(Refused, match="try again"):
            limits.check({"path": "/models", "client": (second, 1), "headers": []})
    else:
        limits.check({"path": "/models", "client": (second, 1), "headers": []})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_keys_rate_holds_over_all_workers_and_protocols(settings: Settings, serve: Serve, workers: int) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = KeyStore(settings.keys_dir)
    _, slow = store.create("slow", roles=["predict"], rate=0.002, burst=5)
    _, free = store.create("free", roles=["predict"])
    server = serve(settings, "--workers", str(workers))
    server.wait_until(lambda client: client.get("/health/ready").status_code == 200)
    headers = {"X-API-Key": slow}  # each on a connection of its own, so that both workers have some
    answers = [httpx.post(server.url + PATH, json=ROW, headers=headers, timeout=60) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 7
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    assert 400 <= int(answers[-1].headers["retry-after"]) <= 500
    assert server.client.post("/invocations", json={}, headers=headers).json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    answer = server.client.get(f"/v2/models/{MODEL}", headers=headers)
    assert (answer.status_code, set(answer.json())) == (429, {"error"})
    assert "retry-after" in answer.headers
    for _ in range(20):
        assert server.client.post(PATH, json=ROW, headers={"X-API-Key": free}).status_code == 200
    assert server.client.get("/health/live", headers=headers).status_code == 200
    told = server.client.get("/metrics", headers={"X-API-Key": free}).text
    assert 'ml_platform_rejected_early_total{status="429"} 9.0' in told
    assert 'ml_platform_turned_away_total{status="429"} 9.0' in told  # its former name, for one minor version
    server.stop()  # a line is written after its answer has left
    lines = [json.loads(line) for path in settings.audit_dir.glob("*") for line in path.read_text().splitlines()]
    assert sum(line.get("status") == 429 and line["name"] == "slow" for line in lines) == 9


def test_guessing_keys_is_slowed_down_by_address(
    settings: Settings, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_RATE", "0.01")
    monkeypatch.setenv("ML_PLATFORM_SERVING_BURST", "3")
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    server = serve(settings)
    found = [server.client.get("/models", headers={"X-API-Key": "guess"}).status_code for _ in range(5)]
    assert found == [401, 401, 401, 429, 429]
    assert server.client.get("/models", headers={"X-API-Key": token}).status_code == 200


def test_an_open_server_counts_addresses_and_lets_them_in_again(
    settings: Settings, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_RATE", "2")
    monkeypatch.setenv("ML_PLATFORM_SERVING_BURST", "1")
    server = serve(settings)
    answer = server.client.get("/models")
    assert answer.status_code == 200
    while answer.status_code == 200:  # until two come within half a second
        answer = server.client.get("/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert "connection" not in answer.headers  # the same connection may come again
    time.sleep(1)
    assert server.client.get("/models").status_code == 200


def test_mistaken_rates_are_refused(settings: Settings) -> None:
    store = KeyStore(settings.keys_dir)
    for rate, burst in ((0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, 0), (None, 5)):
        with pytest.raises(ValueError, match="rate"):
            store.create("job", roles=["predict"], rate=rate, burst=burst)
    key, _ = store.create("job", roles=["predict"], rate=5.0, burst=7)
    turned, _ = store.rotate(key.id)
    assert (turned.rate, turned.burst) == (5.0, 7)
    with pytest.raises(ValidationError, match="rate"):
        ServingSettings(rate=0)


@pytest.fixture(scope="module")
def limited(module_settings: Settings) -> Iterator[tuple[Server, str, str]]:
    """A server, a key for two requests a second, and one without a rate."""
    fill_online_store(module_settings)
    publish(module_settings, 1)
    store = KeyStore(module_settings.keys_dir)
    _, slow = store.create("slow", roles=["predict"], rate=2.0, burst=1)
    _, free = store.create("free", roles=["predict"])
    server = start_server(module_settings)
    yield server, slow, free
    server.stop()


def rejected_early(server: Server, key: str) -> float:
    lines = server.client.get("/metrics", headers={"X-API-Key": key}).text.splitlines()
    return sum(
        float(line.split()[1]) for line in lines if line.startswith('ml_platform_rejected_early_total{status="429"')
    )


def test_the_databricks_sdk_waits_as_long_as_it_is_told(limited: tuple[Server, str, str]) -> None:
    from databricks.sdk import WorkspaceClient

    server, slow, free = limited
    endpoints = WorkspaceClient(host=server.url, token=slow, auth_type="pat").serving_endpoints
    before = rejected_early(server, free)
    while rejected_early(server, free) == before:  # until two come within half a second
        assert len(endpoints.query(MODEL, dataframe_records=[ROW]).predictions or []) == 1


def test_mlflow_deployments_wait_as_long_as_they_are_told(
    limited: tuple[Server, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.deployments import get_deploy_client

    server, slow, free = limited
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", slow)
    client = get_deploy_client("databricks")
    before = rejected_early(server, free)
    while rejected_early(server, free) == before:
        assert len(client.predict(endpoint=MODEL, inputs={"dataframe_records": [ROW]})["predictions"]) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("POST", f"/models/{MODEL}/invocations"),
        ("POST", f"/serving-endpoints/{MODEL}/invocations"),
        ("GET", f"/api/2.0/serving-endpoints/{MODEL}"),
    ],
)
def test_too_many_requests_are_told_so_in_mlflows_and_databricks_words(
    limited: tuple[Server, str, str], method: str, path: str
) -> None:
    server, slow, _ = limited
    for _ in range(50):
        answer = server.client.request(method, path, headers={"X-API-Key": slow})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert answer.json() == {
        "error_code": "REQUEST_LIMIT_EXCEEDED",
        "message": "more than 2 requests per second: try again in 1 s",
    }
    assert answer.headers["retry-after"] == "1"
