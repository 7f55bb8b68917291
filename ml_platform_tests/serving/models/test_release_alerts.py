"""Who owns a model is told once of a release that was refused, by whichever worker, and over restarts."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from ml_platform.atomic_files import replace_file
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.registry.digests import bundle_digest
from ml_platform.registry.manifest import Endpoint, Golden, Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.traffic import withdraw
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.slots import EndpointState, Refusal
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import (
    HASHES,
    MODEL,
    ROW,
    announce,
    bundle,
    fill_online_store,
    publish,
)
from ml_platform_tests.webhook import Receiver

PATH = f"/predict/{MODEL}"
NO_WEBHOOK = AlertSettings(webhook_url="")
Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def webhook(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("ML_PLATFORM_ALERT_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("ML_PLATFORM_ALERT_PAUSE_SECONDS", "0.01")
    return receiver


def digest_differs(settings: Settings, revision: int = 2) -> None:
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(2))
    with (store.bundle_path(digest) / "model.onnx").open("ab") as file:
        file.write(b"\0")
    announce(settings, digest, revision)


def signature_differs(settings: Settings, revision: int = 2) -> None:
    files = bundle(2)
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    files["manifest.json"] = msgspec.json.encode(msgspec.structs.replace(manifest, threshold=0.1))
    digest = bundle_digest(files)
    folder = ReleaseStore(settings.releases_dir).bundle_path(digest)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    announce(settings, digest, revision)


def golden_answers_differ(settings: Settings, revision: int = 2) -> None:
    files = bundle(2)
    golden = msgspec.json.decode(files["golden.json"], type=Golden)
    files["golden.json"] = msgspec.json.encode(msgspec.structs.replace(golden, scores=(0.9, 0.9)))
    announce(settings, ReleaseStore(settings.releases_dir).put_bundle(files), revision)


def views_differ(settings: Settings, revision: int = 2) -> None:
    lookups = msgspec.json.decode(bundle(2)["manifest.json"], type=Manifest).lookups
    first = msgspec.structs.replace(lookups[0], view_hash="f" * 64)
    publish(settings, revision, lookups=(first, *lookups[1:]))


def bundle_is_gone(settings: Settings, revision: int = 2) -> None:
    announce(settings, "0" * 64, revision)


BAD = {
    digest_differs: "altered or damaged",
    signature_differs: "the manifest names model digest",
    golden_answers_differ: "golden row 0: wanted score 0.9",
    views_differ: "'origin_weather' is aaaaaaaaaaaa in the online store",
    bundle_is_gone: "is not in the release store",
}


def count(client: httpx.Client, metric: str) -> float:
    """Sum over all workers."""
    found = re.findall(rf"^\w+_{metric}(?:\{{.*\}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def served_by(server: Server, workers: int) -> None:
    server.wait_until(lambda client: count(client, "swaps_total") >= workers)


def refused_by(server: Server, workers: int) -> None:
    server.wait_until(lambda client: count(client, "release_refusals_total") >= workers)


def written(settings: Settings) -> list[dict[str, Any]]:
    path = settings.alerts_dir / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def settle(server: Server, settings: Settings, receiver: Receiver, alerts: int) -> None:
    """Wait until all alerts are with the webhook, and a while longer, in which no other may come."""
    server.wait_until(lambda _: len(receiver.taken) >= alerts)
    time.sleep(0.7)  # several looks of each worker
    assert len(receiver.taken) == len(written(settings)) == alerts


def test_two_workers_tell_of_each_refused_release_once_and_a_restart_not_again(
    settings: Settings, serve: Serve, receiver: Receiver
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    served_by(server, 2)
    for revision, (spoil, reason) in enumerate(BAD.items(), start=2):
        spoil(settings, revision)
        refused_by(server, 2 * (revision - 1))
        settle(server, settings, receiver, revision - 1)
        alert = receiver.taken[-1]
        assert (alert["model"], alert["kind"], alert["severity"]) == (MODEL, "release_refused", "error")
        assert alert["title"] == f"version {revision} is refused"
        assert reason in alert["body"]
        assert alert["facts"]["revision"] == revision
        assert alert["facts"]["still serves"] == "version 1 (live 100%), revision 1"
        assert "release another" in alert["facts"]["to do"]
        assert alert["text"].startswith(f"[error] {MODEL}: version {revision} is refused\n")
        assert server.client.post(PATH, json=ROW).json()["version"] == 1
        assert server.client.get(f"/models/{MODEL}").json()["refused"]["version"] == revision
    server.stop()
    server = serve(settings, "--workers", "2")
    refused_by(server, 2)
    settle(server, settings, receiver, len(BAD))
    publish(settings, 50)
    settle(server, settings, receiver, len(BAD) + 1)
    alert = receiver.taken[-1]
    assert (alert["model"], alert["kind"], alert["severity"]) == (MODEL, "release_resolved", "info")
    assert alert["title"] == f"resolved: revision {len(BAD) + 2} is in force, in the place of what was refused"
    assert alert["facts"]["serves"] == "version 50 (live 100%)"
    assert "version 3 is refused (revision 3)" in alert["facts"]["was told"]
    assert set(alert["facts"]["alerts"]) == {told["id"] for told in receiver.taken[:-1]}
    server.stop()
    server = serve(settings, "--workers", "2")
    served_by(server, 2)
    settle(server, settings, receiver, len(BAD) + 1)


@pytest.mark.slow
def test_a_release_that_was_mended_is_told_of_once_by_two_workers(
    settings: Settings, serve: Serve, receiver: Receiver
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    publish(settings, 2)
    store = ReleaseStore(settings.releases_dir)
    graph = store.bundle_path(store.history(MODEL)[1].targets[0].digest) / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content + b"\0")
    server = serve(settings, "--workers", "2")
    refused_by(server, 2)
    settle(server, settings, receiver, 1)
    assert receiver.taken[0]["facts"]["still serves"] == "version 1 (live 100%), revision 1"
    server.stop()
    graph.write_bytes(content)
    server = serve(settings, "--workers", "2")
    served_by(server, 2)
    settle(server, settings, receiver, 2)
    alert = receiver.taken[1]
    assert alert["title"] == "resolved: revision 2, which was refused, is in force"
    assert alert["text"].startswith(f"[info] {MODEL}: resolved: ")
    assert alert["facts"]["was told"] == "version 2 is refused (revision 2)"


def test_what_is_taken_out_of_service_ends_its_alert(settings: Settings, serve: Serve, receiver: Receiver) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    bundle_is_gone(settings)
    settle(server, settings, receiver, 1)
    withdraw(ReleaseStore(settings.releases_dir), MODEL, by="pytest", reason="test")
    settle(server, settings, receiver, 2)
    assert receiver.taken[1]["title"] == "resolved: revision 3 takes it out of service"


@pytest.mark.slow
def test_a_view_that_changes_under_a_model_is_told_of_each_time(
    settings: Settings,
    serve: Serve,
    receiver: Receiver,
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    served_by(server, 2)
    for times in (1, 2):
        fill_online_store(settings, hashes={**HASHES, "carrier_reliability": "f" * 64})
        refused_by(server, 2 * times)
        settle(server, settings, receiver, 2 * times - 1)
        assert receiver.taken[-1]["facts"]["still serves"] == "nothing: requests are answered 503"
        assert "materialise online/carrier_reliability" in receiver.taken[-1]["body"]
        fill_online_store(settings)
        # Of each worker: they keep the gauge for themselves, and the highest is shown.
        server.wait_until(lambda client: count(client, "release_refused") == 0)
        server.wait_until(lambda client: {client.post(PATH, json=ROW).status_code for _ in range(20)} == {200})
        settle(server, settings, receiver, 2 * times)
        assert receiver.taken[-1]["title"] == "resolved: revision 1, which was refused, is in force"
    assert not list((settings.alerts_dir / "told").glob("live-*"))


def test_a_document_that_cannot_be_read_is_told_of_once_over_a_restart(
    settings: Settings,
    serve: Serve,
    receiver: Receiver,
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    replace_file(ReleaseStore(settings.releases_dir).endpoint_path(MODEL), b"not JSON")
    refused_by(server, 1)
    settle(server, settings, receiver, 1)
    assert receiver.taken[0]["title"] == "its endpoint document is refused"
    assert "restore it from the history folder" in receiver.taken[0]["body"]
    assert receiver.taken[0]["facts"]["still serves"] == "version 1 (live 100%), revision 1"
    server.stop()
    server = serve(settings)
    refused_by(server, 1)
    settle(server, settings, receiver, 1)
    publication = max((ReleaseStore(settings.releases_dir).folder / "history" / MODEL).iterdir())
    replace_file(ReleaseStore(settings.releases_dir).endpoint_path(MODEL), publication.read_bytes())
    settle(server, settings, receiver, 2)
    assert receiver.taken[1]["facts"]["was told"] == "its endpoint document is refused"


def test_a_refused_shadow_is_told_of_as_a_warning(
    settings: Settings,
    serve: Serve,
    receiver: Receiver,
) -> None:
    fill_online_store(settings)
    store = ReleaseStore(settings.releases_dir)
    digests = {version: store.put_bundle(bundle(version)) for version in (1, 2)}
    shadow = Target(version=2, digest=digests[2], share=0.0, mode="shadow")
    store.publish(MODEL, [Target(version=1, digest=digests[1]), shadow], reason="test", by="pytest")
    (store.bundle_path(digests[2]) / "golden.json").unlink()
    server = serve(settings)
    settle(server, settings, receiver, 1)
    [alert] = receiver.taken
    assert (alert["severity"], alert["title"]) == ("warning", "shadow version 2 is refused")
    assert alert["facts"]["still serves"] == "version 1 (live 100%), revision 1"
    assert server.client.post(PATH, json=ROW).json()["version"] == 1


def test_what_the_webhook_did_not_take_is_counted_and_offered_again_by_the_next_start(
    settings: Settings,
    serve: Serve,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERT_ATTEMPTS", "1")
    receiver.statuses = [500]
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    digest_differs(settings)
    server.wait_until(lambda client: count(client, "alert_failures_total") == 1)
    assert (receiver.attempts, receiver.taken) == (1, [])
    assert server.client.post(PATH, json=ROW).json()["version"] == 1
    assert "HTTP 500" in server.stop()
    server = serve(settings)
    settle(server, settings, receiver, 1)


def test_alerts_that_cannot_be_written_keep_nothing_from_serving_and_come_later(
    settings: Settings,
    serve: Serve,
    receiver: Receiver,
) -> None:
    settings.home.mkdir()
    settings.alerts_dir.write_text("a file where the folder is to be")
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    views_differ(settings)  # which is looked at every 2 seconds
    server.wait_until(lambda client: count(client, "alert_failures_total") >= 1)
    assert server.client.post(PATH, json=ROW).json()["version"] == 1
    settings.alerts_dir.unlink()
    settle(server, settings, receiver, 1)
    publish(settings, 3)
    server.wait_until(lambda client: client.post(PATH, json=ROW).json()["version"] == 3)
    assert "cannot be written" in server.stop()


def refusal_of(updated_at: str) -> tuple[EndpointState, Refusal, Endpoint]:
    endpoint = Endpoint(
        model=MODEL,
        revision=2,
        targets=(Target(version=2, digest="0" * 64),),
        updated_at=updated_at,
        updated_by="pytest",
        reason="test",
    )
    return EndpointState(MODEL, None), Refusal(2, "damaged", datetime.now(UTC), 2), endpoint


def test_the_same_revision_of_a_store_that_was_set_up_anew_is_told_of(settings: Settings) -> None:
    for updated_at in ("2026-01-01", "2026-01-01", "2026-01-02"):
        ReleaseAlerts(settings, Metrics(), NO_WEBHOOK).version_refused(*refusal_of(updated_at))
    assert [alert["facts"]["revision"] for alert in written(settings)] == [2, 2]


def test_a_release_that_is_refused_again_after_it_was_in_force_is_told_of_again(settings: Settings) -> None:
    alerts = ReleaseAlerts(settings, Metrics(), NO_WEBHOOK)
    slot, refused, endpoint = refusal_of("2026-01-01")
    for _ in range(2):
        alerts.version_refused(slot, refused, endpoint)
        alerts.version_refused(slot, replace(refused, reason="found otherwise"), endpoint)
        alerts.settled(endpoint)
    assert [alert["kind"] for alert in written(settings)] == 2 * ["release_refused", "release_resolved"]


def test_a_live_version_that_is_accepted_says_nothing_of_a_refused_shadow(settings: Settings) -> None:
    alerts = ReleaseAlerts(settings, Metrics(), NO_WEBHOOK)
    slot, refused, endpoint = refusal_of("2026-01-01")
    alerts.version_refused(slot, refused, endpoint, is_shadow=True)
    alerts.settled(endpoint, with_shadows=False)
    assert len(written(settings)) == 1
    alerts.settled(endpoint)
    assert written(settings)[1]["facts"]["was told"] == "shadow version 2 is refused (revision 2)"


def test_without_a_webhook_no_thread_is_started(settings: Settings) -> None:
    alerts = ReleaseAlerts(settings, Metrics(), NO_WEBHOOK)
    alerts.start()
    alerts.version_refused(*refusal_of("2026-01-01"))
    assert len(written(settings)) == 1
    assert "alerts" not in [thread.name for thread in threading.enumerate()]
    alerts.close()
