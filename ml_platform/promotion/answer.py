"""A person's answer to a version that waits: released where it is approved, with everything in the ledger."""

from ml_platform.promotion.approve import record_approvals
from ml_platform.promotion.promote import sync_registry
from ml_platform.registry.approved_release import Answered, answer_and_release
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def answer_request(settings: Settings, model: str, version: int, *, by: str, approve: bool, comment: str) -> Answered:
    """Approve or reject a version that waits, release an approved one, and write all of it into the ledger.

    Raises
    ------
    LookupError, NotApproved, ValueError, BundleRefused
        As `answer_and_release`.
    RegistryBehind
        When it serves, and ledger or registry could not follow.
    """
    store = ReleaseStore(settings.releases_dir)
    answered = answer_and_release(store, model, version, by=by, approve=approve, comment=comment)
    record_approvals(settings, model)
    if answered.endpoint is not None:
        sync_registry(settings, model)
    return answered
