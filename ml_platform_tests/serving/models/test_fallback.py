"""A worker or a server that starts while the newest release is refused serves what was in force before."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial

import httpx
import msgspec
import pytest

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Golden, Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.traffic import withdraw
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, client_of
from ml_platform_tests.serving.releases import HASHES, MODEL, ROW, bundle, fill_online_store, publish
from ml_platform_tests.serving.test_process import both_workers_of, has_a_new_worker, workers_of

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


def publish_broken(settings: Settings, version: int) -> None:
    """Release a version that does not answer its golden rows as it must, which only a server finds out."""
    files = bundle(version)
    golden = msgspec.json.decode(files["golden.json"], type=Golden)
    files["golden.json"] = msgspec.json.encode(msgspec.structs.replace(golden, scores=(0.9, 0.9)))
    store = ReleaseStore(settings.releases_dir)
    target = Target(version=version, digest=store.put_bundle(files))
    store.publish(MODEL, [target], reason="for a test", by="pytest")


def seen(server: Server, times: int = 20) -> set[int | None]:
    """Versions that answer, None for a request that none answers."""
    found = set()
    for _ in range(times):  # on a connection each, so that every worker gets some
        answer = httpx.post(server.url + PATH, json=ROW, timeout=60)
        found.add(answer.json()["version"] if answer.status_code == 200 else None)
    return found


def refused(server: Server) -> dict[str, object] | None:
    found: dict[str, object] | None = server.client.get(f"/models/{MODEL}").json()["refused"]
    return found


@pytest.mark.slow
def test_a_replaced_worker_and_a_server_started_anew_serve_the_last_good_release(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    server.wait_until(lambda _: seen(server, 5) == {1})
    publish_broken(settings, 2)
    server.wait_until(lambda _: refused(server) is not None)
    for killed in both_workers_of(server):
        before = workers_of(server)
        os.kill(killed, signal.SIGKILL)
        server.wait_until(partial(has_a_new_worker, server, before))
    server.client.close()
    server.client = client_of(server.url)
    assert seen(server) == {1}
    server.stop()

    server = serve(settings, "--workers", "2")
    assert seen(server) == {1}
    about = server.client.get(f"/models/{MODEL}").json()
    assert (about["status"], about["endpoint_revision"], about["versions"][0]["version"]) == ("serving", 1, 1)
    assert (about["refused"]["revision"], about["refused"]["version"]) == (2, 2)
    assert "golden row 0: wanted score 0.9" in about["refused"]["reason"]
    page = server.client.get("/").text
    assert "Revision 2 is refused" in page
    assert "Revision 1 serves on" in page
    metrics = server.client.get("/metrics").text
    assert f'ml_platform_release_refused{{model="{MODEL}"}} 1.0' in metrics
    assert f'ml_platform_serving_version{{model="{MODEL}"}} 1.0' in metrics
    assert f'ml_platform_endpoint_revision{{model="{MODEL}"}} 1.0' in metrics
    assert server.client.get("/health/ready").json() == {
        "status": "ready",
        "models": {MODEL: "version 1"},
        "trouble": None,
    }

    publish(settings, 3)
    server.wait_until(lambda _: seen(server, 5) == {3})
    # Of each worker: one may have answered all five.
    server.wait_until(lambda _: refused(server) is None)
    settled = f'ml_platform_release_refused{{model="{MODEL}"}} 0.0'
    server.wait_until(lambda client: settled in client.get("/metrics").text)


def test_the_alert_of_a_server_that_starts_tells_what_serves(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    publish_broken(settings, 2)
    assert seen(serve(settings), 1) == {1}
    [alert] = [json.loads(line) for line in (settings.alerts_dir / "alerts.jsonl").read_text().splitlines()]
    assert alert["facts"]["still serves"] == "version 1 (live 100%), revision 1"


def test_what_it_falls_back_on_is_checked_as_everything_is(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    serve(settings).stop()
    publish(settings, 2)
    publish_broken(settings, 3)
    store = ReleaseStore(settings.releases_dir)
    shutil.rmtree(store.bundle_path(store.history(MODEL)[1].targets[0].digest))
    server = serve(settings)
    assert seen(server, 1) == {1}
    assert f"{MODEL}: revision 2 cannot serve in its place: bundle" in server.stop()
    with (store.bundle_path(store.history(MODEL)[0].targets[0].digest) / "model.onnx").open("ab") as file:
        file.write(b"\0")
    server = serve(settings)
    assert seen(server, 1) == {None}
    assert "golden row 0" in server.client.post(PATH, json=ROW).json()["error"]["message"]
    alerts = (settings.alerts_dir / "alerts.jsonl").read_text()
    assert len(alerts.splitlines()) == 1  # of the first start: the revision is the same


def test_what_was_withdrawn_stays_away(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    serve(settings).stop()
    withdraw(ReleaseStore(settings.releases_dir), MODEL, by="pytest", reason="test")
    publish_broken(settings, 2)
    server = serve(settings)
    assert seen(server, 1) == {None}
    assert refused(server) is not None


def test_what_was_rolled_away_from_stays_away(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    publish(settings, 2)
    server = serve(settings)
    store = ReleaseStore(settings.releases_dir)
    first = store.history(MODEL)[0].targets
    store.publish(MODEL, first, reason="version 2 is bad", by="pytest", action="rollback")
    server.wait_until(lambda _: seen(server, 1) == {1})
    server.stop()
    publish_broken(settings, 3)
    server = serve(settings)
    assert seen(server, 1) == {1}
    assert server.client.get(f"/models/{MODEL}").json()["endpoint_revision"] == 3
    server.stop()
    shutil.rmtree(store.bundle_path(first[0].digest))
    server = serve(settings)
    assert seen(server, 1) == {None}  # though version 2 is as good as ever


def test_a_document_that_cannot_be_read_leaves_the_newest_of_the_history(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    publish(settings, 2)
    serve(settings).stop()
    replace_file(ReleaseStore(settings.releases_dir).endpoint_path(MODEL), b"not JSON")
    server = serve(settings)
    server.wait_until(lambda _: seen(server, 1) == {2})
    found = refused(server)
    assert found is not None
    assert found["revision"] == 0
    assert "Its endpoint document is refused" in server.client.get("/").text


def test_a_view_that_changes_under_the_release_in_force_brings_no_older_one_back(
    settings: Settings, serve: Serve
) -> None:
    other = {**HASHES, "carrier_reliability": "f" * 64}
    fill_online_store(settings, hashes=other)
    lookups = msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest).lookups
    publish(settings, 1, lookups=[msgspec.structs.replace(one, view_hash=other[one.view]) for one in lookups])
    server = serve(settings)
    assert seen(server, 1) == {1}
    fill_online_store(settings)
    publish(settings, 2)
    server.wait_until(lambda _: seen(server, 1) == {2})
    server.stop()
    fill_online_store(settings, hashes=other)
    server = serve(settings)
    assert seen(server, 1) == {None}
    fill_online_store(settings)
    server.wait_until(lambda _: seen(server, 1) == {2})
