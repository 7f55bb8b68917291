"""Releases that come and go while requests are answered."""

from collections.abc import Callable
from functools import partial

import httpx
import pytest

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models.reloader import POLL_SECONDS
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.load import is_seen, judged
from ml_platform_tests.serving.releases import HASHES, MODEL, ROW, bundle, fill_online_store, publish

PATH = "/predict/flight_delay"
Serve = Callable[..., Server]


def version(client: httpx.Client) -> int | None:
    answer = client.post(PATH, json=ROW)
    return answer.json()["version"] if answer.status_code == 200 else None


def test_before_the_first_release_503_says_so_and_soon_after_it_answers(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    server = serve(settings)
    answer = server.client.post(PATH, json=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_release")
    assert "no model has been released yet" in answer.json()["error"]["message"]
    ready = server.client.get("/health/ready")
    assert (ready.status_code, ready.json()["trouble"]) == (503, "no model has been released yet")
    assert "No model has been released yet" in server.client.get("/").text
    publish(settings, 1)
    server.wait_until(lambda client: version(client) == 1)
    assert server.client.get("/health/ready").status_code == 200
    assert 2 * POLL_SECONDS < 1  # within a second, where the machine has the time


@pytest.mark.slow
def test_twenty_five_swaps_under_load_fail_no_request_and_give_no_wrong_answer(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    store = ReleaseStore(settings.releases_dir)
    digests = {number: store.put_bundle(bundle(number)) for number in range(1, 6)}
    with judged(server, digests) as seen:
        for swap in range(25):
            number = 2 + swap % 4
            store.publish(MODEL, [Target(version=number, digest=digests[number])], reason="swap", by="pytest")
            asked = len(seen)
            server.wait_until(partial(is_seen, number, seen, asked))
        server.wait_until(lambda _: len(seen) > 100)
    assert set(seen) >= {2, 3, 4, 5}


def test_a_damaged_bundle_is_refused_and_the_old_version_stays(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(2))
    store.publish(MODEL, [Target(version=2, digest=digest)], reason="good when published", by="pytest")
    server.wait_until(lambda client: version(client) == 2)
    broken = store.put_bundle(bundle(3))
    graph = store.bundle_path(broken) / "model.onnx"
    content = graph.read_bytes()
    document = store.endpoint_path(MODEL)
    text = document.read_text().replace(digest, broken).replace('"version": 2', '"version": 3')
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    replace_file(document, text.replace('"revision": 2', '"revision": 3').encode())

    def refused(client: httpx.Client) -> bool:
        return client.get("/models").json()["models"][0]["refused"] is not None

    server.wait_until(refused)
    found = server.client.get("/models").json()["models"][0]
    assert (found["status"], found["versions"][0]["version"], found["endpoint_revision"]) == ("serving", 2, 2)
    assert found["refused"]["revision"] == 3
    assert "altered or damaged" in found["refused"]["reason"]
    assert version(server.client) == 2
    metrics = server.client.get("/metrics").text
    assert 'ml_platform_release_refused{model="flight_delay"} 1.0' in metrics
    assert "is refused" in server.client.get("/").text
    publish(settings, 4)
    server.wait_until(lambda client: version(client) == 4)
    assert server.client.get("/models").json()["models"][0]["refused"] is None


def test_a_model_trained_on_another_definition_of_a_view_is_refused_until_the_store_has_it(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings, hashes={**HASHES, "origin_weather": "f" * 64})
    publish(settings, 1)
    server = serve(settings)
    answer = server.client.post(PATH, json=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    message = answer.json()["error"]["message"]
    assert "'origin_weather' is ffffffffffff in the online store, the model was trained on aaaaaaaaaaaa" in message
    assert "materialise online/origin_weather" in message
    assert server.client.get("/health/ready").json()["models"] == {"flight_delay": "refused"}
    fill_online_store(settings)
    server.wait_until(lambda client: version(client) == 1)


def test_a_view_that_changes_under_a_serving_model_stops_it_rather_than_feed_it_wrong_values(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert version(server.client) == 1
    fill_online_store(settings, hashes={**HASHES, "carrier_reliability": "f" * 64})
    server.wait_until(lambda client: version(client) is None)
    assert "carrier_reliability" in server.client.post(PATH, json=ROW).json()["error"]["message"]
    assert server.client.get("/models").json()["models"][0]["status"] == "unavailable"


def test_a_view_that_was_never_published_is_told(settings: Settings, serve: Serve) -> None:
    publish(settings, 1)
    server = serve(settings)
    message = server.client.post(PATH, json=ROW).json()["error"]["message"]
    assert "there is no online store: materialise online/origin_weather" in message


def test_versions_share_the_traffic_as_the_document_says_and_an_id_stays_with_one(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1, 2, shares=[0.75, 0.25])
    server = serve(settings)

    def versions() -> list[int]:
        return [
            server.client.post(PATH, json={**ROW, "flight_id": f"flight {number}"}).json()["version"]
            for number in range(200)
        ]

    first = versions()
    assert versions() == first
    assert 25 <= first.count(2) <= 75
    shares = {
        entry["version"]: entry["share"] for entry in server.client.get("/models").json()["models"][0]["versions"]
    }
    assert shares == {1: 0.75, 2: 0.25}
