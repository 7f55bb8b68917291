"""What a server refuses to keep itself well, what it does when the online store fails, and how it ends."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, ROW, fill_online_store, publish
from ml_platform_tests.serving.sockets import wait_until_read

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Choose serving's settings for the next server."""

    def choose(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"ML_PLATFORM_SERVING_{name.upper()}", str(value))

    return choose


def large_body() -> dict[str, object]:
    return {"rows": [{**ROW, "flight_id": str(number)} for number in range(10_000)]}


def send_at_once(url: str, count: int) -> list[Future[httpx.Response]]:
    """Let several clients connect, then send a large body each at the same instant."""
    body = json.dumps(large_body()).encode()
    connected = threading.Barrier(count + 1, timeout=60)

    def send() -> httpx.Response:
        with httpx.Client(base_url=url, timeout=60) as client:
            client.get("/health/live")
            connected.wait()  # only the bodies are still to come
            return client.post(PATH, content=body, headers={"Content-Type": "application/json"})

    threads = ThreadPoolExecutor(count)
    sent = [threads.submit(send) for _ in range(count)]
    connected.wait()
    threads.shutdown(wait=False)
    return sent


def test_large_requests_past_the_queue_are_503_and_told_when_to_come_again(
    settings: Settings, serve: Serve, options: Callable[..., None]
) -> None:
    options(max_queue=1)
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    busy: list[httpx.Response] = []
    while not busy:  # on a busy machine they may come one after another
        answers = [sent.result() for sent in send_at_once(server.url, 6)]
        busy = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in busy:
        assert answer.json()["error"]["code"] == "busy"
        assert int(answer.headers["retry-after"]) >= 1
    assert server.client.post(PATH, json=ROW).status_code == 200


INVOCATIONS = f"/models/{MODEL}/invocations"
RECORDS = {"dataframe_records": [ROW]}


@pytest.mark.parametrize(
    ("held", "path", "body"), [(PATH, PATH, ROW), (INVOCATIONS, INVOCATIONS, RECORDS), (INVOCATIONS, PATH, ROW)]
)
def test_requests_past_the_limit_are_503_whichever_protocol_they_speak(
    settings: Settings, serve: Serve, options: Callable[..., None], held: str, path: str, body: dict[str, Any]
) -> None:
    options(max_active=2, body_seconds=120)
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {held} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode()
    address = host, int(port)
    with socket.create_connection(address, 60) as one, socket.create_connection(address, 60) as two:
        for connection in (one, two):
            connection.sendall(head)
            wait_until_read(connection)  # a request sent before could be one of the two that are let in
        refused = server.client.post(path, json=body)
        assert (refused.status_code, refused.headers.get("retry-after")) == (503, "1"), refused.text
    server.wait_until(lambda client: client.post(path, json=body).status_code == 200)


def test_a_body_that_does_not_arrive_is_408(settings: Settings, serve: Serve, options: Callable[..., None]) -> None:
    options(body_seconds=0.3)
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 9) as raw:  # sooner than without that setting
        raw.sendall(f'POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{"carrier"'.encode())
        assert raw.recv(12) == b"HTTP/1.1 408"


def break_online_store(settings: Settings) -> None:
    """Take away a table under the server, as a damaged file would."""
    with sqlite3.connect(settings.online_uri.removeprefix("sqlite:///")) as connection:
        connection.execute("ALTER TABLE entities RENAME TO gone")


def mend_online_store(settings: Settings) -> None:
    with sqlite3.connect(settings.online_uri.removeprefix("sqlite:///")) as connection:
        connection.execute("ALTER TABLE gone RENAME TO entities")


def rename_layouts(settings: Settings, old: str, new: str) -> None:
    """Take away, or put back, what tells which definitions the online store holds."""
    with sqlite3.connect(settings.online_uri.removeprefix("sqlite:///")) as connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")


def failed(answer: httpx.Response) -> bool:
    """Whether an answer shows, in the way of its server, that the online store failed."""
    return answer.status_code == 503 or "degraded" in answer.json()


def remove_online_store(settings: Settings) -> None:
    path = Path(settings.online_uri.removeprefix("sqlite:///"))
    (path.parent / "away").mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(path.parent / "away" / file.name)


def restore_online_store(settings: Settings) -> None:
    path = Path(settings.online_uri.removeprefix("sqlite:///"))
    for file in (path.parent / "away").iterdir():
        file.rename(path.parent / file.name)


TROUBLES = {"broken": (break_online_store, mend_online_store), "gone": (remove_online_store, restore_online_store)}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("count", [1, 40])
def test_a_failing_online_store_is_503_unless_nulls_may_stand_for_it(
    settings: Settings, serve: Serve, options: Callable[..., None], count: int, trouble: str
) -> None:
    fail, mend = TROUBLES[trouble]
    fill_online_store(settings)
    publish(settings, 1)
    strict = serve(settings)
    options(online_fallback="nulls")
    lenient = serve(settings)
    body = ROW if count == 1 else {"rows": [ROW] * count}
    whole = lenient.client.post(PATH, json=body).json()
    assert "degraded" not in whole
    fail(settings)
    for server in (strict, lenient):
        server.wait_until(
            lambda client: failed(client.post(PATH, json=body))
        )  # a removed file is noticed after a while
    refused = strict.client.post(PATH, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "online_store_failed")
    assert refused.headers["retry-after"] == "1"
    assert "entities" not in refused.text  # nothing of the inside
    answer = lenient.client.post(f"{PATH}?features=true", json=body).json()
    assert answer["degraded"] == ["online_store"]
    assert len(answer["predictions"]) == count
    assert answer["predictions"][0]["features"]["origin_weather__temp"] is None
    assert answer["predictions"][0]["probability"] != whole["predictions"][0]["probability"]
    assert "ml_platform_degraded_total" in lenient.client.get("/metrics").text
    mend(settings)
    for server in (strict, lenient):
        # A store that failed is left alone for a moment, which is longer when the failure took long.
        server.wait_until(lambda client: not failed(client.post(PATH, json=body)))
        assert server.client.post(PATH, json=body).json()["predictions"] == whole["predictions"]


def test_a_worker_that_starts_while_the_online_store_fails_does_as_the_others_do(
    settings: Settings, serve: Serve, options: Callable[..., None]
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    before = serve(settings)
    whole = before.client.post(PATH, json=ROW).json()
    before.stop()
    publish(settings, 2)  # in force nowhere: that takes a look at the online store
    rename_layouts(settings, "layouts", "gone")
    strict = serve(settings)
    options(online_fallback="nulls")
    lenient = serve(settings)
    assert strict.client.post(PATH, json=ROW).status_code == 503
    degraded = lenient.client.post(f"{PATH}?features=true", json=ROW).json()
    assert (degraded["version"], degraded["degraded"]) == (1, ["online_store"])
    assert degraded["predictions"][0]["features"]["origin_weather__temp"] is None
    many = lenient.client.post(PATH, json={"rows": [ROW] * 40}).json()
    assert (len(many["predictions"]), many["degraded"]) == (40, ["online_store"])
    assert "cannot be read" in lenient.client.get("/models/flight_delay").json()["refused"]["reason"]
    rename_layouts(settings, "gone", "layouts")
    for server in (strict, lenient):
        server.wait_until(lambda client: client.post(PATH, json=ROW).json().get("version") == 2)
        mended = server.client.post(PATH, json=ROW).json()
        assert "degraded" not in mended
        assert mended["predictions"] != whole["predictions"]


def test_a_worker_that_took_a_release_on_trust_drops_it_when_the_online_store_tells_of_other_views(
    settings: Settings, serve: Serve, options: Callable[..., None]
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    serve(settings).stop()
    rename_layouts(settings, "layouts", "gone")
    options(online_fallback="nulls")
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).json()["degraded"] == ["online_store"]
    with sqlite3.connect(settings.online_uri.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE gone SET hash = 'other' WHERE view = 'origin_weather'")
    rename_layouts(settings, "gone", "layouts")
    server.wait_until(lambda client: client.post(PATH, json=ROW).status_code == 503)
    assert "origin_weather" in server.client.get("/models/flight_delay").json()["refused"]["reason"]


def test_new_releases_still_take_over_after_the_online_store_was_unreadable(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    rename_layouts(settings, "layouts", "gone")
    publish(settings, 2)
    server.wait_until(lambda client: client.get("/models/flight_delay").json()["refused"] is not None)
    assert server.client.get("/models/flight_delay").json()["versions"][0]["version"] == 1
    rename_layouts(settings, "gone", "layouts")
    server.wait_until(lambda client: client.post(PATH, json=ROW).json().get("version") == 2)


def test_another_file_in_its_place_is_read_within_a_moment(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    asked = f"{PATH}?features=true"

    def known(client: httpx.Client) -> bool:
        features = client.post(asked, json=ROW).json()["predictions"][0]["features"]
        return features["origin_weather__temp"] is not None

    assert known(server.client)
    other = Settings(home=settings.home / "other")
    fill_online_store(other, known_at=KNOWN_AT - timedelta(days=3))  # past the look-ups' time to live
    path, new = (Path(one.online_uri.removeprefix("sqlite:///")) for one in (settings, other))
    for file in path.parent.glob(f"{path.name}-*"):
        file.unlink()
    new.replace(path)
    server.wait_until(lambda client: not known(client))


def test_before_anything_was_published_online_the_reason_is_told(settings: Settings, serve: Serve) -> None:
    publish(settings, 1)
    server = serve(settings)
    answer = server.client.post(PATH, json=ROW)
    assert answer.status_code == 503
    assert "there is no online store: materialise online/" in answer.json()["error"]["message"]
    fill_online_store(settings)
    server.wait_until(lambda client: client.post(PATH, json=ROW).status_code == 200)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_accepted_is_answered_before_the_end(settings: Settings, serve: Serve, workers: int) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", str(workers))
    server.wait_until(lambda client: client.get("/health/ready").status_code == 200)
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(large_body()).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as opened:
        sent = [opened.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(3)]
        for connection in sent:
            connection.sendall(head + body)
        for connection in sent:
            wait_until_read(connection)  # answering takes longer than that
        server.process.send_signal(signal.SIGTERM)
        for connection in sent:
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, len(json.loads(answer.read())["predictions"])) == (200, 10_000)
    server.process.wait(120)


def test_a_wrong_setting_is_named_at_the_start(settings: Settings) -> None:
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(settings.home),
        "ML_PLATFORM_SERVING_ONLINE_FALLBACK": "zeros",
    }
    command = [sys.executable, "-m", "ml_platform.serving", "--port", "0"]
    ended = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=120,
        check=False,
    )
    assert ended.returncode != 0
    assert "online_fallback" in ended.stderr
    assert "'fail' or 'nulls'" in ended.stderr
