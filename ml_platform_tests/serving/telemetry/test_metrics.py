"""What the server tells of itself: stages of a request, queues, memory of the online store, lag of the log."""

from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.serving.stage_timer import SAMPLED
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, VIEWS, fill_online_store, publish

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


def series(server: Server) -> dict[tuple[str, ...], float]:
    """Name and label values (in the order of the labels) of every series → its value."""
    text = httpx.get(server.url + "/metrics", timeout=60).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples}


def test_stages_of_one_request_in_so_many_add_up_to_its_time(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    for _ in range(2 * SAMPLED):
        assert server.client.post(PATH, json=ROW).status_code == 200
    found = series(server)
    for stage in ("receive", "wait", "decode", "look_up", "score", "log", "encode"):
        assert found[("ml_platform_stage_seconds_count", MODEL, stage)] == 2
    assert ("ml_platform_stage_seconds_count", MODEL, "explain") not in found
    stages = sum(value for name, value in found.items() if name[0] == "ml_platform_stage_seconds_sum")
    assert 0 < stages <= found[("ml_platform_request_seconds_sum", MODEL, "1")]
    many = {"rows": [ROW] * 100}
    for _ in range(SAMPLED):
        assert server.client.post(PATH, json=many).status_code == 200
    found = series(server)
    assert {found[("ml_platform_stage_seconds_count", MODEL, stage)] for stage in ("decode", "look_up", "score")} == {3}


@pytest.mark.parametrize(
    "path", ["/invocations", f"/models/{MODEL}/invocations", f"/serving-endpoints/{MODEL}/invocations"]
)
def test_other_protocols_are_counted_and_timed_as_well(settings: Settings, serve: Serve, path: str) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    for _ in range(SAMPLED):
        assert server.client.post(path, json={"dataframe_records": [ROW, ROW]}).status_code == 200
    assert server.client.post(path, json={"dataframe_records": [{}]}).status_code == 400
    assert server.client.post(path, json={}, headers={"Content-Type": "text/plain"}).status_code == 415
    found = series(server)
    counted = {name[2]: value for name, value in found.items() if name[0] == "ml_platform_requests_total"}
    assert counted == {"200": SAMPLED, "400": 1, "415": 1}
    assert ("ml_platform_requests_total", MODEL, "200") in found
    assert found[("ml_platform_request_seconds_count", MODEL, "1")] == SAMPLED
    assert found[("ml_platform_predictions_total", MODEL, "1")] == 2 * SAMPLED
    for stage in ("receive", "translate", "wait", "decode", "look_up", "score", "log", "encode"):
        assert found[("ml_platform_stage_seconds_count", MODEL, stage)] == 1


def test_the_online_stores_memory_is_counted(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    for _ in range(5):
        server.client.post(PATH, json=ROW)
    found = series(server)
    assert found[("ml_platform_online_reads_total", "store")] == len(VIEWS)
    assert found[("ml_platform_online_reads_total", "memory")] == 4 * len(VIEWS)
    assert series(server)[("ml_platform_online_reads_total", "memory")] == 4 * len(VIEWS)  # looking counts nothing


def test_lag_of_the_log_falls_with_the_ingest(settings: Settings, lake: Lake, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    server.client.post(PATH, json=ROW)
    found = series(server)
    [segment] = settings.inference_log_dir.glob("*/*.jsonl")
    assert found[("ml_platform_inference_log_lag_bytes", MODEL)] == segment.stat().st_size > 100
    assert ("ml_platform_inference_log_ingested_timestamp_seconds", MODEL) not in found
    ingest_log(lake, settings)
    found = series(server)
    assert found[("ml_platform_inference_log_lag_bytes", MODEL)] == 0
    assert found[("ml_platform_inference_log_ingested_timestamp_seconds", MODEL)] > 1.7e9
    taken = segment.stat().st_size
    server.client.post(PATH, json=ROW)
    assert series(server)[("ml_platform_inference_log_lag_bytes", MODEL)] == segment.stat().st_size - taken > 100


def test_gauges_of_all_workers_are_added(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    found = series(server)
    assert found[("ml_platform_active_requests",)] == 0
    assert found[("ml_platform_queue_length", "large")] == found[("ml_platform_queue_length", "shadow")] == 0
    assert found[("ml_platform_serving_version", MODEL)] == 1
