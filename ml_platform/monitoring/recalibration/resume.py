"""Lets recalibrations be released again, after what one of them had released was taken back."""

from ml_platform.governance.audit import record_event
from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.ledger import RESUMED, record_policy
from ml_platform.registry.recalibration_pause import check_resumable, resume
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def resume_recalibration(settings: Settings, model: str, *, by: str, reason: str) -> str:
    """Resume, with a line in the audit log and in the ledger; says what had been taken back.

    Raises
    ------
    NotPaused, ValueError
        As `registry.recalibration_pause.check_resumable`.
    """
    store = ReleaseStore(settings.releases_dir)
    paused = check_resumable(store, model, reason)
    record_event(settings.audit_dir, settings.keys_dir, RESUMED, f"{model}: {reason}", by=by)
    resume(store, model, by=by, reason=reason)
    lake = Lake(settings.lake_uri)
    anchor_ledger(settings, record_policy(lake, store, model=model, by=by, reason=reason, action=RESUMED))
    return f"{model}: recalibrations go on; revision {paused.revision} of {paused.updated_by} had paused them"
