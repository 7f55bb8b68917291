"""The ledger: every change of what serves, in one Delta table that only grows."""

from datetime import UTC, datetime

import polars as pl

from ml_platform.lake.tables import Lake
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import champion_target

LEDGER = "governance/ledger"
SCHEMA: dict[str, pl.DataType] = {
    "at": pl.Datetime("us", "UTC"),
    "model": pl.String(),
    "action": pl.String(),
    "by": pl.String(),
    "reason": pl.String(),
    "revision": pl.Int64(),
    "from_version": pl.Int64(),
    "from_digest": pl.String(),
    "to_version": pl.Int64(),
    "to_digest": pl.String(),
}


def record_release(lake: Lake, action: str, endpoint: Endpoint) -> int:
    """Write down who let what serve, when, why, and instead of what; each revision of a model once.

    Parameters
    ----------
    lake
        Holds the ledger.
    action
        `promotion` or `rollback`.
    endpoint
        The document that was published; its `previous` tells what it replaced.

    Returns
    -------
    int
        Version of the ledger that has the entry.
    """
    new = champion_target(endpoint)
    old = max(endpoint.previous, key=lambda target: (target.share, target.version), default=None)
    entry = {
        "at": datetime.fromisoformat(endpoint.updated_at).astimezone(UTC),
        "model": endpoint.model,
        "action": action,
        "by": endpoint.updated_by,
        "reason": endpoint.reason,
        "revision": endpoint.revision,
        "from_version": old.version if old else None,
        "from_digest": old.digest if old else None,
        "to_version": new.version,
        "to_digest": new.digest,
    }
    frame = pl.DataFrame([entry], schema=SCHEMA)
    return lake.append(LEDGER, frame, app_transaction=(f"release/{endpoint.model}", endpoint.revision))


def is_recorded(lake: Lake, endpoint: Endpoint) -> bool:
    """Whether the ledger has a revision of a model already."""
    return (lake.last_app_version(LEDGER, f"release/{endpoint.model}") or 0) >= endpoint.revision


def read_ledger(lake: Lake, model: str | None = None) -> pl.DataFrame:
    """Read entries, oldest first; of one model or of all. Empty before the first release."""
    if not lake.exists(LEDGER):
        return pl.DataFrame(schema=SCHEMA)
    entries = lake.read(LEDGER)
    if model is not None:
        entries = entries.filter(pl.col("model") == model)
    return entries.sort("at", "model", "revision").collect()
