"""Endpoints changed over HTTP while requests are answered: revisions, shares, names of their own, out of service."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from ml_platform.governance.keys import KeyStore
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.traffic import retire_endpoint
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.load import is_seen, judged
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store, publish

PATH = f"/endpoints/{MODEL}"
Serve = Callable[..., Server]


@pytest.fixture
def store(settings: Settings) -> ReleaseStore:
    """Version 1 serves, 2 to 4 are registered."""
    fill_online_store(settings)
    publish(settings, 1)
    store = ReleaseStore(settings.releases_dir)
    for version in range(1, 5):
        store.register_version(MODEL, version, store.put_bundle(bundle(version)))
    return store


def put(
    client: httpx.Client, match: str | None, *targets: dict[str, Any], path: str = PATH, **changes: Any
) -> httpx.Response:
    headers = {} if match is None else {"If-Match": match}
    return client.put(path, json={"targets": targets, "reason": "for a test", **changes}, headers=headers)


def in_force(revision: int) -> Callable[[httpx.Client], bool]:
    return lambda client: client.get(PATH).json()["in_force"] == revision


def test_a_change_names_the_revision_it_is_based_on(settings: Settings, store: ReleaseStore, serve: Serve) -> None:
    server = serve(settings)
    client = server.client
    shown = client.get(PATH)
    assert (shown.headers["etag"], shown.json()["versions"]) == ('"1"', [1, 2, 3, 4])
    split = ({"version": 1, "share": 0.75}, {"version": 2, "share": 0.25}, {"version": 3, "mode": "shadow"})
    assert put(client, None, *split).status_code == 428
    assert put(client, '"7"', *split).status_code == 412
    assert put(client, '"nonsense"', *split).status_code == 412
    assert put(client, "nonsense", *split).status_code == 400
    done = put(client, shown.headers["etag"], *split, key="tailnum")
    assert (done.status_code, done.headers["etag"]) == (200, '"2"'), done.text
    assert done.json()["updated_by"] == "127.0.0.1 (HTTP)"
    late = put(client, shown.headers["etag"], {"version": 4, "share": 1.0})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "revision_conflict")
    assert "revision 2 is current" in late.json()["error"]["message"]
    server.wait_until(in_force(2))
    answers = {
        tail: client.post(f"/predict/{MODEL}", json={**ROW, "flight_id": str(number), "tailnum": tail}).json()
        for number in range(3)
        for tail in ("N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N9", "N10", "N11", "N12")
    }
    assert {answer["version"] for answer in answers.values()} == {1, 2}
    for tail, answer in answers.items():  # the key decides, whatever the id is
        again = client.post(f"/predict/{MODEL}", json={**ROW, "flight_id": "another", "tailnum": tail}).json()
        assert again["version"] == answer["version"]


def test_history_tells_every_state_and_what_served_at_an_instant(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    client = serve(settings).client
    assert put(client, '"1"', {"version": 2, "share": 1.0}).status_code == 200
    later, earlier = client.get(f"{PATH}/history").json()
    assert (later["revision"], later["until"], later["by"]) == (2, None, "127.0.0.1 (HTTP)")
    assert (earlier["revision"], earlier["until"]) == (1, later["since"])
    assert [target["version"] for target in later["targets"]] == [2]
    assert (
        later["targets"][0]["origin"]["training_rows"]
        == store.load_manifest(store.versions(MODEL)[2]).provenance.training_rows
    )
    assert client.get(f"{PATH}/history", params={"at": earlier["since"]}).json() == [earlier]
    for options, status, message in (
        ({"at": "2001-01-01T00:00:00Z"}, 404, "served nothing at 2001-01-01"),
        ({"at": "yesterday"}, 422, "at: read are"),
        ({"at": "9999-12-31T23:59:59Z"}, 422, "has not come yet"),
        ({"limit": "3"}, 422, "no option but at"),
    ):
        answer = client.get(f"{PATH}/history", params=options)
        assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True), answer.text
    assert client.get("/endpoints/never_there/history").status_code == 404


def test_a_change_to_what_serves_already_makes_no_revision(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    client = serve(settings).client
    done = put(client, '"1"', {"version": 1, "share": 1.0})
    assert (done.status_code, done.headers["etag"], done.json()["reason"]) == (200, '"1"', "for a test"), done.text
    assert put(client, '"0"', {"version": 1, "share": 1.0}).status_code == 412
    assert put(client, '"1"', {"version": 1, "share": 1.0}, key="tailnum").headers["etag"] == '"2"'
    assert len(store.history(MODEL)) == 2


REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    ([{"version": 1, "share": 0.5}], {}, "add up to 1"),
    ([{"version": 9, "share": 1.0}], {}, "no version 9"),
    ([{"version": 1, "share": 0.5}, {"version": 1, "share": 0.5}], {}, "appears twice"),
    ([{"version": 1, "share": 1.0}, {"version": 2, "share": 0.1, "mode": "shadow"}], {}, "a shadow answers nothing"),
    ([{"version": 1, "share": 1.0}], {"reason": ""}, "wants a reason"),
    ([{"version": 1, "share": 1.0}], {"reason": 1001 * "x"}, "length <= 1000"),
    ([{"version": 1, "share": 1.0}], {"key": "nope"}, "has no 'nope'"),
    ([{"version": "1", "share": 1.0}], {}, "Expected `int`"),
    ([{"version": 1, "share": 1.0, "extra": 1}], {}, "unknown field"),
    ([], {}, "at least one version"),
]


def test_what_cannot_be_is_422_and_changes_nothing(settings: Settings, store: ReleaseStore, serve: Serve) -> None:
    client = serve(settings).client
    for targets, changes, told in REFUSED:
        refused = put(client, "*", *targets, **changes)
        assert (refused.status_code, told in refused.json()["error"]["message"]) == (422, True), refused.text
    assert store.revision(MODEL) == 1


def test_bodies_that_are_no_json_are_refused(settings: Settings, store: ReleaseStore, serve: Serve) -> None:
    client = serve(settings).client
    for headers, content, status in (
        ({"Content-Type": "application/json"}, b"{", 400),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
    ):
        assert client.put(PATH, content=content, headers={"If-Match": "*", **headers}).status_code == status
    assert client.get("/endpoints/nothing").status_code == 404
    assert client.get("/endpoints/No..thing").status_code == 404


def newest_answers(settings: Settings) -> list[set[int]]:
    """Versions that gave the last answers of each worker, of so many that no split could have chosen one only."""
    segments = [path.read_bytes().rpartition(b"\n")[0] for path in settings.inference_log_dir.glob(f"{MODEL}/*.jsonl")]
    return [{json.loads(line)["version"] for line in segment.splitlines()[-20:]} for segment in segments]


@pytest.mark.slow
def test_fifty_changes_under_load_with_two_workers_fail_no_request_and_give_no_wrong_answer(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    server = serve(settings, "--workers", "2")

    def answering() -> set[int]:
        """Versions that answer twenty connections: both workers get some."""
        found = set()
        for _ in range(20):
            with httpx.Client(base_url=server.url, timeout=60) as client:
                found.add(client.post(f"/predict/{MODEL}", json=ROW).json()["version"])
        return found

    with judged(server, range(1, 5)) as seen:
        for change in range(50):
            split = [{"version": 1 + (change + step) % 4, "share": 0.5} for step in range(2)]
            whole = [{"version": 1 + (change + 1) % 4, "share": 1.0}]
            asked = len(seen)
            answer = put(server.client, f'"{change + 1}"', *(split if change % 2 else whole))
            assert answer.status_code == 200, answer.text
            if change < 46:
                time.sleep(0.1)  # some are overtaken before they are in force
            else:
                server.wait_until(partial(is_seen, 1 + (change + 1) % 4, seen, asked))
        assert put(server.client, '"51"', {"version": 4, "share": 1.0}).status_code == 200
        # Twenty connections in a row may all reach one worker: what each has logged tells that both serve it.
        server.wait_until(lambda _: newest_answers(settings) == [{4}, {4}])
        assert answering() == {4}
        server.wait_until(lambda _: len(seen) > 200)
    assert set(seen) == {1, 2, 3, 4}
    assert len(store.history(MODEL)) == 52


def test_withdrawn_over_http_and_back(settings: Settings, store: ReleaseStore, serve: Serve) -> None:
    server = serve(settings)
    client = server.client
    assert client.delete(PATH).status_code == 428
    assert client.delete(PATH, headers={"If-Match": '"3"'}).status_code == 412
    current = {"If-Match": '"1"'}
    assert client.delete(PATH, params={"reason": "x" * 1001}, headers=current).status_code == 422
    assert client.delete(PATH, params={"why": "replaced"}, headers=current).status_code == 422
    gone = client.delete(PATH, params={"reason": "replaced"}, headers=current)
    assert gone.json()["reason"] == "replaced"
    assert (gone.status_code, gone.json()["targets"], gone.headers["etag"]) == (200, [], '"2"')
    server.wait_until(lambda client: client.get(f"/models/{MODEL}").status_code == 404)
    assert client.post(f"/predict/{MODEL}", json=ROW).status_code in (404, 503)
    assert client.delete(PATH, headers={"If-Match": "*"}).status_code == 404
    assert put(client, '"2"', {"version": 3, "share": 1.0}).status_code == 200
    server.wait_until(in_force(3))
    assert client.post(f"/predict/{MODEL}", json=ROW).json()["version"] == 3


def test_a_retired_model_is_gone_until_it_is_promoted_again(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    server = serve(settings)
    client = server.client
    predict, invoke = f"/predict/{MODEL}", f"/models/{MODEL}/invocations"
    retire_endpoint(store, MODEL, MODEL, by="pytest", reason="replaced")
    server.wait_until(lambda client: client.post(predict, json=ROW).status_code == 410)
    gone = client.post(predict, json=ROW).json()["error"]
    assert gone["code"] == "retired_model"
    assert gone["message"].startswith(f"model '{MODEL}' was retired on 20")
    foreign = client.post(invoke, json={"dataframe_records": [ROW]})
    assert (foreign.status_code, foreign.json()["error_code"]) == (410, "RESOURCE_DOES_NOT_EXIST")
    shown = client.get(f"/models/{MODEL}")
    assert (shown.status_code, "was retired on" in shown.text) == (404, True)
    assert client.post("/predict/other", json=ROW).status_code in (404, 503)
    publish(settings, 2)
    server.wait_until(lambda client: client.post(predict, json=ROW).status_code == 200)


def test_an_endpoint_of_a_name_of_its_own_answers_and_logs_as_its_model(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    server = serve(settings)
    client = server.client
    made = put(client, '"0"', {"version": 2, "share": 1.0}, model=MODEL, path="/endpoints/trial-2")
    assert (made.status_code, made.json()["model"]) == (200, MODEL), made.text
    server.wait_until(lambda client: client.get("/models/trial-2").status_code == 200)
    answer = client.post("/predict/trial-2", json=ROW).json()
    assert (answer["model"], answer["version"]) == (MODEL, 2)
    assert client.post(f"/predict/{MODEL}", json=ROW).json()["version"] == 1
    lines = "".join(path.read_text() for path in settings.inference_log_dir.glob(f"{MODEL}/*.jsonl"))
    assert len(lines.splitlines()) == 2
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/").status_code == client.get("/docs").status_code == 200


def test_changing_takes_the_role_for_endpoint_and_model(settings: Settings, store: ReleaseStore, serve: Serve) -> None:
    keys = KeyStore(settings.keys_dir)
    tokens = {
        "here": keys.create("here", roles=["promote", "predict"], models=[MODEL])[1],
        "trial": keys.create("trial", roles=["promote", "predict"], models=["trial"])[1],
        "both": keys.create("both", roles=["promote"], models=["trial", MODEL])[1],
    }
    client = serve(settings).client

    def status(key: str, path: str, **changes: Any) -> int:
        body = {"targets": [{"version": 2, "share": 1.0}], "reason": "for a test", **changes}
        headers = {"X-API-Key": tokens[key], "If-Match": "*"}
        return client.put(path, json=body, headers=headers).status_code

    assert status("trial", "/endpoints/trial", model=MODEL) == 403
    assert status("here", "/endpoints/trial", model=MODEL) == 403
    assert status("both", "/endpoints/trial", model=MODEL) == 200
    assert status("trial", "/endpoints/trial") == 403
    assert status("here", PATH) == 200
    document = store.document(MODEL)
    assert document is not None
    assert document.updated_by == "here (HTTP)"


def test_a_copy_of_a_document_takes_no_traffic_from_the_endpoint_that_it_was_copied_from(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    first = store.endpoint_path(MODEL).read_bytes()
    publish(settings, 2)
    server = serve(settings)
    copy = store.endpoint_path(f"{MODEL}-before")
    copy.write_bytes(first)

    def listed(client: httpx.Client) -> dict[str, Any]:
        return {model["name"]: model for model in client.get("/models").json()["models"]}

    server.wait_until(lambda client: len(listed(client)) == 2)
    found = listed(server.client)
    assert found[MODEL]["endpoint_revision"] == 2
    assert found[copy.stem]["status"] == "unavailable"
    assert f"this is the document of the endpoint '{MODEL}'; remove the file" in found[copy.stem]["refused"]["reason"]
    assert server.client.post(f"/predict/{MODEL}", json=ROW).json()["version"] == 2


def test_a_damaged_document_is_no_fault_of_who_asks_and_no_answer_tells_where_it_lies(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    server = serve(settings)
    client = server.client
    store.endpoint_path("other").write_bytes(b"garbage")
    server.wait_until(lambda client: len(client.get("/models").json()["models"]) == 2)
    target = {"version": 1, "share": 1.0}
    answers = [
        client.get("/endpoints/other"),
        put(client, "*", target, path="/endpoints/other", model=MODEL),
        client.get("/api/2.0/serving-endpoints/other"),
        client.post("/predict/other", json=ROW),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "endpoints/other.json: not an endpoint document" in answer.text
    listed = client.get("/api/2.0/serving-endpoints")
    assert listed.status_code == 200
    states = {one["name"]: one["state"]["ready"] for one in listed.json()["endpoints"]}
    assert states == {MODEL: "READY", "other": "NOT_READY"}
    shutil.rmtree(store.bundle_path(store.versions(MODEL)[3]))
    answers += [put(client, "*", {"version": 3, "share": 1.0}), client.get("/models"), client.get("/"), listed]
    assert answers[4].status_code == 422
    for answer in answers:
        assert str(settings.home) not in answer.text


def test_a_person_with_a_key_answers_to_a_version_that_waits(
    settings: Settings, store: ReleaseStore, serve: Serve
) -> None:
    store.approvals.set_policy(MODEL, ApprovalPolicy())
    for version in (2, 3):
        store.approvals.request(
            MODEL, version, store.versions(MODEL)[version], revision=1, by="ann", comment="passed the gate"
        )
    path = f"{PATH}/approvals"
    keyless = serve(settings).client
    refused = keyless.post(f"{path}/2", json={"decision": "approve", "comment": "fine"})
    assert (refused.status_code, "an answer is a person's" in refused.json()["error"]["message"]) == (409, True)
    assert [(one["version"], one["state"]) for one in keyless.get(path).json()] == [(2, "waits"), (3, "waits")]
    keys = KeyStore(settings.keys_dir)
    tokens = {
        name: keys.create(name, roles=roles, models=[MODEL])[1]
        for name, roles in {"ann": ["promote"], "bob": ["promote"], "reader": ["predict"]}.items()
    }
    client = serve(settings).client

    def say(who: str, version: int, decision: str, comment: str = "card read") -> httpx.Response:
        body = {"decision": decision, "comment": comment}
        return client.post(f"{path}/{version}", json=body, headers={"X-API-Key": tokens[who]})

    assert say("reader", 2, "approve").status_code == 403
    mine = say("ann", 2, "approve")
    assert (mine.status_code, "ann asked for it" in mine.json()["error"]["message"]) == (409, True), mine.text
    around = client.put(
        PATH, json={"targets": [{"version": 2, "share": 1.0}], "reason": "in a hurry"},
        headers={"X-API-Key": tokens["bob"], "If-Match": "*"},
    )  # fmt: skip
    assert (around.status_code, around.json()["error"]["code"]) == (409, "not_approved"), around.text
    done = say("bob", 2, "approve")
    assert (done.status_code, done.json()["state"], done.json()["revision"]) == (200, "approved", 2), done.text
    assert say("bob", 2, "approve").json() == done.json()  # repeated, it changes nothing
    document = store.document(MODEL)
    assert document is not None
    assert (document.targets[0].version, document.updated_by, document.reason) == (2, "bob", "approved: card read")
    assert say("bob", 3, "reject").json()["state"] == "rejected"
    assert say("bob", 4, "approve").status_code == 404  # nobody asked
    assert say("bob", 3, "approve", "").status_code == 422
    assert client.post(f"{path}/new", json={}, headers={"X-API-Key": tokens["bob"]}).status_code == 404
    assert client.get(path, headers={"X-API-Key": tokens["reader"]}).json()[0]["events"][-1]["by"] == "bob"
