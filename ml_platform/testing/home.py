"""A platform home of the tests' own, with the project's tables and views on a sample of its data."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import polars as pl

from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.ingest import IngestReport
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.registry import declared_tables
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import sqlite_uri
from ml_platform.testing.arrival import Arrives
from ml_platform.testing.project_parts import part, project_views
from ml_platform.testing.samples import load_sample, sample_file


class SampleHome:
    """State of a test run alone: settings and a lake, filled as the checks ask for tables and views.

    Made by `sample_home`.
    """

    def __init__(
        self, folder: Path, *, days: int, rows: int, samples: Path | None, arrives: Mapping[str, Arrives]
    ) -> None:
        self.settings = settings_in(folder)
        self.lake = Lake(self.settings.lake_uri)
        self.samples = samples
        self.arrives = arrives
        self._days, self._rows = days, rows
        self._reports: dict[str, IngestReport] = {}
        self._computed: set[str] = set()

    @cached_property
    def tables(self) -> Mapping[str, RawTable]:
        """The raw tables that the project declares, by name."""
        return declared_tables()

    @cached_property
    def views(self) -> Mapping[str, FeatureView]:
        """The project's feature views, by name."""
        return project_views()

    def load(self, table: str) -> IngestReport:
        """Load the sample of a declared raw table, unless that is done; say what became of its rows.

        Raises
        ------
        AssertionError
            If the project declares no such table, or its source cannot be read.
        """
        raw = part("raw table", table, self.tables)
        if table not in self._reports:
            file = sample_file(self.samples, table)
            try:
                self._reports[table] = load_sample(self.lake, raw, file=file, days=self._days, rows=self._rows)
            except Exception as error:
                raise AssertionError(
                    f"{table}: wanted to load a sample of {file or raw.source}; found {type(error).__name__}: {error}. "
                    f"Correct the source or its contract; for a source that is not there when tests run, put some of "
                    f"its rows into {self._place(table)}"
                ) from error
        return self._reports[table]

    def view(self, name: str) -> FeatureView:
        """Compute a feature view and what it is computed from, unless that is done.

        Raises
        ------
        AssertionError
            If the project has no such view, a source cannot be loaded, or the view cannot be computed.
        """
        view = part("feature view", name, self.views)
        if name not in self._computed:
            self.provide(view.source_tables)
            try:
                compute_view(self.lake, view)
            except Exception as error:
                raise AssertionError(
                    f"view '{name}': wanted it to be computed on the sample; found {type(error).__name__}: {error}"
                ) from error
            self._computed.add(name)
        return view

    def provide(self, tables: Iterable[str]) -> None:
        """Have tables in the lake: raw tables from their sample, views computed, any other table from a sample file.

        Raises
        ------
        AssertionError
            If a table cannot be had.
        """
        own = {view.table: name for name, view in self.views.items()}
        for table in tables:
            if table in self.tables:
                self.load(table)
            elif table in own:
                self.view(own[table])
            elif not self.lake.exists(table):
                file = sample_file(self.samples, table)
                if file is None:
                    raise AssertionError(
                        f"wanted rows of {table}, which is neither a raw table nor a feature view that the project "
                        f"declares; put some into {self._place(table, '.parquet')}"
                    )
                self.lake.replace(table, read_file(file))

    def rows(self, table: str) -> pl.LazyFrame:
        """Scan a table that `provide` has provided."""
        return self.lake.read(table)

    def _place(self, table: str, suffix: str = ".csv") -> str:
        if self.samples is None:
            return f"<folder>/{table}{suffix}, and name the folder: sample_home(…, samples=<folder>)"
        return str(self.samples / f"{table}{suffix}")


def sample_home(
    folder: Path,
    *,
    days: int = 60,
    rows: int = 200_000,
    samples: Path | None = None,
    arrives: Mapping[str, Arrives] | None = None,
) -> SampleHome:
    """Make a platform home for a test run, with the project's own raw tables and feature views on a sample of its data.

    Nothing is read before a check asks for it, and then once. Whatever the environment says of lake, registry and
    stores, all state is in the folder.

    Parameters
    ----------
    folder
        Empty folder, such as `tmp_path_factory.mktemp("home")`.
    days
        Days that are loaded of a raw table with a calendar: its first.
    rows
        Rows that are kept of any other raw table: the first of its source.
    samples
        Folder with rows for sources that are not there when tests run (a database, a bucket), or too large:
        `<samples>/raw/orders.csv`, `.parquet` or `.jsonl` stands for the source of `raw/orders`, in the source's own
        columns. A table that the project neither declares nor computes is taken from there as it is.
    arrives
        Table → when its rows become known, for `check_view_is_point_in_time`. By default a row of a feature view is
        known from its event time (or `created`), one of a view's source from the time that the view's `incremental`
        names for it, one of any other table from its only timestamp.

    Examples
    --------
    A fixture that all checks of a test file share:

    >>> import pytest
    >>> @pytest.fixture(scope="session")
    ... def home(tmp_path_factory):
    ...     return sample_home(tmp_path_factory.mktemp("home"), days=45)
    """
    return SampleHome(folder, days=days, rows=rows, samples=samples, arrives=arrives or {})


def settings_in(folder: Path) -> Settings:
    """Settings with all state in a folder, whatever the environment says."""
    folder = folder.resolve()
    return Settings(
        home=folder,
        lake_uri=str(folder / "lake"),
        tracking_uri=sqlite_uri(folder / "mlflow.db"),
        online_uri=sqlite_uri(folder / "online.db"),
    )
