"""Lets the ledger and MLflow follow what people say of models and versions: each event once, and the present state."""

from typing import TYPE_CHECKING

from ml_platform.atomic_files import locked
from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.reconcile import reconcile_registry
from ml_platform.registry.followed import followed_notes, note_followed
from ml_platform.registry.ledger import record_notes
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.registry.version_notes import Notes


def notes_behind(store: ReleaseStore, model: str | None = None) -> "list[Notes]":
    """What was said of which ledger or MLflow lack something, of one model or of all."""
    return [notes for notes in store.notes.all(model) if followed_notes(store, notes) < len(notes.events)]


def follow_notes(settings: Settings, model: str | None = None) -> None:
    """Write what was said and is not there yet into the ledger, and show it in MLflow; of one model or of all.

    Parameters
    ----------
    settings
        Where release store, lake and registry are.
    model
        Whose; of all when None.
    """
    store, lake = ReleaseStore(settings.releases_dir), Lake(settings.lake_uri)
    behind = notes_behind(store, model)
    for name in sorted({notes.model for notes in behind}):
        with locked(store.folder / "locks" / f"{name}.follow_notes.lock"):
            said = [store.notes.load(notes.model, notes.version) for notes in behind if notes.model == name]
            for notes in said:
                anchor_ledger(settings, record_notes(lake, store, notes))
            reconcile_registry(Tracker(settings), name)
            for notes in said:
                note_followed(store, notes)
