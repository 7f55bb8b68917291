"""Tables of record: Delta storage, DuckDB over it, contracts and quarantine."""

import sys

if "sqlalchemy" not in sys.modules:
    # dataframely imports all of SQLAlchemy, a tenth of a code location's loading time, to translate schemas into its
    # types. Nothing here does that: it is shown as not installed for the one import, and free for everybody after it.
    sys.modules["sqlalchemy"] = None  # type: ignore[assignment]
    try:
        import dataframely  # noqa: F401
    finally:
        del sys.modules["sqlalchemy"]
