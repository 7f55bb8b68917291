"""What reaches the inference log of a model that samples, redacts and hashes; what happens when its disk is full."""

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import InferenceLogPolicy
from ml_platform.settings import Settings
from ml_platform_tests.needs import lacking
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, fill_online_store, publish
from ml_platform_tests.webhook import Receiver

PATH = "/predict/flight_delay"
DISTANCE = 5151.0625  # in digits that no score, digest or time of a log line can hold
HIDDEN = InferenceLogPolicy(redact=("tailnum", "distance"), hash=("carrier", "dest"))
Serve = Callable[..., Server]


def rows(count: int = 40) -> list[dict[str, Any]]:
    made = [
        {**ROW, "flight_id": str(number), "tailnum": f"N-SECRET-{number}", "distance": DISTANCE}
        for number in range(count)
    ]
    for number, row in enumerate(made):
        row |= {"carrier": ("UA", "AA", "ZZ-PRIVATE")[number % 3], "dest": None if number % 4 == 0 else "PLACE"}
    return made


def written(settings: Settings) -> bytes:
    """Every byte below the log's folder."""
    return b"".join(path.read_bytes() for path in settings.inference_log_dir.rglob("*") if path.is_file())


def ingested(settings: Settings) -> pl.DataFrame:
    lake = Lake(settings.lake_uri)
    ingest_log(lake, settings)
    return lake.read("inference_log/flight_delay").sort("request_id", "row").collect()


def metric(client: httpx.Client, name: str) -> float:
    found = re.findall(rf"^ml_platform_{name}_total{{[^}}]*}} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_redacted_values_never_reach_disk_and_hashed_ones_still_group(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    changes: dict[str, dict[str, Any]] = {
        "dest": {"required": False},
        "carrier": {"allowed": ("UA", "AA"), "flagged": ("allowed",)},
    }
    inputs = tuple(msgspec.structs.replace(field, **changes.get(field.name, {})) for field in INPUTS)
    publish(settings, 1, inputs=inputs, inference_log=HIDDEN)
    server = serve(settings)
    together = server.client.post(PATH, json={"rows": rows()}, headers={"X-Request-ID": "all"}).json()
    alone = []
    for number, row in enumerate(rows()):
        answer = server.client.post(f"{PATH}?features=true", json=row, headers={"X-Request-ID": f"one-{number:03}"})
        alone += answer.json()["predictions"]
    assert alone[0]["features"]["distance"] == DISTANCE  # whoever asks is answered in full
    assert [one["prediction"] for one in alone] == [one["prediction"] for one in together["predictions"]]
    server.stop()

    on_disk = written(settings)
    for secret in (b"N-SECRET", str(DISTANCE).encode(), b"ZZ-PRIVATE", b"PLACE", b'"UA"', b"tailnum"):
        assert secret not in on_disk
    table = ingested(settings)
    for part in (table.filter(request_id="all"), table.filter(pl.col("request_id").str.starts_with("one-"))):
        logged = [json.loads(text) for text in part["inputs"]]
        assert all({"tailnum", "distance"}.isdisjoint(row) for row in logged)
        assert part["distance"].null_count() == part.height
        assert len(set(part["carrier"])) == 3
        assert [row["carrier"] for row in logged] == part["carrier"].to_list()
        assert all(re.fullmatch("[0-9a-f]{32}", row["carrier"]) for row in logged)
        assert {row["dest"] is None for row in logged[::4]} == {True}
        assert part["id"].to_list() == [str(number) for number in range(40)]
        assert part["minute_of_day"].null_count() == 0
        flags = [flag for marks in part["flags"].to_list() for flag in marks or ()]
        assert {(flag["field"], flag["message"]) for flag in flags} == {("carrier", "not logged")}
        assert len(flags) == 13
    same = [name for name in table.columns if name not in ("request_id", "row", "scored_at", "score", "inputs")]
    assert (
        table.filter(request_id="all")
        .select(same)
        .equals(table.filter(pl.col("request_id").str.starts_with("one-")).select(same))
    )
    file = settings.keys_dir / "inference_log.secret"
    assert (len(file.read_bytes()), file.stat().st_mode & 0o077) == (32, 0)


def test_features_computed_from_redacted_inputs_are_withheld_too(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1, inference_log=InferenceLogPolicy(redact=("scheduled_arrival",)))
    server = serve(settings)
    server.client.post(PATH, json={"rows": [ROW] * 20})
    server.client.post(PATH, json=ROW)
    server.stop()
    table = ingested(settings)
    assert table["scheduled_minutes"].null_count() == table.height == 21
    assert table["minute_of_day"].null_count() == 0


def test_a_sample_is_chosen_by_request_and_says_what_it_stands_for(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1, 2, inference_log=InferenceLogPolicy(sample=0.25), shares=(0.5, 0.5))
    server = serve(settings)
    asked = [f"request-{number}" for number in range(400)]
    nameless = {key: value for key, value in ROW.items() if key != "flight_id"}  # the request's id chooses the version
    for name in asked:
        assert server.client.post(PATH, json=nameless, headers={"X-Request-ID": name}).status_code == 200
    assert metric(server.client, "predictions") == 400
    unsampled = metric(server.client, "inference_log_unsampled")
    server.stop()
    table = ingested(settings)
    assert table.height == 400 - unsampled
    assert 75 <= table.height <= 125
    assert table["sample_weight"].unique().to_list() == [4.0]
    by_version = table["model_version"].value_counts(sort=True)["count"].to_list()
    assert min(by_version) > 30  # both versions are sampled
    again = serve(settings)
    for name in asked[:50]:
        again.client.post(PATH, json=nameless, headers={"X-Request-ID": name})
    again.stop()
    names = ingested(settings)["request_id"].to_list()
    assert set(names) == set(table["request_id"])  # the same requests, whoever answers


@pytest.fixture
def full_disk(settings: Settings) -> Iterator[Callable[[], None]]:
    """Put the log on a file system of 1 MiB; the function given frees it again after `fill`."""
    folder = settings.inference_log_dir
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        lacking(f"this user may not mount a tmpfs: {mounted.stderr.strip()}")
    yield (folder / "filler").unlink
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all that is left of a file system."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError:
            os.fsync(file.fileno())


@pytest.mark.parametrize("fallback", ["refuse", "count"])
def test_a_full_file_system(
    settings: Settings, serve: Serve, full_disk: Callable[[], None], fallback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_LOG_FALLBACK", fallback)
    check_full(settings, serve, fallback, lambda _: fill(settings.inference_log_dir), lambda _: full_disk())


@pytest.mark.parametrize("fallback", ["refuse", "count"])
def test_a_file_that_may_not_grow(
    settings: Settings, serve: Serve, fallback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_LOG_FALLBACK", fallback)

    def limit(size: int) -> Callable[[Server], None]:
        return lambda server: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, -1)) and None

    check_full(settings, serve, fallback, limit(600), limit(-1))


@pytest.mark.parametrize("alerts_fit", [True, False], ids=["the log's disk", "the disk of everything"])
def test_a_log_that_cannot_be_written_is_alerted_once_and_its_recovery_too(
    settings: Settings, serve: Serve, receiver: Receiver, alerts_fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERT_WEBHOOK_URL", receiver.url)
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).status_code == 200
    body = {"rows": [{**ROW, "dest": "x" * 2000} for _ in range(20)]}
    most = 5_000 if alerts_fit else 10  # bytes of a file
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, -1))
    for _ in range(3):
        assert server.client.post(PATH, json=body).status_code == 503
    server.wait_until(lambda _: len(receiver.taken) == 1)
    assert server.client.post(PATH, json=body).status_code == 503
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    server.wait_until(lambda _: len(receiver.taken) == 2)
    assert server.client.get("/health/ready").status_code == 200
    assert [one["kind"] for one in receiver.taken] == ["inference_log_failed", "inference_log_resolved"]
    assert receiver.taken[0]["model"] == MODEL
    server.stop()
    assert len(receiver.taken) == 2


def test_a_failure_that_an_earlier_server_told_of_is_resolved_by_the_next(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    first = serve(settings)
    assert first.client.post(PATH, json=ROW).status_code == 200
    resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (5_000, -1))
    body = {"rows": [{**ROW, "dest": "x" * 2000} for _ in range(20)]}
    assert first.client.post(PATH, json=body).status_code == 503
    file = settings.alerts_dir / "alerts.jsonl"
    first.wait_until(lambda _: any(settings.alerts_dir.glob("told/log-*")))
    first.stop(signal.SIGKILL)
    again = serve(settings)
    again.wait_until(lambda _: "inference_log_resolved" in file.read_text())
    assert again.client.post(PATH, json=ROW).status_code == 200


def check_full(
    settings: Settings, serve: Serve, fallback: str, fill_up: Callable[[Server], Any], free: Callable[[Server], Any]
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    client = server.client
    body = {"rows": [{**ROW, "dest": "x" * 2000} for _ in range(20)]}
    good = client.post(PATH, json=ROW, headers={"X-Request-ID": "before"})
    fill_up(server)
    bad = client.post(PATH, json=body, headers={"X-Request-ID": "during"})
    if fallback == "refuse":
        assert (bad.status_code, bad.json()["error"]["code"]) == (503, "log_unavailable")
        assert bad.headers["retry-after"] == "5"
        assert "/" not in bad.json()["error"]["message"]  # no path of this server
        found = client.get("/health/ready")
        assert (found.status_code, found.json()["status"]) == (503, "not ready")
        assert "the inference log of flight_delay cannot be written" in found.json()["trouble"]
        assert "/" not in found.json()["trouble"]
        assert [client.get(path).status_code for path in ("/v2/health/ready", "/ping", "/health/live")] == [
            503,
            404,
            200,
        ]
        assert (metric(client, "inference_log_failures"), metric(client, "inference_log_lost")) == (1, 0)
    else:
        assert bad.json()["degraded"] == ["inference_log"]
        [said] = good.json()["predictions"]
        assert [one["prediction"] for one in bad.json()["predictions"]] == [said["prediction"]] * 20
        assert (metric(client, "inference_log_failures"), metric(client, "inference_log_lost")) == (0, 20)
        assert client.get("/health/ready").status_code == 200
    free(server)
    server.wait_until(lambda client: client.get("/health/ready").status_code == 200)  # without any request
    after = client.post(PATH, json=ROW, headers={"X-Request-ID": "after"})
    assert good.status_code == after.status_code == 200
    assert "degraded" not in after.json()
    told = server.stop()
    said = "refused, because they cannot be logged" if fallback == "refuse" else "answered and not logged"
    assert f"flight_delay: 1 requests since the last such line were {said}" in told
    assert "ERROR" in told
    assert ingested(settings)["request_id"].to_list() == ["after", "before"]
