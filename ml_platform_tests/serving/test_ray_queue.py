"""Ray Serve's queue holds what its settings promise, and who is refused is told so as by the plain server."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import as_completed

import httpx
import pytest
import yaml

from ml_platform.settings import Settings
from ml_platform_tests.serving.held_requests import PATH, PATIENT, held_at, under_way
from ml_platform_tests.serving.on_ray import Config, RayServer, deployment_of, ray_server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish
from ml_platform_tests.test_compute import LOOPBACK, addresses

IN_REPLICA, WAITING, TOO_MANY = 3, 9, 3
SHAPES = [("/v2/models/none/infer", {"error"}), (f"/models/{MODEL}/invocations", {"error_code", "message"})]
ERROR_KEYS = {"code", "message", "request_id"}


def with_room_for_few(config: Config) -> None:
    deployment_of(config).update(max_ongoing_requests=IN_REPLICA, max_queued_requests=WAITING)
    deployment_of(config)["autoscaling_config"]["max_replicas"] = 1
    config["http_options"]["request_timeout_s"] = 3600


def with_a_short_timeout(config: Config) -> None:
    deployment_of(config)["autoscaling_config"]["max_replicas"] = 1
    config["http_options"]["request_timeout_s"] = 5


@pytest.fixture(scope="module")
def queueing(module_settings: Settings) -> Iterator[RayServer]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    with ray_server(module_settings, with_room_for_few, PATIENT) as server:
        yield server


def is_refusal(answer: httpx.Response, status: int, code: str) -> bool:
    """Whether an answer is an error of ours that says when to come again."""
    error = answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert set(error) == ERROR_KEYS
    assert [error["request_id"]] == answer.headers.get_list("x-request-id")
    assert "try again" in error["message"]
    assert answer.headers["retry-after"] == "1"
    return (answer.status_code, error["code"]) == (status, code)


@pytest.mark.slow
def test_nothing_listens_beyond_the_loopback_address(queueing: RayServer) -> None:
    assert addresses(queueing.process.pid) <= LOOPBACK


@pytest.mark.slow
def test_as_many_are_answered_as_the_settings_promise_and_the_others_told_to_come_again(queueing: RayServer) -> None:
    deployment = deployment_of(yaml.safe_load(queueing.config_file.read_text()))
    ongoing, queued = deployment["max_ongoing_requests"], deployment["max_queued_requests"]
    assert deployment["backpressure_config"] == {"status_code": 503, "retry_after_s": 1}
    with held_at(queueing, IN_REPLICA + WAITING + TOO_MANY) as held:
        in_replica = [held.ask() for _ in range(ongoing)]
        queueing.wait_until(lambda _: under_way(queueing) == ongoing)
        more = [held.ask() for _ in range(queued + TOO_MANY)]
        answered_at_once = as_completed(more, timeout=300)
        refused = [next(answered_at_once) for _ in range(TOO_MANY)]
        waiting = [future for future in more if future not in refused]
        for path, members in SHAPES:
            other = httpx.post(queueing.url + path, json={}, timeout=600)
            assert (other.status_code, other.headers["retry-after"], set(other.json())) == (503, "1", members)
        assert [future.done() for future in [*in_replica, *waiting]] == [False] * (ongoing + queued)
        held.end_all()
        answers = [future.result() for future in [*in_replica, *waiting]]
    assert [is_refusal(future.result(), 503, "busy") for future in refused] == [True] * TOO_MANY
    assert [answer.status_code for answer in answers] == [200] * (ongoing + queued)
    assert len({answer.json()["request_id"] for answer in answers}) == ongoing + queued


@pytest.mark.slow
def test_requests_of_a_replica_that_is_killed_are_told_to_come_again_and_the_next_one_answers(
    queueing: RayServer,
) -> None:
    queueing.wait_until(lambda _: under_way(queueing) == 0)
    replica = queueing.replica()
    with held_at(queueing, IN_REPLICA + WAITING + TOO_MANY) as held:
        asked = [held.ask() for _ in range(IN_REPLICA)]
        queueing.wait_until(lambda _: under_way(queueing) == IN_REPLICA)
        os.kill(replica.pid, signal.SIGKILL)
        assert [is_refusal(future.result(), 503, "unavailable") for future in asked] == [True] * IN_REPLICA
    assert httpx.post(queueing.url + PATH, json=ROW, timeout=600).status_code == 200  # it waits for the next replica


@pytest.mark.slow
def test_a_late_answer_is_504_whatever_the_client_asks_for(module_settings: Settings) -> None:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    with ray_server(module_settings, with_a_short_timeout, PATIENT) as server, held_at(server, IN_REPLICA) as held:
        assert is_refusal(held.ask().result(), 504, "timeout")
        for headers in ({"X_Request_Timeout_Seconds": "0"}, {"X_Request_Disconnect_Disabled": "?1"}):
            assert is_refusal(held.ask(**headers).result(), 504, "timeout")
        odd = server.client.post(PATH, json=ROW, headers={b"X-Request-ID": b"\xff\xfe"})
        assert (odd.status_code, odd.json()["error"]["code"]) == (422, "invalid_request")
