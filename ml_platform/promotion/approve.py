"""Asks for approvals, and writes what is asked and answered into the ledger."""

import getpass

from ml_platform.governance.audit import record_event
from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.approvals import ApprovalPolicy, ApprovalRequest
from ml_platform.registry.ledger import POLICY_CHANGED, record_approval, record_policy, recorded_events
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def request_approval(
    settings: Settings, model: str, version: int, digest: str, *, by: str, comment: str, renew: bool = False
) -> ApprovalRequest:
    """Ask that a version may serve.

    Parameters
    ----------
    settings
        Where release store and lake are.
    model, version, digest
        What is to serve.
    by, comment
        Who asks, and why.
    renew
        Ask again, for example after a rejection; else a request that exists stays as it is.

    Raises
    ------
    NotApproved
        Where no approval is needed.
    Archived
        When a person archived the version.
    """
    store = ReleaseStore(settings.releases_dir)
    store.notes.check_not_archived(model, [version])
    revision = store.revision(model)
    request = store.approvals.request(model, version, digest, revision=revision, by=by, comment=comment, renew=renew)
    record_approvals(settings, model)
    return request


def set_policy(settings: Settings, model: str, policy: ApprovalPolicy | None, *, by: str | None = None) -> None:
    """Say what a model's versions need from now on; a change of it is an entry of the ledger and of the audit log.

    Parameters
    ----------
    settings
        Where release store and lake are.
    model, policy
        The model, and what its versions need; None for nothing.
    by
        Who changes it; the user of this process when None.
    """
    store = ReleaseStore(settings.releases_dir)
    before = store.approvals.policy(model)
    if before == policy:
        return
    by, told = by or getpass.getuser(), f"{_in_words(before)} → {_in_words(policy)}"
    record_event(settings.audit_dir, settings.keys_dir, POLICY_CHANGED, f"{model}: {told}", by=by)
    anchor_ledger(settings, record_policy(Lake(settings.lake_uri), store, model=model, by=by, reason=told))
    store.approvals.set_policy(model, policy)


def _in_words(policy: ApprovalPolicy | None) -> str:
    if policy is None:
        return "no approval"
    who = f" by {', '.join(policy.approvers)}" if policy.approvers else ""
    return f"approval{who}{', four eyes' if policy.four_eyes else ''}, {policy.expires_days:g} days"


def record_approvals(settings: Settings, model: str | None = None) -> None:
    """Write into the ledger what was asked and answered and is not there yet, of one model or of all."""
    store, lake = ReleaseStore(settings.releases_dir), Lake(settings.lake_uri)
    for request in store.approvals.all(model):
        for position in range(recorded_events(lake, request), len(request.events)):
            anchor_ledger(settings, record_approval(lake, store, request, position))
