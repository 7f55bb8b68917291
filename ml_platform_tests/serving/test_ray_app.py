"""The app on Ray Serve: replicas on this machine that come and go, as `ml_platform.serving.ray_app` runs them."""

import json
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ml_platform.governance.audit_table import verify_audit
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.serving.ray_app import default_config, main
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import bearer, start_server
from ml_platform_tests.serving.inputs.test_parquet import HEADERS as AS_PARQUET
from ml_platform_tests.serving.inputs.test_parquet import with_pandas
from ml_platform_tests.serving.on_ray import Config, RayServer, deployment_of, ray_server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

PARQUET = with_pandas()
PATH = f"/predict/{MODEL}"
BURST = 10


@pytest.fixture(scope="module")
def on_ray(module_settings: Settings) -> Iterator[RayServer]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    with ray_server(module_settings, in_a_hurry) as server:
        yield server


def in_a_hurry(config: Config) -> None:
    """Let there be two replicas, which come and go soon."""
    deployment_of(config)["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "look_back_period_s": 2,
        "metrics_interval_s": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 2,
    }


@contextmanager
def load(url: str, clients: int, pause: float, headers: dict[str, str]) -> Iterator[Counter[int]]:
    """Let clients ask for one prediction after the other; the answers by status, once the block has ended."""
    answers: Counter[int] = Counter()
    statuses: list[int] = []  # threads that count in one Counter would lose some
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            while not ended.wait(pause):
                statuses.append(client.post(PATH, json=ROW).status_code)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        answers.update(statuses)


def log_files(settings: Settings) -> list[Path]:
    return sorted(settings.inference_log_dir.glob("*/*.jsonl"))


def live_segments(settings: Settings) -> list[Path]:
    """Files of the inference log that hold answers of a process that still lives."""
    return [path for path in log_files(settings) if psutil.pid_exists(int(path.stem.split("-")[1])) and versions(path)]


def versions(path: Path) -> list[int]:
    """Which version gave each answer of a file."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line)["version"] for line in whole.splitlines()]


def requests_counted(client: httpx.Client, headers: dict[str, str]) -> float:
    """Predictions answered, as the metrics tell."""
    text = client.get("/metrics", headers=headers).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    wanted = ("ml_platform_requests_total", {"model": MODEL, "status": "200"})
    [value] = [sample.value for sample in samples if (sample.name, sample.labels) == wanted]
    return value


REQUESTS: list[tuple[str, Callable[[httpx.Client], httpx.Response]]] = [
    ("a row", lambda client: client.post(PATH, json=ROW, headers={"X-Request-ID": "asked-1"})),
    ("rows", lambda client: client.post(PATH, json={"rows": [ROW] * 1000}, headers={"X-Request-ID": "asked-2"})),
    ("features", lambda client: client.post(PATH + "?features=true", json=ROW, headers={"X-Request-ID": "asked-3"})),
    ("wrong type", lambda client: client.post(PATH, json={**ROW, "distance": "far"}, headers={"X-Request-ID": "a"})),
    ("no JSON", lambda client: client.post(PATH, content=b"{", headers={"X-Request-ID": "asked-4"})),
    ("no model", lambda client: client.post("/predict/none", json=ROW, headers={"X-Request-ID": "asked-5"})),
    ("too large", lambda client: client.post(PATH, content=b" " * 2**25, headers={"X-Request-ID": "asked-6"})),
    ("in pieces", lambda client: client.post(PATH, content=iter([b" " * 2**20] * 20), headers={"X-Request-ID": "a"})),
    (
        "Parquet",
        lambda client: client.post("/invocations", content=PARQUET, headers={**AS_PARQUET, "X-Request-ID": "a"}),
    ),
    ("foreign host", lambda client: client.get("/models", headers={"Host": "evil.example", "X-Request-ID": "a"})),
    ("by FastAPI", lambda client: client.get(f"/models/{MODEL}", headers={"X-Request-ID": "a"})),
    ("Open Inference Protocol", lambda client: client.get(f"/v2/models/{MODEL}", headers={"X-Request-ID": "a"})),
]


@pytest.mark.slow
def test_it_answers_what_the_plain_server_answers(on_ray: RayServer, module_settings: Settings) -> None:
    plain = start_server(module_settings)
    try:
        for about, request in REQUESTS:
            wanted, found = request(plain.client), request(on_ray.client)
            assert (found.status_code, found.json()) == (wanted.status_code, wanted.json()), about
            assert found.headers.get_list("x-request-id") == [found.request.headers["x-request-id"]]
    finally:
        plain.stop()
    for path in ("/", "/docs", "/health/ready"):
        assert on_ray.client.get(path).status_code == 200
    assert len(on_ray.client.post(PATH, json=ROW).headers.get_list("x-request-id")) == 1


@pytest.mark.slow
def test_replicas_come_with_the_load_follow_releases_and_keys_and_go_again(
    on_ray: RayServer, module_settings: Settings
) -> None:
    store = KeyStore(module_settings.keys_dir)
    _, key = store.create("job", roles=["predict"])
    _, limited = store.create("limited", roles=["predict"], rate=0.001, burst=BURST)
    headers = bearer(key)
    on_ray.wait_until(lambda client: client.get("/models").status_code == 401)
    counted = requests_counted(on_ray.client, headers)
    with load(on_ray.url, 4, 0, headers) as answers:
        on_ray.wait_for_replicas(2)
        on_ray.wait_until(lambda _: len(live_segments(module_settings)) == 2, 300)
        publish(module_settings, 2)
        logged = live_segments(module_settings)
        on_ray.wait_until(lambda _: {versions(path)[-1] for path in logged} == {2}, 300)
        swapped = {path: len(versions(path)) for path in logged}
        on_ray.wait_until(lambda _: all(len(versions(path)) > lines + 20 for path, lines in swapped.items()), 300)
        assert {version for path, lines in swapped.items() for version in versions(path)[lines:]} == {2}
        statuses = Counter(
            httpx.post(on_ray.url + PATH, json=ROW, headers={"X-API-Key": limited}, timeout=60).status_code
            for _ in range(3 * BURST)
        )
        assert statuses == {200: BURST, 429: 2 * BURST}  # the replicas count together
    with load(on_ray.url, 1, 0.1, headers) as trickle:
        on_ray.wait_for_replicas(1)
    answers += trickle
    assert set(answers) == {200}, "requests failed when a replica came or went"
    assert requests_counted(on_ray.client, headers) == counted + answers[200] + BURST  # those of the ended replica too


@pytest.mark.slow
def test_what_is_under_way_is_answered_before_it_ends(on_ray: RayServer, module_settings: Settings, lake: Lake) -> None:
    _, key = KeyStore(module_settings.keys_dir).create("last", roles=["predict"])
    family = psutil.Process(on_ray.process.pid).children(recursive=True)
    on_ray.wait_until(lambda client: client.post(PATH, json=ROW, headers={"X-API-Key": key}).status_code == 200)

    late: list[httpx.Response] = []

    def is_refused(client: httpx.Client) -> bool:
        late.append(client.post(PATH, json=ROW))
        return late[-1].status_code != 401

    def slowly() -> Iterator[bytes]:
        body = json.dumps(ROW).encode()
        yield body[:20]
        on_ray.process.send_signal(signal.SIGTERM)
        on_ray.wait_until(lambda _: "RUNNING" not in on_ray.replicas())
        on_ray.wait_until(is_refused)
        yield body[20:]

    answer = httpx.post(on_ray.url + PATH, content=slowly(), headers={"X-API-Key": key}, timeout=120)
    assert answer.status_code == 200
    assert (late[-1].status_code, late[-1].json()["error"]["code"]) == (503, "unavailable")  # nobody takes it any more
    assert late[-1].headers["retry-after"] == "1"
    assert on_ray.process.wait(120) == 0
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []
    assert list(on_ray.states_file.parent.glob("ml-platform-*")) == []  # what replicas shared
    logged = [json.loads(line) for path in log_files(module_settings) for line in path.read_bytes().splitlines()]
    assert answer.json()["request_id"] in {line["request_id"] for line in logged}
    lines, findings = verify_audit(lake, module_settings)
    assert lines > 100
    assert findings == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("", "port {port} on 127.0.0.1 is taken by another process; stop it, or choose another with `http_options`"),
        ("route_prefix: [", "this is no YAML: while parsing"),
        ("import_path: nothing", 'Got invalid import path "nothing"'),
        ("max_ongoing_requests: 0", "max_ongoing_requests\n  Input should be greater than 0"),
    ],
)
def test_what_cannot_be_is_told_before_ray_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = default_config().read_text().replace("port: 8000", f"port: {port}")
        if change:
            text = re.sub(rf"{change.split(':', maxsplit=1)[0]}:.*", change, text)
        config = tmp_path / "ray_serve.yaml"
        config.write_text(text)
        assert main([str(config)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"serving: {config}: ")
    assert told.format(port=port) in error
    assert not ray.is_initialized()


def test_no_file_and_somebody_elses_cluster_are_told_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert main([]) == 1
    assert "use `serve deploy` there" in capsys.readouterr().err
