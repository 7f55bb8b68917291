"""Serving with its online store in Redis: the same answers, and the TTL holds there too."""

import time
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import psutil
import pytest
import redis

from ml_platform.features.expressions.columns import Columns
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import to_micros
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.inputs.feature_lookup import Lookups
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, VIEWS, fill_online_store, publish


def manifest_in_force(releases: ReleaseStore) -> Manifest:
    endpoint = releases.endpoint(MODEL)
    assert endpoint is not None
    return releases.load_manifest(endpoint.targets[0].digest)


@pytest.mark.parametrize("store_kind", ["sqlite", "redis"])
def test_values_older_than_the_ttl_are_not_used(settings, store_kind, request):
    if store_kind == "redis":
        settings = Settings(home=settings.home, online_uri=request.getfixturevalue("redis_uri"))
    fill_online_store(settings)
    publish(settings, 1)
    releases = ReleaseStore(settings.releases_dir)
    manifest = manifest_in_force(releases)
    ttl = VIEWS["origin_weather"][2]
    late = [KNOWN_AT - timedelta(days=1), KNOWN_AT + ttl, KNOWN_AT + ttl + timedelta(microseconds=1)]
    with open_online_store(settings.online_uri) as store:
        lookups = Lookups(manifest, store)
        lookups.check()
        rows = [{"origin": "EWR", "carrier": "UA", "tailnum": None} for _ in late]
        missing = lookups.add(rows, late)
    assert missing["origin_weather"] == 1
    assert [row["origin_weather__temp"] is None for row in rows] == [False, False, True]


@pytest.mark.parametrize("store_kind", ["sqlite", "redis"])
@pytest.mark.parametrize("ttl", [None, timedelta.max])
def test_a_row_of_the_first_instant_is_known(settings, store_kind, ttl, request):
    if store_kind == "redis":
        settings = Settings(home=settings.home, online_uri=request.getfixturevalue("redis_uri"))
    fill_online_store(settings, known_at=datetime(1, 1, 1, tzinfo=UTC))
    publish(settings, 1)
    releases = ReleaseStore(settings.releases_dir)
    manifest = manifest_in_force(releases)
    seconds = ttl and ttl.total_seconds()
    known = tuple(msgspec.structs.replace(lookup, ttl_seconds=seconds) for lookup in manifest.lookups)
    keys = {"origin": ["EWR", "EWR", "XXX"], "carrier": ["UA"] * 3, "tailnum": ["N14228"] * 3}
    as_of = [datetime(2261, 12, 31, tzinfo=UTC), datetime(1678, 1, 1, tzinfo=UTC), KNOWN_AT]
    with open_online_store(settings.online_uri) as store:
        lookups = Lookups(msgspec.structs.replace(manifest, lookups=known), store)
        rows = [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]
        assert lookups.add(rows, as_of) == {"origin_weather": 1}
        columns = Columns(keys, dict.fromkeys(keys, "string"), 3)
        views, missing = lookups.find(columns, np.array([*map(to_micros, as_of)]))
    assert missing == {"origin_weather": 1}
    assert [row["origin_weather__temp"] is None for row in rows] == [False, False, True]
    by_column = next(view for view in views if view.view.name == "origin_weather").objects("temp")
    assert by_column == [row["origin_weather__temp"] for row in rows]


def test_a_store_that_hangs_is_left_alone_for_a_while_and_asked_again(settings, redis_uri):
    in_a_second, _, _ = redis_uri.partition("?")  # or it is given up
    settings = Settings(home=settings.home, online_uri=in_a_second)
    fill_online_store(settings)
    publish(settings, 1)
    releases = ReleaseStore(settings.releases_dir)
    manifest = manifest_in_force(releases)
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
