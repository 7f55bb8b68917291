"""A person's answer and the release that follows it, once: at a terminal and over HTTP alike."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_platform.atomic_files import locked
from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.registry.canary import release
from ml_platform.registry.manifest import Endpoint, Target, describe_targets
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
from ml_platform.registry.version_notes import Archived

_TICK = timedelta(milliseconds=1)  # documents tell milliseconds


@dataclass(frozen=True)
class Answered:
    """What an answer came to.

    Attributes
    ----------
    request
        As it is now.
    endpoint
        The document that let the version serve; None where it does not.
    not_released
        Why an approved version was not released.
    """

    request: ApprovalRequest
    endpoint: Endpoint | None = None
    not_released: str = ""


def answer_and_release(
    store: ReleaseStore, model: str, version: int, *, by: str, approve: bool, comment: str
) -> Answered:
    """Answer to a version that waits, and release it where it is approved and nothing has come in between.

    The same answer again releases only what the first one has not: a used approval brings nothing back that was rolled
    back or taken out of service since.

    Raises
    ------
    LookupError, NotApproved, ValueError
        As `Approvals.decide`.
    Archived
        When a person archived the version; nothing is approved then.
    BundleRefused
        When its bundle is damaged; it is approved all the same.
    """
    with locked(store.folder / "locks" / f"{model}.answers.lock"):
        if approve:
            store.notes.check_not_archived(model, [version])  # first: an approval that is noted is a way into service
        request = store.approvals.decide(model, version, by=by, approve=approve, comment=comment)
        if not approve:
            return Answered(request)
        documents, approved_at = store.history(model), request.events[-1].at
        for document in documents:
            published = datetime.fromisoformat(document.updated_at).astimezone(UTC)
            live = {target.digest for target in document.targets if target.mode == "live"}
            if published > approved_at - _TICK and request.digest in live:
                return Answered(request, document)
        newest = documents[-1] if documents else None
        revision = newest.revision if newest else 0
        by_hand = f'to serve it all the same: ml-platform promote {model} {version} --reason "…"'  # it is approved
        if newest is not None and (obstacle := _obstacle(request, newest)):
            return Answered(request, not_released=f"{obstacle}; {by_hand}")
        try:
            target = Target(version=version, digest=request.digest)
            endpoint = release(store, model, target, reason=f"approved: {comment}", by=by, expected_revision=revision)
        except (ReleaseConflict, Archived) as error:
            return Answered(request, not_released=f"{error}; {by_hand}")
        return Answered(request, endpoint)


def way_into_service(store: ReleaseStore, model: str, version: int) -> str:
    """The command by which a person lets a version serve that the gate has not released."""
    asks = store.approvals.policy(model) is not None
    return f'ml-platform {"approvals request" if asks else "promote"} {model} {version} --reason "…"'


def _obstacle(request: ApprovalRequest, newest: Endpoint) -> str:
    """Why an approved version does not take the place of what is there now; nothing when it may."""
    if newest.walk is not None:
        return newest.walk.under_way(request.model)
    if newest.revision != request.revision:
        return (
            f"since it was asked for, what serves has changed (revision {request.revision} → {newest.revision}: "
            f"{describe_targets(newest.targets)}, by {newest.updated_by}: {newest.reason})"
        )
    return "" if newest.targets else f"{request.model} was taken out of service by {newest.updated_by}"
