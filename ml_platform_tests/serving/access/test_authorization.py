"""Keys that are revoked, end, or are remembered: they open what they should for as long as they should."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from ml_platform.governance import keys
from ml_platform.governance.keys import RELOAD_SECONDS, KeyStore
from ml_platform.serving.access import authorization
from ml_platform.serving.access.authorization import Access
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.settings import Settings
from ml_platform_tests.clock import Clock, datetime_after
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish


def test_a_revoked_key_soon_opens_nothing(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = KeyStore(settings.keys_dir)
    key, token = store.create("job", roles=["predict"])
    server = serve(settings)
    assert server.client.post(f"/predict/{MODEL}", json=ROW, headers=bearer(token)).status_code == 200
    store.revoke(key.id)

    def is_shut(client: httpx.Client) -> bool:
        return client.post(f"/predict/{MODEL}", json=ROW, headers=bearer(token)).status_code == 401

    server.wait_until(is_shut)
    assert 2 * RELOAD_SECONDS < 1  # within a second, where the machine has the time


def adapter(path: str, token: str, method: str = "POST", query: bytes = b"") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    return {"method": method, "path": path, "query_string": query, "headers": headers, "client": ("127.0.0.1", 1)}


def test_what_is_remembered_of_a_key_opens_nothing_else(settings: Settings) -> None:
    store = KeyStore(settings.keys_dir)
    _, token = store.create("job", roles=["predict"], models=[MODEL])
    access = Access(store, lambda: MODEL)
    path = f"/predict/{MODEL}"
    assert access.recall(adapter(path, token)) is None
    caller = asyncio.run(access.check(adapter(path, token)))
    again = adapter(path, token)
    assert access.recall(again) is RequestContext.of(again).key is caller is not None
    for other in (
        adapter(path, token, query=b"explain=true"),
        adapter(path, token, method="PUT"),
        adapter("/predict/other", token),
        adapter(path, token[:-1] + "_"),
        adapter(path, token.swapcase()),
        {**adapter(path, token), "headers": [(b"host", b"localhost")]},
        {**adapter(path, token), "headers": [(b"x-api-key", b"wrong"), *adapter(path, token)["headers"]]},
    ):
        assert access.recall(other) is None
    asyncio.run(access.check(adapter("/invocations", token)))
    assert access.recall(adapter("/invocations", token)) is None  # the only model may be another one next time


def test_a_remembered_key_ends_when_it_expires_and_when_the_keys_change(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(keys, "time", clock)
    store = KeyStore(settings.keys_dir)
    key, long = store.create("long", roles=["predict"], days=8)
    _, short = store.create("short", roles=["predict"], days=6)
    access = Access(KeyStore(settings.keys_dir), lambda: None)
    requests = {token: adapter(f"/predict/{MODEL}", token) for token in (short, long)}
    for request in requests.values():
        access.recall(request)
        asyncio.run(access.check(request))
        assert access.recall(request) is not None
    with monkeypatch.context() as patch:
        patch.setattr(authorization, "datetime", datetime_after(timedelta(days=7)))
        assert access.recall(requests[short]) is None
        assert access.recall(requests[long]) is not None
    store.revoke(key.id)
    clock.now += RELOAD_SECONDS + 0.1
    assert access.recall(requests[long]) is None
    with pytest.raises(Refused, match="send a valid API key"):
        asyncio.run(access.check(requests[long]))
