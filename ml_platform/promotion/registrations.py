"""Registrations of versions in the ledger."""

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.ledger import record_registration
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def note_registration(settings: Settings, entry: "ModelVersion", *, by: str | None = None) -> None:
    """Write into the ledger that a version was registered, unless it is there.

    Parameters
    ----------
    settings
        Where lake and release store are.
    entry
        The version, with the tags `bundle_digest` and `gate`.
    by
        Who registered it; the user of this process when None.
    """
    link = record_registration(
        Lake(settings.lake_uri),
        ReleaseStore(settings.releases_dir),
        model=entry.name,
        version=int(entry.version),
        digest=entry.tags["bundle_digest"],
        at=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        by=by or getpass.getuser(),
        reason=f"the gate's verdict: {entry.tags.get('gate', 'none')}",
    )
    anchor_ledger(settings, link)
