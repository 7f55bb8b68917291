"""A small world with a released model, and a way to score in it."""

from dataclasses import dataclass

import polars as pl
import pytest

from ml_platform.registry.manifest import Target
from ml_platform.scoring.run import ScoringReport, Wanted, score
from ml_platform_tests.toy_world import Shops


@dataclass
class World:
    """The small world, whose champion is version 4."""

    shops: Shops

    def score(self, source: str, target: str, model: str = "order_late", **options) -> ScoringReport:
        wanted = Wanted(model=model, source=source, target=target, **options)
        return score(self.shops.settings, wanted, lambda: self.shops.views)

    def scored(self, table: str = "scores/orders") -> pl.DataFrame:
        return self.shops.lake.read(table).sort("source", "source_row").collect()

    @property
    def orders(self) -> pl.DataFrame:
        return self.shops.lake.read("raw/orders").collect()


@pytest.fixture
def world(shops: Shops, trained_shops) -> World:
    shops.store.publish(
        "order_late", [Target(version=4, digest=trained_shops[1].digest)], reason="test", by="ann", expected_revision=0
    )
    return World(shops)
