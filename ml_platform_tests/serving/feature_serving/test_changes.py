"""Look-ups while views are redefined, services republished, publishers killed, and the online store is down or gone."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ml_platform.registry.feature_services import FeatureService, FeatureServiceStore, ServedView
from ml_platform.registry.manifest import Input
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.redis_server import running_redis
from ml_platform_tests.serving.conftest import Server, client_of
from ml_platform_tests.serving.feature_services import (
    ROTATION,
    SCHEMAS,
    SERVICE,
    WEATHER,
    board,
    fill,
    publish_service,
    write_view,
)

Serve = Callable[..., Server]
VIEW, BOARD = f"/features/{WEATHER}/lookup", f"/features/{SERVICE}/lookup"
FLIGHT = {"origin": "EWR", "aircraft": "N1", "departure": "2013-07-05T12:00:00Z"}
KEYS = ("EWR", "JFK", "LGA")
CHANGES = 12


def definition(number: int) -> str:
    return f"{number:064x}"


def redefine(settings: Settings, number: int, at: datetime) -> None:
    """A definition of the view of which every value is its number; every other one has a feature more."""
    schema, more = SCHEMAS[WEATHER], {}
    if number % 2:
        schema = msgspec.structs.replace(schema, columns=(Input(name="wind", type="number"), *schema.columns))
        more = {"wind": float(number)}
    rows = [{"origin": key, "temp": float(number), "visib": float(number), "event_time": at, **more} for key in KEYS]
    write_view(settings, WEATHER, rows, view_hash=definition(number), schema=schema)


def service(number: int) -> FeatureService:
    """The view twice, by other keys; what is taken of it depends on the revision."""
    features = ("temp", "visib") if number % 2 else ("visib",)
    here, there = (
        ServedView(name=name, view=WEATHER, view_hash=definition(0), keys={"origin": key}, features=features)
        for name, key in (("here", "origin"), ("there", "other"))
    )
    return FeatureService(name=SERVICE, description=f"{number}", owner="team:web", views=(here, there))


def torn(answer: dict[str, Any]) -> list[str]:
    """What in an answer is not of one definition and one revision."""
    hashes = {one["definition"] for one in answer["views"].values()}
    if len(hashes) != 1:
        return [f"definitions {hashes}"]
    number = float(int(hashes.pop(), 16))
    wrong = [str(row) for row in answer["rows"] if {*row["features"].values()} != {number}]
    if answer["kind"] == "service":
        features = ("temp", "visib") if answer["revision"] % 2 else ("visib",)
        names = {f"{view}__{feature}" for view in ("here", "there") for feature in features}
        wrong += [str(row) for row in answer["rows"] if row["features"].keys() != names]
    return wrong


def test_no_answer_is_torn_while_a_view_is_redefined_and_its_service_republished(
    either: Settings, serve: Serve
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    redefine(either, 0, at)
    publish_service(either, service(1))
    server = serve(either)
    bodies: list[tuple[str, dict[str, Any]]] = [
        (VIEW, {"rows": [{"origin": key} for key in KEYS]}),
        (BOARD, {"rows": [{"origin": one, "other": other} for one in KEYS for other in KEYS]}),
        (BOARD, {"rows": [{"origin": one, "other": "EWR"} for one in KEYS * 200]}),  # looked up in the thread
    ]
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    ended = threading.Event()

    def ask(path: str, body: dict[str, Any]) -> None:
        with client_of(server.url) as client:
            while not ended.is_set():
                answer = client.post(path, json=body)
                content = answer.json()
                code = content["error"]["code"] if answer.is_error else "answered"
                statuses[f"{answer.status_code} {code}"] += 1
                if not answer.is_error:
                    wrong.extend(torn(content))

    threads = [threading.Thread(target=ask, args=one) for one in bodies]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, CHANGES + 1):
            seen = statuses.total()
            server.wait_until(lambda _, seen=seen: statuses.total() >= seen + 10)  # type: ignore[misc]
            redefine(either, number, at)
            publish_service(either, service(number + 1))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert statuses["200 answered"] > 0.9 * statuses.total(), statuses
    assert statuses.keys() <= {"200 answered", "503 view_changed"}


def test_a_view_that_is_gone_is_unknown(redis_uri: str, settings: Settings, serve: Serve) -> None:
    both = Settings(home=settings.home, online_uri=redis_uri)
    fill(both)
    publish_service(both)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_ONLINE_URI", redis_uri)
        server = serve(both)
    assert server.client.post(VIEW, json={"origin": "EWR"}).status_code == 200
    assert server.client.post(BOARD, json=FLIGHT).status_code == 200
    with redis.Redis.from_url(redis_uri) as client:
        client.flushall()
    server.wait_until(lambda client: client.post(VIEW, json={"origin": "EWR"}).status_code == 404)
    error = server.client.post(BOARD, json=FLIGHT).json()["error"]
    assert error["message"] == f"'{WEATHER}' is not in the online store: materialise online/{WEATHER}"
    fill(both)
    assert server.client.post(BOARD, json=FLIGHT).status_code == 200


def test_a_store_that_is_down_is_told_and_found_again(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    with running_redis(tmp_path) as uri:
        port = int(uri.rpartition(":")[2].partition("/")[0])
        both = Settings(home=settings.home, online_uri=f"{uri}?socket_timeout=60")
        fill(both)
        publish_service(both)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ML_PLATFORM_ONLINE_URI", both.online_uri)
            server = serve(both)
            assert server.client.post(BOARD, json=FLIGHT).status_code == 200
    feast = {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:temp"]}
    for path, body in ((BOARD, FLIGHT), (VIEW, {"origin": "EWR"}), ("/get-online-features", feast)):
        answer = server.client.post(path, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        assert "the online store cannot be read" in answer.text
    # A server that starts without its store has seen no view yet: it answers all the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_ONLINE_URI", both.online_uri)
        fresh = serve(both)
    for path, body in ((BOARD, FLIGHT), (VIEW, {"origin": "EWR"}), ("/get-online-features", feast)):
        assert fresh.client.post(path, json=body).status_code == 503
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            _until_writable(both)
            for one in (server, fresh):
                one.wait_until(lambda client: client.post(BOARD, json=FLIGHT).status_code == 200)
        finally:
            process.terminate()


def _until_writable(settings: Settings) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            fill(settings)
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


KILLED = """
import os, signal, sys
from ml_platform.registry import feature_services
from ml_platform.settings import Settings
from ml_platform_tests.serving.feature_services import board, publish_service

replace, written = feature_services.replace_file, []

def replace_and_die(path, content):
    if len(written) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    replace(path, content)

feature_services.replace_file = replace_and_die
publish_service(Settings(home=sys.argv[1]), board(pinned=True))
"""


@pytest.mark.parametrize("written", [0, 1])
def test_a_publisher_that_is_killed_leaves_what_is_served_and_the_next_one_publishes(
    settings: Settings, written: int
) -> None:
    before = publish_service(settings)
    store = FeatureServiceStore(ReleaseStore(settings.releases_dir))
    command = [sys.executable, "-c", KILLED, str(settings.home), str(written)]
    assert subprocess.run(command, check=False, cwd=Path.cwd()).returncode == -9
    assert store.read(SERVICE) == before
    after = publish_service(settings, board(pinned=True))
    assert after.revision == 2 + written  # the number of what was never in force is not given again
    assert store.read(SERVICE) == after


def test_every_key_of_a_service_needs_its_own_view(settings: Settings, serve: Serve) -> None:
    """A view that comes later is found without another publication or a restart."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    redefine(settings, 0, at)
    publish_service(settings)
    client = serve(settings).client
    error = client.post(BOARD, json=FLIGHT).json()["error"]
    assert (error["code"], ROTATION in error["message"]) == ("view_changed", True)
    fill(settings)
    assert client.post(BOARD, json=FLIGHT).status_code == 200
