"""Replicas on Ray Serve follow the number of requests under way: from none to several, and back to none."""

from collections.abc import Iterator

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.serving.held_requests import PATH, PATIENT, held_at, under_way
from ml_platform_tests.serving.on_ray import Config, RayServer, deployment_of, ray_server
from ml_platform_tests.serving.releases import ROW, fill_online_store, publish

TARGET, MOST = 2, 3  # requests under way per replica, and replicas


def from_none_to_three(config: Config) -> None:
    """Let there be no replica without requests, and at most three."""
    deployment_of(config)["autoscaling_config"] |= {
        "min_replicas": 0,
        "initial_replicas": 1,
        "max_replicas": MOST,
        "target_ongoing_requests": TARGET,
        "look_back_period_s": 2,
        "metrics_interval_s": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 2,
    }
    deployment_of(config)["graceful_shutdown_timeout_s"] = 3600  # a request under way ends when the test lets it
    config["http_options"]["request_timeout_s"] = 3600


@pytest.fixture(scope="module")
def scaling(module_settings: Settings) -> Iterator[RayServer]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    with ray_server(module_settings, from_none_to_three, PATIENT) as server:
        yield server


def is_idle(server: RayServer) -> bool:
    return not any(server.replicas().values())


@pytest.mark.slow
def test_replicas_are_as_many_as_the_requests_under_way_need_and_none_without_any(
    scaling: RayServer, module_settings: Settings
) -> None:
    scaling.wait_until(lambda _: is_idle(scaling), 600)
    publish(module_settings, 2)
    first = httpx.post(scaling.url + PATH, json=ROW, timeout=600)
    assert (first.status_code, first.json()["version"]) == (200, 2)  # it waited for the replica that it made start
    with held_at(scaling, TARGET * MOST + 1) as held:
        few = [held.ask() for _ in range(TARGET)]
        scaling.wait_until(lambda _: under_way(scaling) == TARGET, 600)
        assert scaling.replicas().get("RUNNING") == 1  # which is to have so many
        more = [held.ask() for _ in range(TARGET * (MOST - 1) + 1)]  # one more than three are to have
        scaling.wait_for_replicas(MOST)
        scaling.wait_until(lambda _: under_way(scaling) == TARGET * MOST + 1, 600)
        assert scaling.replicas() == {"RUNNING": MOST}  # and no fourth
        assert [held.end(future).status_code for future in [few[0], *more]] == [200] * (len(more) + 1)
        scaling.wait_until(lambda _: scaling.replicas().get("RUNNING") == 1, 600)
        assert not few[1].done()
        assert held.end(few[1]).status_code == 200  # whether or not its replica was ending
    scaling.wait_until(lambda _: is_idle(scaling), 600)
    assert httpx.post(scaling.url + PATH, json=ROW, timeout=600).status_code == 200
