"""Several versions behind one endpoint: sticky shares, and shadows that are scored and never answer."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store, publish, score

PATH = "/predict/flight_delay"
Serve = Callable[..., Server]


def with_shadow(settings: Settings) -> ReleaseStore:
    fill_online_store(settings)
    store = ReleaseStore(settings.releases_dir)
    targets = [
        Target(version=1, digest=store.put_bundle(bundle(1))),
        Target(version=2, digest=store.put_bundle(bundle(2)), share=0.0, mode="shadow"),
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")
    return store


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def logged(settings: Settings, model: str) -> list[dict[str, Any]]:
    paths = settings.inference_log_dir.glob(f"{model}/*.jsonl")
    return [msgspec.json.decode(line) for path in paths for line in path.read_bytes().splitlines()]


def test_the_same_key_is_always_answered_by_the_same_version_and_all_keys_as_the_shares_say(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1, 2, shares=(0.75, 0.25))
    servers = [serve(settings), serve(settings)]
    chosen = {}
    for number in range(400):
        row = {**ROW, "flight_id": f"flight-{number}"}
        chosen[number] = servers[0].client.post(PATH, json=row).json()["version"]
    counts = Counter(chosen.values())
    assert 60 <= counts[2] <= 140  # 100 expected, and four standard deviations are 35
    for number in range(0, 400, 10):  # another process, other rows beside it: the same version
        row = {**ROW, "flight_id": f"flight-{number}", "distance": 7}
        many = {"rows": [row, *({**ROW, "flight_id": f"other-{other}"} for other in range(30))]}
        assert servers[1].client.post(PATH, json=row).json()["version"] == chosen[number]
        assert servers[1].client.post(PATH, json=many).json()["version"] == chosen[number]
    for version, count in counts.items():
        name = f'ml_platform_predictions_total{{model="flight_delay",version="{version}"}}'
        assert metric(servers[0].client, name) == count
        name = f'ml_platform_request_seconds_count{{model="flight_delay",version="{version}"}}'
        assert metric(servers[0].client, name) == count


def test_a_shadow_is_scored_and_logged_apart_and_never_answers(settings: Settings, serve: Serve) -> None:
    with_shadow(settings)
    server = serve(settings)
    for number in range(20):
        answer = server.client.post(PATH, json={**ROW, "flight_id": str(number)}).json()
        assert answer["version"] == 1
    server.client.post(PATH, json={"rows": [{**ROW, "flight_id": f"m{number}"} for number in range(30)]})
    shadowed = 'ml_platform_shadow_predictions_total{model="flight_delay",version="2"}'
    server.wait_until(lambda client: metric(client, shadowed) == 50)
    assert metric(server.client, 'ml_platform_predictions_total{model="flight_delay",version="2"}') == 0
    server.stop()
    lake = Lake(settings.lake_uri)
    ingest_log(lake, settings)
    live = lake.read("inference_log/flight_delay").collect()
    shadow = lake.read("inference_log/flight_delay__shadow").collect()
    assert live["model_version"].unique().to_list() == [1]
    assert shadow["model_version"].unique().to_list() == [2]
    both = live.join(shadow, on=["request_id", "row"], suffix="_shadow")
    assert both.height == live.height == shadow.height == 50
    assert both["id"].equals(both["id_shadow"])
    one = both.filter(pl.col("id") == "3")
    assert one["score"].item() == pytest.approx(score(1, ROW), abs=1e-12)
    assert one["score_shadow"].item() == pytest.approx(score(2, ROW), abs=1e-12)


def test_a_shadow_that_cannot_be_loaded_keeps_nothing_from_serving(settings: Settings, serve: Serve) -> None:
    store = with_shadow(settings)
    endpoint = store.endpoint(MODEL)
    assert endpoint is not None
    graph = store.bundle_path(endpoint.targets[1].digest) / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).json()["version"] == 1
    assert metric(server.client, 'ml_platform_shadow_refused{model="flight_delay"}') == 1
    assert "altered or damaged" in server.client.get("/models/flight_delay").json()["shadow_refused"]["reason"]
    assert server.client.post(f"{PATH}/versions/2", json=ROW).status_code == 404


def test_a_bad_row_for_the_shadow_alone_is_counted_and_the_answer_stands(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    store = ReleaseStore(settings.releases_dir)
    inputs = msgspec.json.decode(bundle(1)["manifest.json"])["inputs"]
    assert inputs[-1]["name"] == "distance"
    from ml_platform_tests.serving.releases import INPUTS

    narrow = (*INPUTS[:-1], msgspec.structs.replace(INPUTS[-1], maximum=2000.0))
    targets = [
        Target(version=1, digest=store.put_bundle(bundle(1))),
        Target(version=2, digest=store.put_bundle(bundle(2, inputs=narrow)), share=0.0, mode="shadow"),
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")
    server = serve(settings)
    assert server.client.post(PATH, json={**ROW, "distance": 2500}).status_code == 200
    lost = 'ml_platform_shadow_lost_total{model="flight_delay",reason="InvalidRequest",version="2"}'
    server.wait_until(lambda client: metric(client, lost) == 1)
    assert logged(settings, "flight_delay__shadow") == []
