"""Asks for approvals and answers them, with everything that is said in the ledger."""

from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.registry.ledger import LEDGER, record_approval
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def request_approval(
    settings: Settings, model: str, version: int, digest: str, *, by: str, comment: str, renew: bool = False
) -> ApprovalRequest:
    """Ask that a version may serve (raises NotApproved where no approval is needed).

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
    """
    store = ReleaseStore(settings.releases_dir)
    request = store.approvals.request(model, version, digest, by=by, comment=comment, renew=renew)
    record_approvals(settings, model)
    return request


def answer_request(
    settings: Settings, model: str, version: int, *, by: str, approve: bool, comment: str
) -> ApprovalRequest:
    """Approve or reject a version that waits (raises as `Approvals.decide`)."""
    request = ReleaseStore(settings.releases_dir).approvals.decide(
        model, version, by=by, approve=approve, comment=comment
    )
    record_approvals(settings, model)
    return request


def record_approvals(settings: Settings, model: str | None = None) -> int:
    """Write into the ledger what was asked and answered and is not there yet, of one model or of all.

    Returns
    -------
    int
        How many entries were written.
    """
    store, lake = ReleaseStore(settings.releases_dir), Lake(settings.lake_uri)
    written = 0
    for request in store.approvals.all(model):
        for position in range(recorded_events(lake, request), len(request.events)):
            anchor_ledger(settings, record_approval(lake, store, request, position))
            written += 1
    return written


def recorded_events(lake: Lake, request: ApprovalRequest) -> int:
    """How many events of a request the ledger has."""
    return lake.last_app_version(LEDGER, f"approval/{request.model}/{request.version}") or 0
