"""Serving with its online store in Redis: the same answers, and the TTL holds there too."""

from datetime import timedelta

import pytest

from ml_platform.features.online import open_online_store
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, VIEWS, fill_online_store, publish
from serving.lookups import Lookups


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
