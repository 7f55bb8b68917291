"""The lake in a notebook: `from ml_platform.lake.notebook import open_lake`."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from ml_platform.lake.snapshots import instant
from ml_platform.lake.sql import query
from ml_platform.lake.tables import Lake
from ml_platform.settings import Settings


class NotebookLake(Lake):
    """A `Lake` that also answers SQL."""

    def sql(
        self, select: str, *, versions: Mapping[str, int] | None = None, as_of: datetime | str | None = None
    ) -> pl.DataFrame:
        """Run one SELECT over tables named `schema.name`, at pinned versions or as of a time (UTC unless it says).

        Examples
        --------
        >>> import tempfile
        >>> lake = open_lake(tempfile.mkdtemp())
        >>> _ = lake.append("raw/readings", pl.DataFrame({"value": [1.0, 2.0]}))
        >>> _ = lake.append("raw/readings", pl.DataFrame({"value": [6.0]}))
        >>> lake.sql("SELECT avg(value) FROM raw.readings").item()
        3.0
        >>> lake.sql("SELECT avg(value) FROM raw.readings", versions={"raw/readings": 0}).item()
        1.5
        """
        return query(self, select, versions=versions, as_of=instant(as_of) if isinstance(as_of, str) else as_of)


def open_lake(uri: str | None = None) -> NotebookLake:
    """Open the project's lake (by the environment's settings), or another one."""
    return NotebookLake(uri or Settings().lake_uri)
