"""Pushed rows: in the next prediction, in the feature table exactly once, and nothing of what is wrong."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.pushed_rows import ingest_pushed, pushed_table, read_view
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.features.online.test_pushed_rows import kill_an_ingest_of_pushes
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.load import clients
from ml_platform_tests.serving.pushing import COLUMNS, VIEW, observe, refresh, release, row, set_up, weather_view
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, ROW

MINUTE = timedelta(minutes=1)
PATH = f"/features/{VIEW}"
Serve = Callable[..., Server]


def seen(client: httpx.Client, origin: str = "EWR") -> float | None:
    """The temperature that a prediction saw."""
    answer = client.post(f"/predict/{MODEL}?features=true", json={**ROW, "origin": origin})
    assert answer.status_code == 200, answer.text
    found: float | None = answer.json()["predictions"][0]["features"][f"{VIEW}__temp"]
    return found


def offline(lake: Lake) -> list[tuple[Any, ...]]:
    rows = read_view(lake, weather_view())
    return rows.sort("origin", "event_time").select("origin", "event_time", "temp").collect().rows()


@pytest.fixture(params=["sqlite", "redis"])
def either(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with each kind of online store."""
    if request.param == "sqlite":
        return settings
    uri = str(request.getfixturevalue("redis_uri"))
    monkeypatch.setenv("ML_PLATFORM_ONLINE_URI", uri)
    return Settings(home=settings.home, online_uri=uri)


def test_the_next_prediction_sees_a_pushed_row_and_a_batch_of_older_rows_does_not_undo_it(
    either: Settings, serve: Serve
) -> None:
    lake, view = Lake(either.lake_uri), weather_view()
    set_up(either, lake, view)
    client = serve(either).client
    assert seen(client) == 10.0
    answer = client.post(PATH, json=row("EWR", KNOWN_AT + 30 * MINUTE, 99.5), headers={"X-Request-ID": "p1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "p1")
    assert answer.json() == {"view": VIEW, "accepted": 1, "stale": 0, "request_id": "p1"}
    assert seen(client) == 99.5
    observe(lake, ("EWR", KNOWN_AT + 20 * MINUTE, 11.0))  # the batch comes late, and without the pushed row
    refresh(either, lake, view)
    assert seen(client) == 99.5
    assert seen(client, "JFK") == 20.0
    observe(lake, ("EWR", KNOWN_AT + 40 * MINUTE, 12.0))
    refresh(either, lake, view)
    assert seen(client) == 12.0


def test_older_rows_are_stale_and_repeating_a_push_changes_nothing(either: Settings, serve: Serve) -> None:
    lake = Lake(either.lake_uri)
    set_up(either, lake, weather_view())
    client = serve(either).client
    rows = [
        row("EWR", KNOWN_AT - MINUTE, 1.0),
        row("EWR", KNOWN_AT + MINUTE, 2.0),
        row("JFK", KNOWN_AT, None),  # of the same instant: a correction
        row("LGA", KNOWN_AT - MINUTE, 4.0),
    ]
    for _ in range(2):
        answer = client.post(PATH, json={"rows": rows})
        assert (answer.json()["accepted"], answer.json()["stale"]) == (4, 1)
        assert [seen(client, origin) for origin in ("EWR", "JFK", "LGA")] == [2.0, None, 4.0]
    lag = f'ml_platform_push_log_lag_bytes{{view="{VIEW}"}} '
    assert lag + "0.0" not in client.get("/metrics").text
    ingest_pushed(lake, either.push_log_dir, VIEW)
    assert lag + "0.0" in client.get("/metrics").text
    assert lake.read(pushed_table(weather_view())).collect().height == 8  # as sent; a row counts once all the same
    wanted = [("EWR", -1, 1.0), ("EWR", 0, 10.0), ("EWR", 1, 2.0), ("JFK", 0, None), ("LGA", -1, 4.0)]
    assert offline(lake) == [(origin, KNOWN_AT + minutes * MINUTE, temp) for origin, minutes, temp in wanted]
    metrics = client.get("/metrics").text
    assert f'ml_platform_pushed_rows_total{{view="{VIEW}"}} 8.0' in metrics
    assert f'ml_platform_pushed_rows_stale_total{{view="{VIEW}"}} 2.0' in metrics


def test_kill_9_of_server_and_ingest_loses_and_doubles_nothing(settings: Settings, lake: Lake, serve: Serve) -> None:
    set_up(settings, lake, weather_view())
    server = serve(settings)
    answered: list[str] = []

    def load(worker: int, ended: threading.Event) -> None:
        number = 0
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not ended.wait(0.005):
                sent = row(f"W{worker}", KNOWN_AT + number * MINUTE, float(number))
                try:
                    answer = client.post(PATH, json=sent, headers={"X-Request-ID": f"{worker}-{number}"})
                except httpx.TransportError:
                    return  # cut off by the kill, so not answered
                assert answer.status_code == 200
                answered.append(answer.json()["request_id"])
                number += 1

    def have_answers(more_than: int) -> Callable[[httpx.Client], bool]:
        return lambda _: all(sum(name.startswith(f"{worker}-") for name in answered) > more_than for worker in range(3))

    def wait_for_another_answer() -> None:
        before = len(answered)
        server.wait_until(lambda _: len(answered) > before)

    with clients(3, load):
        server.wait_until(have_answers(10))
        ingest_pushed(lake, settings.push_log_dir, VIEW)  # while the server writes
        wait_for_another_answer()  # so that the ingest has something to do
        kill_an_ingest_of_pushes(settings, VIEW, 0)
        wait_for_another_answer()
        server.stop(signal.SIGKILL)
    kill_an_ingest_of_pushes(settings, VIEW, 0)
    for _ in range(2):
        ingest_pushed(lake, settings.push_log_dir, VIEW)
    logged = Counter(lake.read(pushed_table(weather_view())).collect()["__request_id"].to_list())
    assert set(answered) <= set(logged)
    assert max(logged.values()) == 1
    assert list(settings.push_log_dir.rglob("*.jsonl")) == []
    with open_online_store(settings.online_uri) as store:
        for worker in range(3):
            last = max(int(name.split("-")[1]) for name in answered if name.startswith(f"{worker}-"))
            (held,) = store.read([(VIEW, (f"W{worker}",))])
            assert held is not None
            assert held.event_time >= KNOWN_AT + last * MINUTE


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    set_up(module_settings, Lake(module_settings.lake_uri), weather_view())
    started = start_server(module_settings)
    yield started
    started.stop()


def good(**changes: Any) -> dict[str, Any]:
    return {**row("EWR", KNOWN_AT, 1.0), **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in good().items() if key != name}


@pytest.mark.parametrize(
    ("sent", "place", "field", "message"),
    [
        (good(temp="warm"), None, "temp", 'wanted a finite number, found "warm"'),
        (good(temp=True), None, "temp", "wanted a finite number, found true"),
        (good(origin=7), None, "origin", "wanted a string, found 7"),
        (good(origin=None), None, "origin", "wanted a string, found null"),
        (good(event_time=None), None, "event_time", "found null"),
        (good(event_time="2013-07-01T10:00:00"), None, "event_time", "with UTC offset"),
        (good(event_time=1372672800), None, "event_time", "wanted a timestamp with UTC offset"),
        (good(event_time="0001-01-01T00:00:00Z"), None, "event_time", "wanted a year from 1678"),
        (without("temp"), None, "temp", "is missing"),
        (without("origin"), None, "origin", "is missing"),
        (without("event_time"), None, "event_time", "is missing"),
        (good(tmp=1.0), None, "tmp", "did you mean 'temp'?"),
        ({"rows": [good(), without("humid")]}, 1, "humid", "is missing"),
        ({"rows": [good(), good(), good(dewp=[1])]}, 2, "dewp", "found an array"),
        ({"rows": [good(), 3]}, 1, None, "wanted an object, found a number"),
        ({"rows": []}, None, "rows", "wanted at least one row, found 0"),
        ({"rows": [good()] * 10_001}, None, "rows", "wanted at most 10,000 rows, found 10,001"),
        ({"rows": [good()], "view": "x"}, None, "view", "is not a field of this request"),
        ([good()], None, None, "wanted an object with one row"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_row_and_field(
    server: Server, module_settings: Settings, sent: Any, place: int | None, field: str | None, message: str
) -> None:
    answer = server.client.post(PATH, json=sent)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["request_id"]) == ("invalid_request", answer.headers["x-request-id"])
    [problem] = error["problems"]
    assert (problem.get("row"), problem.get("field")) == (place, field)
    assert message in problem["message"]
    assert list(module_settings.push_log_dir.rglob("*.jsonl")) == []  # nothing of it was taken


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (json.dumps(good()).replace("1.0", "NaN").encode(), 422),
        (json.dumps(good()).replace("1.0", "1e999").encode(), 422),
        (json.dumps(good()).replace('"temp"', '"dewp"').encode(), 422),
        (json.dumps(good(origin="XXX")).replace("XXX", "\\ud800").encode(), 400),
    ],
)
def test_what_is_no_json_or_no_number_is_refused(server: Server, body: bytes, status: int) -> None:
    answer = server.client.post(PATH, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_row_from_the_future_is_refused_since_it_would_shut_out_all_that_follow(server: Server) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    answer = server.client.post(PATH, json={"rows": [good(), row("EWR", ahead, 1.0)]})
    [problem] = answer.json()["error"]["problems"]
    assert (answer.status_code, problem["row"], problem["field"]) == (422, 1, "event_time")
    assert "wanted at most 60 seconds ahead of the server's clock" in problem["message"]


def test_an_unknown_view_is_told_the_known_ones(server: Server) -> None:
    answer = server.client.post("/features/weather", json=good())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_view")
    assert f"there are: {VIEW}" in answer.json()["error"]["message"]
    assert server.client.get(PATH).status_code == 405


def test_a_view_whose_columns_were_never_recorded_takes_no_rows(server: Server) -> None:
    answer = server.client.post("/features/carrier_reliability", json={"carrier": "UA"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "view_not_described")
    assert "materialise online/carrier_reliability again" in answer.json()["error"]["message"]


def test_a_body_past_the_limit_is_refused(server: Server) -> None:
    answer = server.client.post(PATH, content=b" " * (16 * 2**20 + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_refusals_are_counted_by_view_and_status(server: Server) -> None:
    server.client.post(PATH, json={})
    server.client.post("/features/no_such_view", json={})
    text = server.client.get("/metrics").text
    assert f'ml_platform_pushes_refused_total{{status="422",view="{VIEW}"}}' in text
    assert 'ml_platform_pushes_refused_total{status="404",view="unknown"}' in text
    assert "no_such_view" not in text


def test_the_description_has_the_views_columns(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    operation = document["paths"][PATH]["post"]
    assert {"200", "400", "404", "409", "413", "422", "503"} <= set(operation["responses"])
    schema = document["components"]["schemas"][f"{VIEW}_pushed_row"]
    assert schema["required"] == ["origin", "event_time", *COLUMNS]
    assert schema["properties"]["temp"]["type"] == ["number", "null"]
    assert schema["properties"]["temp"]["x-unit"] == "u"
    example = operation["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    assert set(example) == set(schema["properties"])
    assert server.client.post(PATH, json=example).status_code == 200


@contextmanager
def nothing_noticed(settings: Settings, server: Server) -> Iterator[None]:
    """Keep a server from looking at its models: it waits for an endpoint's document that nobody writes.

    Else it may find at any moment that a model's view has changed, and serve it no longer.
    """
    document = ReleaseStore(settings.releases_dir).endpoint_path("held")
    os.mkfifo(document)
    opened: list[int] = []

    def is_waited_for(_: httpx.Client) -> bool:
        with suppress(OSError):  # nobody reads it yet
            opened.append(os.open(document, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    try:
        server.wait_until(is_waited_for)
        yield
    finally:
        document.unlink()
        for end in opened:
            os.close(end)


def test_a_view_of_another_definition_than_the_served_models_is_refused(
    settings: Settings, lake: Lake, serve: Serve
) -> None:
    view = weather_view()
    set_up(settings, lake, view)
    server = serve(settings)
    changed = weather_view(sql=view.sql.replace("temp,", "temp * 2 AS temp,"))
    with nothing_noticed(settings, server):
        refresh(settings, lake, changed)
        answer = server.client.post(PATH, json=row("EWR", KNOWN_AT + MINUTE, 3.0))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "view_changed")
    message = answer.json()["error"]["message"]
    assert all(text in message for text in (view.hash[:12], changed.hash[:12], MODEL))
    with open_online_store(settings.online_uri) as store:
        assert store.view_hash(VIEW) == changed.hash  # the old definition did not come back
        (held,) = store.read([(VIEW, ("EWR",))])
        assert held is not None
        assert held.values["temp"] == 20.0
    release(settings, changed, 2)
    server.wait_until(lambda client: client.post(PATH, json=row("EWR", KNOWN_AT + MINUTE, 3.0)).status_code == 200)
    server.wait_until(lambda client: client.get("/health/ready").status_code == 200)
    assert seen(server.client) == 3.0


def test_without_a_log_nothing_is_accepted(settings: Settings, lake: Lake, serve: Serve) -> None:
    set_up(settings, lake, weather_view())
    settings.push_log_dir.write_text("a file where the folder should be")
    server = serve(settings)
    answer = server.client.post(PATH, json=row("EWR", KNOWN_AT + MINUTE, 3.0))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert seen(server.client) == 10.0


def test_many_who_push_at_once_wait_for_each_other(settings: Settings, lake: Lake, serve: Serve) -> None:
    set_up(settings, lake, weather_view())
    server = serve(settings, "--workers", "2")

    def push(number: int) -> int:
        return server.client.post(PATH, json=row(f"A{number}", KNOWN_AT, float(number))).status_code

    with ThreadPoolExecutor(40) as threads:  # each with a connection of its own
        assert set(threads.map(push, range(120))) == {200}
    with open_online_store(settings.online_uri) as store:
        found = store.read([(VIEW, (f"A{number}",)) for number in range(120)])
    assert [one and one.values["temp"] for one in found] == [float(number) for number in range(120)]
    ingest_pushed(lake, settings.push_log_dir, VIEW)
    assert len(offline(lake)) == 122


def test_ten_thousand_rows_in_one_push(settings: Settings, lake: Lake, serve: Serve) -> None:
    set_up(settings, lake, weather_view())
    server = serve(settings)
    rows = [row(f"A{number}", KNOWN_AT, float(number)) for number in range(10_000)]
    assert server.client.post(PATH, json={"rows": rows}).json()["accepted"] == 10_000
    assert [seen(server.client, f"A{number}") for number in (0, 9_999)] == [0.0, 9_999.0]
    [report] = ingest_pushed(lake, settings.push_log_dir, VIEW)
    assert report.rows == 10_000
    assert len(offline(lake)) == 10_002


def test_only_a_key_with_the_role_pushes_and_the_table_says_who(settings: Settings, lake: Lake, serve: Serve) -> None:
    set_up(settings, lake, weather_view())
    keys = KeyStore(settings.keys_dir)
    tokens = {role: keys.create(f"the {role}", roles=[role])[1] for role in ("predict", "explain", "push", "admin")}
    server = serve(settings)
    client = server.client
    for role, wanted in (("predict", 403), ("explain", 403), ("push", 200), ("admin", 200)):
        headers = {**bearer(tokens[role]), "X-Request-ID": f"by-{role}"}
        answer = client.post(PATH, json=row("EWR", KNOWN_AT + MINUTE, 3.0), headers=headers)
        assert answer.status_code == wanted
    assert client.post(PATH, json=row("EWR", KNOWN_AT, 3.0)).status_code == 401
    headers = {"X-API-Key": tokens["push"]}
    assert client.post(f"/predict/{MODEL}", json=ROW, headers=headers).status_code == 403
    ingest_pushed(lake, settings.push_log_dir, VIEW)
    callers = lake.read(pushed_table(weather_view())).select("__caller", "__request_id").sort("__caller").collect()
    assert callers.rows() == [("the admin", "by-admin"), ("the push", "by-push")]

    def audited(request_id: str, name: str, status: int) -> bool:  # a line is written after its answer has left
        lines = [line for path in settings.audit_dir.glob("*.jsonl") for line in path.read_text().splitlines()]
        found = {line.get("request_id"): line for line in map(json.loads, lines)}.get(request_id, {})
        return (found.get("name"), found.get("path"), found.get("status")) == (name, PATH, status)

    server.wait_until(lambda _: audited("by-push", "the push", 200))
    server.wait_until(lambda _: audited("by-predict", "the predict", 403))
