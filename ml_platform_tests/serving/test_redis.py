"""Serving with its online store in Redis: the same answers, and the TTL holds there too."""

import time
from datetime import timedelta

import psutil
import pytest
import redis

from ml_platform.features.online import open_online_store
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, VIEWS, fill_online_store, publish
from serving.lookups import Lookups, OnlineStoreFailed


@pytest.mark.parametrize("store_kind", ["sqlite", "redis"])
def test_values_older_than_the_ttl_are_not_used(settings, store_kind, request):
    if store_kind == "redis":
        settings = Settings(home=settings.home, online_uri=request.getfixturevalue("redis_uri"))
    fill_online_store(settings)
    publish(settings, 1)
    releases = ReleaseStore(settings.releases_dir)
    manifest = releases.load_manifest(releases.endpoint(MODEL).targets[0].digest)
    ttl = VIEWS["origin_weather"][2]
    late = [KNOWN_AT - timedelta(days=1), KNOWN_AT + ttl, KNOWN_AT + ttl + timedelta(microseconds=1)]
    with open_online_store(settings.online_uri) as store:
        lookups = Lookups(manifest, store)
        lookups.check()
        rows = [{"origin": "EWR", "carrier": "UA", "tailnum": None} for _ in late]
        missing = lookups.add(rows, late)
    assert missing["origin_weather"] == 1
    assert [row["origin_weather__temp"] is None for row in rows] == [False, False, True]


def test_a_store_that_hangs_is_left_alone_for_a_while_and_asked_again(settings, redis_uri):
    in_a_second, _, _ = redis_uri.partition("?")  # or it is given up
    settings = Settings(home=settings.home, online_uri=in_a_second)
    fill_online_store(settings)
    publish(settings, 1)
    releases = ReleaseStore(settings.releases_dir)
    manifest = releases.load_manifest(releases.endpoint(MODEL).targets[0].digest)
    with redis.Redis.from_url(redis_uri) as client:
        server = psutil.Process(client.info()["process_id"])
    with open_online_store(settings.online_uri) as store:
        lookups, strict = Lookups(manifest, store, "nulls"), Lookups(manifest, store)
        row = {"origin": "EWR", "carrier": "UA", "tailnum": None}

        def failed():
            return lookups.add([dict(row)], [KNOWN_AT]).store_failed

        assert not failed()
        server.suspend()
        try:
            asked = store.counts()
            assert failed()
            with pytest.raises(OnlineStoreFailed, match="TimeoutError"):
                strict.add([dict(row)], [KNOWN_AT])
            with pytest.raises(OnlineStoreFailed, match="asked again soon"):
                strict.add([dict(row)], [KNOWN_AT])
            assert [failed() for _ in range(1000)] == [True] * 1000  # some minutes, were it asked each time
        finally:
            server.resume()
        assert store.counts() == asked
        deadline = time.monotonic() + 60
        while failed():
            assert time.monotonic() < deadline
            time.sleep(0.1)
