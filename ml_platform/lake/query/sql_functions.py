"""Functions of SQL that are not DuckDB's: who queries says which there are, and they are made for one SELECT."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import duckdb


class SqlFunctions(Protocol):
    """Makes the functions that a SELECT calls."""

    def made_for(
        self,
        tree: dict[str, Any],
        connection: "duckdb.DuckDBPyConnection",
        versions: Mapping[str, int],
        as_of: datetime | None,
    ) -> AbstractContextManager[bool]:
        """Create the functions that a parse tree calls, for as long as its rows are computed.

        Parameters
        ----------
        tree
            Of the SELECT; changed in place where a call is to be written in another way.
        connection
            Where the SELECT will run.
        versions, as_of
            At which the SELECT reads tables, see `ml_platform.lake.query.sql.query`.

        Returns
        -------
        contextlib.AbstractContextManager[bool]
            Gives whether the tree was changed; when it is left, the rows are computed or have failed.
        """
        ...
