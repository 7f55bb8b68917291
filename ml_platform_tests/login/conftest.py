from collections.abc import Iterator

import httpx
import pytest

from ml_platform_tests.login.gateway_world import PEOPLE, World
from ml_platform_tests.login.gateway_world import world as make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    """One gateway for a file of tests; what a test changes about an account, it changes on one of its own."""
    with make_world(tmp_path_factory.mktemp("login")) as running:
        yield running


@pytest.fixture(scope="module")
def people(world) -> Iterator[dict[str, httpx.Client]]:
    """A signed-in client of each role."""
    clients = {name: world.client(name) for name in PEOPLE}
    yield clients
    for client in clients.values():
        client.close()
