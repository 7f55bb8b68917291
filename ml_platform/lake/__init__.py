"""Tables of record: Delta storage, DuckDB over it, contracts and quarantine."""

import sys

if "sqlalchemy" not in sys.modules:
    # dataframely imports all of SQLAlchemy, a tenth of a code location's loading time, to translate schemas into its
    # types, which nothing here needs. So SQLAlchemy is made to look not installed during this one import.
    sys.modules["sqlalchemy"] = None  # type: ignore[assignment]
    try:
        import dataframely  # noqa: F401
    finally:
        del sys.modules["sqlalchemy"]
