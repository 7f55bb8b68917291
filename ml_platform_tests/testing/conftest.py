"""Fixtures of small projects of their own, whose definitions the checks judge."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ml_platform.testing import SampleHome, sample_home
from ml_platform_tests.testing.shop_project import ShopProject, empty_project, fill_project, shop_tables, work_for


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    return shop_tables(tmp_path_factory.mktemp("shop_tables"))


@pytest.fixture
def new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShopProject:
    """A project without any definitions, which this process works for."""
    return work_for(empty_project(tmp_path / "project"), monkeypatch)


@pytest.fixture
def project(new_project: ShopProject, tables: tuple[pl.DataFrame, pl.DataFrame]) -> ShopProject:
    """A project with two raw tables and a feature view, which this process works for."""
    fill_project(new_project, tables)
    return new_project


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[..., SampleHome]:
    def make(**options: object) -> SampleHome:
        return sample_home(tmp_path / "home", **options)  # type: ignore[arg-type]

    return make
