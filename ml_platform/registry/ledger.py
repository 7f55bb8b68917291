"""The ledger: every change of what serves, in one Delta table that only grows."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Endpoint, champion_of_targets, describe_targets
from ml_platform.registry.releases import ReleaseStore

LEDGER = "governance/ledger"
SCHEMA: dict[str, pl.DataType] = {
    "at": pl.Datetime("us", "UTC"),
    "model": pl.String(),
    "endpoint": pl.String(),  # the model's name, unless the endpoint has one of its own
    "action": pl.String(),
    "by": pl.String(),
    "reason": pl.String(),
    "revision": pl.Int64(),
    "from_version": pl.Int64(),
    "from_digest": pl.String(),
    "to_version": pl.Int64(),  # the champion's; null for a withdrawal
    "to_digest": pl.String(),
    "serving": pl.String(),  # every version with its share, in words
}


def record_release(lake: Lake, document: Endpoint) -> int:
    """Record who released what, when, why, and in place of what; each revision of an endpoint once.

    Parameters
    ----------
    lake
        Holds the ledger.
    document
        As published, and the oldest that the ledger lacks: those before it cannot be written afterwards.

    Returns
    -------
    int
        Version of the ledger that has the entry.
    """
    frame = pl.DataFrame([_entry(document)], schema=SCHEMA)
    application = (_application(document.name), document.revision)
    return lake.append(LEDGER, frame, app_transaction=application, add_columns=True)


def unrecorded(lake: Lake, store: ReleaseStore, name: str) -> list[Endpoint]:
    """Documents of an endpoint that the ledger lacks, oldest first."""
    known = recorded_revision(lake, name)
    return [document for document in store.history(name) if document.revision > known]


def recorded_revision(lake: Lake, name: str) -> int:
    """Newest revision of an endpoint that the ledger has; 0 for none."""
    return lake.last_app_version(LEDGER, _application(name)) or 0


def read_ledger(lake: Lake, model: str | None = None) -> pl.DataFrame:
    """Read entries, oldest first; of one model or of all. Empty before the first release."""
    if not lake.exists(LEDGER):
        return pl.DataFrame(schema=SCHEMA)
    entries = lake.read(LEDGER)
    if model is not None:
        entries = entries.filter(pl.col("model") == model)
    return entries.sort("at", "model", "revision").collect()


def _application(name: str) -> str:
    return f"release/{name}"


def _entry(document: Endpoint) -> dict[str, Any]:
    new, old = champion_of_targets(document.targets), champion_of_targets(document.previous)
    return {
        "at": datetime.fromisoformat(document.updated_at).astimezone(UTC),
        "model": document.model,
        "endpoint": document.name,
        "action": document.action,
        "by": document.updated_by,
        "reason": document.reason,
        "revision": document.revision,
        "from_version": old.version if old else None,
        "from_digest": old.digest if old else None,
        "to_version": new.version if new else None,
        "to_digest": new.digest if new else None,
        "serving": describe_targets(document.targets),
    }
