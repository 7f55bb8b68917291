"""Approvals: which versions a person must let through before they may serve, who asked, who answered, and until when.

Under the release store's folder, `approvals/<model>/policy.json` says that a model's versions need an approval, and
`approvals/<model>/<version>.json` is the request of one version with everything that became of it.
`ReleaseStore.publish` asks here, so whatever the way (console, terminal, HTTP, Dagster), nothing that was not approved
comes into service.

Imports nothing but the standard library and msgspec: serving depends on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.printable import check_text
from ml_platform.registry.manifest import Struct
from ml_platform.registry.stored_documents import document_bytes, read_document

EventAction = Literal["approval requested", "approval", "rejection"]
State = Literal["waits", "approved", "rejected", "expired"]
_POLICY, _REMEDY = "policy.json", "restore it from a backup"


class NotApproved(ValueError):
    """A version may not serve, or a decision may not be made: the message says what is wanted, and of whom."""


class ApprovalPolicy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a model's versions need before they serve."""

    four_eyes: bool = True  # who asked for the release may not approve it
    expires_days: float = 14.0  # a request, and an approval that nobody has used
    approvers: tuple[str, ...] = ()  # who may approve; anybody who may promote when empty


class ApprovalEvent(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One thing that was asked or answered."""

    action: EventAction
    by: str
    at: datetime
    comment: str


class ApprovalRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A version that waits, or has waited, for a person."""

    model: str
    version: int
    digest: str
    expires_at: datetime
    revision: int  # of the model's endpoint when it was asked for: what the version is to take the place of
    events: tuple[ApprovalEvent, ...]  # oldest first; the first is the request, and so is each renewal

    def state(self, now: datetime) -> State:
        """What became of it at an instant."""
        action = self.events[-1].action
        if action == "rejection":
            return "rejected"
        if now >= self.expires_at:
            return "expired"
        return "approved" if action == "approval" else "waits"

    def is_open(self) -> bool:
        """Whether it waits for a person now."""
        return self.state(datetime.now(UTC)) == "waits"

    @property
    def requested_by(self) -> str:
        """Who asked last."""
        return [event.by for event in self.events if event.action == "approval requested"][-1]


class Approvals:
    """The approvals below a release store's folder.

    Examples
    --------
    >>> import tempfile
    >>> approvals = Approvals(Path(tempfile.mkdtemp()))
    >>> approvals.set_policy("rent", ApprovalPolicy())
    >>> _ = approvals.request("rent", 2, "ab" * 32, revision=0, by="ann", comment="passed the gate")
    >>> approvals.decide("rent", 2, by="ann", approve=True, comment="mine")
    Traceback (most recent call last):
    ml_platform.registry.approvals.NotApproved: rent version 2: ann asked for it, and another person has to approve it
    >>> approvals.decide("rent", 2, by="bob", approve=True, comment="looked at its card").state(datetime.now(UTC))
    'approved'
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "approvals"

    def policy(self, model: str) -> ApprovalPolicy | None:
        """What a model's versions need; None when nothing."""
        try:
            return read_document(self._folder / model / _POLICY, ApprovalPolicy, "a policy", _REMEDY)
        except FileNotFoundError:
            return None

    def set_policy(self, model: str, policy: ApprovalPolicy | None) -> None:
        """Say what a model's versions need from now on."""
        path = self._folder / model / _POLICY
        if policy is None:
            path.unlink(missing_ok=True)
        elif self.policy(model) != policy:
            replace_file(path, document_bytes(policy))

    def get(self, model: str, version: int) -> ApprovalRequest | None:
        """The request of a version; None when nobody asked."""
        try:
            return read_document(self._file(model, version), ApprovalRequest, "a request of an approval", _REMEDY)
        except FileNotFoundError:
            return None

    def all(self, model: str | None = None) -> list[ApprovalRequest]:
        """Every request, by model and version."""
        paths = self._folder.glob(f"{model or '*'}/*.json")
        keys = sorted((path.parent.name, int(path.stem)) for path in paths if path.stem.isdigit())
        return [request for name, version in keys if (request := self.get(name, version)) is not None]

    def request(
        self, model: str, version: int, digest: str, *, revision: int, by: str, comment: str, renew: bool = False
    ) -> ApprovalRequest:
        """Ask that a version may serve; asked again, nothing changes unless `renew`, or while it was of another bundle.

        Raises
        ------
        NotApproved
            When the model's versions need no approval.
        ValueError
            Without a reason, or with control characters in it.
        """
        policy = self._wanted_policy(model)
        if not comment.strip():
            raise ValueError("a request wants a reason: it goes into the ledger")
        check_text(comment, "comment")
        with self._alone(model):
            present = self.get(model, version)
            if present is not None and present.digest == digest and not renew:
                return present
            now = datetime.now(UTC)
            event = ApprovalEvent(action="approval requested", by=by, at=now, comment=comment)
            request = ApprovalRequest(
                model=model,
                version=version,
                digest=digest,
                expires_at=now + timedelta(days=policy.expires_days),
                revision=revision,
                events=(*(present.events if present else ()), event),
            )
            self._write(request)
            return request

    def decide(self, model: str, version: int, *, by: str, approve: bool, comment: str) -> ApprovalRequest:
        """Approve or reject a version that waits.

        The same answer of the same person again changes nothing: a release that was cut short is repeated so.

        Raises
        ------
        LookupError
            When nobody asked for this version.
        NotApproved
            When this person may not answer, or it is too late.
        ValueError
            Without a comment, or with control characters in it.
        """
        if not comment.strip():
            raise ValueError("an answer wants a comment: it goes into the ledger")
        check_text(comment, "comment")
        policy, now = self._wanted_policy(model), datetime.now(UTC)
        with self._alone(model):
            request = self.get(model, version)
            if request is None:
                waiting = [str(one.version) for one in self.all(model) if one.state(now) == "waits"]
                raise LookupError(
                    f"{model} version {version}: nobody asked for its approval; versions that wait: "
                    f"{', '.join(waiting) or 'none'}"
                )
            state = request.state(now)
            action: EventAction = "approval" if approve else "rejection"
            if (state, request.events[-1].action, request.events[-1].by) == ("approved", action, by):
                return request
            if state != "waits":
                raise NotApproved(
                    f"{model} version {version} {_past(request, state)}; ask for it again: ml-platform approvals "
                    f'request {model} {version} --reason "…"'
                )
            if policy.approvers and by not in policy.approvers:
                raise NotApproved(
                    f"{model} version {version}: {by} is none of its approvers: {', '.join(policy.approvers)}"
                )
            if approve and policy.four_eyes and _person(by) == _person(request.requested_by):
                raise NotApproved(f"{model} version {version}: {by} asked for it, and another person has to approve it")
            event = ApprovalEvent(action=action, by=by, at=now, comment=comment)
            request = msgspec.structs.replace(request, events=(*request.events, event))
            self._write(request)
            return request

    def check(self, model: str, version: int, digest: str) -> None:
        """Let a version pass that is about to serve for the first time (raises NotApproved)."""
        policy, request, now = self.policy(model), self.get(model, version), datetime.now(UTC)
        if policy is None:
            return
        if request is not None and request.digest == digest and request.state(now) == "approved":
            if not policy.approvers or request.events[-1].by in policy.approvers:
                return
            raise NotApproved(
                f"{model} version {version} was approved by {request.events[-1].by}, who is none of its approvers any "
                f"more: {', '.join(policy.approvers)}; ask again: ml-platform approvals request {model} {version}"
            )
        state = "nobody asked for it" if request is None else _past(request, request.state(now))
        raise NotApproved(
            f"{model} version {version} may not serve without an approval ({state}). ml-platform approvals list shows "
            f'what waits; to ask: ml-platform approvals request {model} {version} --reason "…"'
        )

    def _wanted_policy(self, model: str) -> ApprovalPolicy:
        policy = self.policy(model)
        if policy is None:
            raise NotApproved(
                f"{model}: its versions need no approval; `promotion: {{automatic: false, approval: {{}}}}` in "
                "defs.yaml wants one, from the next version that is registered on"
            )
        return policy

    @contextmanager
    def _alone(self, model: str) -> Iterator[None]:
        with locked(self._folder.parent / "locks" / f"{model}.approvals.lock"):
            yield

    def _file(self, model: str, version: int) -> Path:
        return self._folder / model / f"{version}.json"

    def _write(self, request: ApprovalRequest) -> None:
        path = self._file(request.model, request.version)
        replace_file(path, document_bytes(request))


def _person(name: str) -> str:
    """A name without what the eye does not see."""
    return " ".join(name.split()).casefold()


def _past(request: ApprovalRequest, state: State) -> str:
    last = request.events[-1]
    if state == "waits":
        return f"waits since {last.at:%Y-%m-%d %H:%M} UTC, asked for by {last.by}"
    if state == "expired":
        return f"expired at {request.expires_at:%Y-%m-%d %H:%M} UTC"
    return f"was {state} by {last.by} at {last.at:%Y-%m-%d %H:%M} UTC ({last.comment})"
