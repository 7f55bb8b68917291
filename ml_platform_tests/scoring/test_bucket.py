"""Scoring in a lake that is an object store: sources, scored rows and their one commit are all there."""

import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.views.compute import compute_view
from ml_platform.lake.storage.tables import Lake
from ml_platform.scoring import sources
from ml_platform.scoring.run import Wanted, score
from ml_platform.settings import Settings
from ml_platform_tests.lake.storage.test_buckets import server, uri  # noqa: F401 - fixtures


@pytest.mark.slow
def test_tables_of_a_bucket_are_scored_as_local_ones(world, uri, monkeypatch):  # noqa: F811 - the fixture
    monkeypatch.setattr(sources, "PART_ROWS", 100)
    local, lake = world.shops.lake, Lake(uri)
    orders = world.orders.head(300)
    local.replace("raw/few", orders)
    lake.replace("raw/few", orders, partition_by=["shop"])
    lake.replace("raw/loads", local.read("raw/loads"))
    compute_view(lake, world.shops.views["shop_load"])
    settings = Settings(home=world.shops.settings.home, lake_uri=uri)
    wanted = Wanted(model="order_late", source="raw/few", target="scores/few", keep=("shop",))
    for repeated in (False, True):
        report = score(settings, wanted, lambda: world.shops.views)
        assert (report.scored, report.repeated) == (300, repeated)
    world.score("raw/few", "scores/few", keep=("shop",))
    columns = ["id", "as_of", "shop", "score", "prediction"]
    there, here = (one.read("scores/few").select(columns).sort("id").collect() for one in (lake, local))
    assert_frame_equal(there, here, abs_tol=1e-12)
    assert lake.history("scores/few").height == 1
    monkeypatch.setattr(sources, "PART_ROWS", 200)
    lake.append("raw/few", world.orders.slice(300, 50))
    assert score(settings, wanted, lambda: world.shops.views).scored == 350
    assert lake.read("scores/few").collect().height == 350
