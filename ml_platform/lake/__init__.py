"""Tables of record: Delta storage, DuckDB over it, contracts and quarantine."""

import sys
from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.lake.contracts.contract import apply_contract, one_of
    from ml_platform.lake.errors import (
        CommitConflict,
        EmptyInput,
        NotYetCreated,
        SchemaMismatch,
        StoreUnreachable,
        TableNotFound,
        VersionGone,
    )
    from ml_platform.lake.ingestion.ingest import DAY
    from ml_platform.lake.ingestion.quarantine import readmit
    from ml_platform.lake.ingestion.raw_table import Calendar, RawTable
    from ml_platform.lake.sources.registry import declared_table
    from ml_platform.lake.storage.maintenance import maintain
    from ml_platform.lake.storage.merge import merge
    from ml_platform.lake.storage.tables import Lake

if "sqlalchemy" not in sys.modules:
    # dataframely imports all of SQLAlchemy, a tenth of a code location's loading time, to translate schemas into its
    # types, which nothing here needs. So SQLAlchemy is made to look not installed during this one import.
    sys.modules["sqlalchemy"] = None  # type: ignore[assignment]
    try:
        import dataframely  # noqa: F401
    finally:
        del sys.modules["sqlalchemy"]

__all__ = [
    "DAY",
    "Calendar",
    "CommitConflict",
    "EmptyInput",
    "Lake",
    "NotYetCreated",
    "RawTable",
    "SchemaMismatch",
    "StoreUnreachable",
    "TableNotFound",
    "VersionGone",
    "apply_contract",
    "declared_table",
    "maintain",
    "merge",
    "one_of",
    "readmit",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "contracts.contract": ["apply_contract", "one_of"],
        "errors": [
            "CommitConflict",
            "EmptyInput",
            "NotYetCreated",
            "SchemaMismatch",
            "StoreUnreachable",
            "TableNotFound",
            "VersionGone",
        ],
        "ingestion.ingest": ["DAY"],
        "ingestion.quarantine": ["readmit"],
        "ingestion.raw_table": ["Calendar", "RawTable"],
        "sources.registry": ["declared_table"],
        "storage.maintenance": ["maintain"],
        "storage.merge": ["merge"],
        "storage.tables": ["Lake"],
    },
)
