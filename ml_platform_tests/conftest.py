"""Fixtures that every part's tests share."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.defs.flights.tables import RAW_TABLES
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.docs.reader import reader  # noqa: F401 - a fixture
from ml_platform_tests.redis_server import redis_server, redis_uri  # noqa: F401 - fixtures
from ml_platform_tests.toy_world import START, Shops, build_shops
from ml_platform_tests.webhook import receiver  # noqa: F401 - a fixture


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the slow tests half an hour each: the bound of all others is there to end what hangs."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: those with a time in them, as gzip's, would give each worker another name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def no_instance_of_another_test() -> None:
    """Let Dagster pass over the state storage of an instance that is gone.

    Contexts of `dg.build_…_context` put back what was there before them whenever they are collected, in any order, and
    Dagster then looks for definitions in the storage of an instance that no longer exists.
    """
    module = sys.modules.get("dagster._core.storage.defs_state.base")
    if module is not None and module.DefsStateStorage.get is not _living_storage:
        module.DefsStateStorage.get = staticmethod(_living_storage)


def _living_storage() -> object:
    storage = sys.modules["dagster._core.storage.defs_state.base"]._current_storage.get()
    reference = getattr(storage, "_instance_weakref", None)
    return storage if reference is not None and reference() is not None else None


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose state lives and dies with the test."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """An empty lake of the test's own."""
    return Lake(settings.lake_uri)


@pytest.fixture(scope="session")
def flights_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """All raw tables of the real flights, ingested once. Shared by the session: read only."""
    lake = Lake(str(tmp_path_factory.mktemp("flights") / "lake"))
    for table in RAW_TABLES:
        table.load(lake)
    return lake


@pytest.fixture(scope="session")
def trained_shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shops, TrainedModel]:
    """A small world with one trained, unreleased model (labels until day 50). Shared by the session: read only."""
    folder = tmp_path_factory.mktemp("shops")
    world = build_shops(Settings(home=folder / "home"), folder / "defs")
    return world, world.train(START + timedelta(days=50))


@pytest.fixture
def shops(trained_shops: tuple[Shops, TrainedModel], tmp_path: Path) -> Shops:
    """A copy of the small world to change: its stores and tables are the test's own."""
    world, _ = trained_shops
    home = shutil.copytree(world.settings.home, tmp_path / "shops")
    return Shops(Settings(home=home), world.folder, world.spec, world.views)
