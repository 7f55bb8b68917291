"""Functions of SQL that are not DuckDB's: who queries says which there are, and they are made for one SELECT."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform.lake.query.time_travel_sql import nodes

if TYPE_CHECKING:
    import duckdb


PREDICT = ("predict", "predict_score", "try_predict", "try_predict_score")  # see `ml_platform.scoring.sql_predict`


def check_predicts_nothing(tree: dict[str, Any]) -> None:
    """Refuse a SELECT that calls these functions where there are none (raises ValueError)."""
    for node in nodes(tree):
        if node.get("class") == "FUNCTION" and (name := str(node.get("function_name")).lower()) in PREDICT:
            raise ValueError(
                f"{name}(…) works in `ml-platform sql` and in notebooks (open_lake().sql). The query of a spine, of a "
                "view or of `ml-platform score --from` reads tables alone, each at a version: write scores to one "
                "first, ml-platform score <model> --from <table> --to scores/<name>, and read that"
            )


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
