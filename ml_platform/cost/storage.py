"""What tables store: which files only an old version needs, and what a vacuum would free."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ml_platform.cost.config import CostConfig
from ml_platform.cost.prices import storage_price
from ml_platform.lake.errors import VersionGone
from ml_platform.lake.storage.tables import Lake

MOST_VERSIONS = 200  # of a table, the newest; each is opened


@dataclass(frozen=True)
class StoredVersion:
    """What one version of a table needs.

    Attributes
    ----------
    bytes
        Of the files that it is made of.
    unique_bytes
        Of these, those that no other version looked at needs: what deleting it alone could free.
    """

    version: int
    bytes: int
    unique_bytes: int


@dataclass(frozen=True)
class StoredTable:
    """What one table stores.

    Attributes
    ----------
    bytes
        Of all its files: data, log, and what a crashed writer left.
    current_bytes, older_bytes
        Of the data files of the newest version, and of the rest.
    vacuumable_bytes
        What the nightly maintenance would delete now.
    price_month
        Of `bytes`, for 30 days.
    """

    table: str
    bytes: int
    current_bytes: int
    older_bytes: int
    vacuumable_bytes: int
    price_month: float
    versions: tuple[StoredVersion, ...]

    def row(self) -> dict[str, Any]:
        """Return it as a row, its versions as a list of objects."""
        versions = [vars(one) for one in self.versions]
        return {**vars(self), "versions": versions}


def stored_tables(
    lake: Lake,
    config: CostConfig,
    retention_days: float,
    pinned: Mapping[str, Collection[int]] | None = None,
) -> list[StoredTable]:
    """Return what each table stores, the largest first.

    Parameters
    ----------
    lake
        The tables.
    config
        Has the rate of storage.
    retention_days
        How long a replaced version stays readable, as the maintenance has it.
    pinned
        Table → versions that stay for good.

    Examples
    --------
    >>> import tempfile, polars as pl
    >>> lake = Lake(tempfile.mkdtemp())
    >>> for value in (1, 2):
    ...     _ = lake.replace("raw/readings", pl.DataFrame({"value": [value]}))
    >>> [table] = stored_tables(lake, CostConfig(), retention_days=30)
    >>> [one.version for one in table.versions], table.older_bytes > 0, table.vacuumable_bytes
    ([1, 0], True, 0)
    """
    tables = [_stored(lake, table, config, retention_days, (pinned or {}).get(table, ())) for table in lake.tables()]
    return sorted(tables, key=lambda one: (-one.bytes, one.table))


def _stored(lake: Lake, table: str, config: CostConfig, days: float, pinned: Collection[int]) -> StoredTable:
    sizes = _files(lake, table)
    newest = lake.version(table)
    needs: dict[int, set[str]] = {}
    for version in range(newest, max(newest - MOST_VERSIONS, -1), -1):
        try:
            snapshot = lake.snapshot(table, version)
        except (VersionGone, LookupError):  # vacuumed; older ones may be kept for a model
            continue
        needs[version] = {str(path) for path in _paths(snapshot)}
    uses: dict[str, int] = {}
    for paths in needs.values():
        for path in paths:
            uses[path] = uses.get(path, 0) + 1
    versions = tuple(
        StoredVersion(
            version,
            sum(sizes.get(path, 0) for path in paths),
            sum(sizes.get(path, 0) for path in paths if uses[path] == 1),
        )
        for version, paths in needs.items()
    )
    current = needs.get(newest, set())
    data = {path: size for path, size in sizes.items() if not path.startswith("_delta_log/")}
    doomed = lake.snapshot(table).vacuum(
        retention_hours=math.ceil(timedelta(days=days) / timedelta(hours=1)),
        dry_run=True,
        enforce_retention_duration=False,
        full=days >= 1,
        keep_versions=sorted(set(pinned) & needs.keys()) or None,
    )
    total = sum(sizes.values())
    now = sum(data.get(path, 0) for path in current)
    return StoredTable(
        table,
        total,
        now,
        sum(data.values()) - now,
        sum(data.get(path, 0) for path in doomed),
        storage_price(config.current_rates, total),
        versions,
    )


def _paths(snapshot: Any) -> list[str]:
    import polars as pl

    actions = pl.DataFrame(snapshot.get_add_actions(flatten=True))
    return actions["path"].to_list() if actions.height else []


def _files(lake: Lake, table: str) -> dict[str, int]:
    import pyarrow.fs

    found = lake.store(table).get_file_info(pyarrow.fs.FileSelector("", recursive=True))
    return {info.path: info.size for info in found if info.is_file}
