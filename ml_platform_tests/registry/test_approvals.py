"""Approvals: asked for, answered by another person, expired; and no way around them into service."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ml_platform.registry.approvals import ApprovalPolicy, ApprovalRequest, Approvals, NotApproved
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.registry.traffic import TrafficChange, set_traffic
from ml_platform_tests.serving.releases import MODEL, bundle

DIGEST = "ab" * 32
NOW = datetime.now(UTC)


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    """Version 4 of rent waits; ann asked."""
    approvals = Approvals(tmp_path)
    approvals.set_policy("rent", ApprovalPolicy())
    approvals.request("rent", 4, DIGEST, revision=0, by="ann", comment="passed the gate")
    return approvals


def answer(approvals: Approvals, by: str, *, approve: bool = True, comment: str = "fine") -> ApprovalRequest:
    return approvals.decide("rent", 4, by=by, approve=approve, comment=comment)


def expired(approvals: Approvals, folder: Path) -> None:
    """Let the time of version 4's request run out."""
    request = approvals.get("rent", 4)
    assert request is not None
    past = msgspec.structs.replace(request, expires_at=datetime(2001, 1, 1, tzinfo=UTC))
    (folder / "approvals" / "rent" / "4.json").write_bytes(msgspec.json.encode(past))


def test_another_person_approves(approvals):
    with pytest.raises(NotApproved, match="ann asked for it, and another person has to approve it"):
        answer(approvals, "ann")
    with pytest.raises(NotApproved, match=r"may not serve without an approval \(waits since .* asked for by ann\)"):
        approvals.check("rent", 4, DIGEST)
    assert answer(approvals, "bob").state(NOW) == "approved"
    approvals.check("rent", 4, DIGEST)
    with pytest.raises(NotApproved):  # the approval is of this bundle, not of the number
        approvals.check("rent", 4, "cd" * 32)


@pytest.mark.parametrize("alias", ["Ann", "ann ", "ANN"])
def test_another_spelling_is_no_other_person(approvals, alias):
    with pytest.raises(NotApproved, match="another person has to approve it"):
        answer(approvals, alias)


def test_an_approval_of_somebody_who_is_no_approver_any_more_does_not_count(approvals):
    answer(approvals, "bob")
    approvals.set_policy("rent", ApprovalPolicy(approvers=("carol",)))
    with pytest.raises(NotApproved, match="approved by bob, who is none of its approvers any more: carol"):
        approvals.check("rent", 4, DIGEST)


def test_without_four_eyes_one_person_is_enough(approvals):
    approvals.set_policy("rent", ApprovalPolicy(four_eyes=False))
    assert answer(approvals, "ann").state(NOW) == "approved"


def test_who_asked_may_withdraw_it_by_a_rejection(approvals):
    assert answer(approvals, "ann", approve=False).state(NOW) == "rejected"


def test_approvers_alone_may_answer(approvals):
    approvals.set_policy("rent", ApprovalPolicy(approvers=("carol",)))
    with pytest.raises(NotApproved, match="bob is none of its approvers: carol"):
        answer(approvals, "bob")
    assert answer(approvals, "carol").state(NOW) == "approved"


def test_the_same_answer_again_changes_nothing_and_another_comes_too_late(approvals):
    first = answer(approvals, "bob")
    assert answer(approvals, "bob") == first
    with pytest.raises(NotApproved, match=r"was approved by bob .*ask for it again"):
        answer(approvals, "carol", approve=False)


def test_a_rejected_version_may_be_asked_for_again_by_somebody_else(approvals):
    answer(approvals, "bob", approve=False, comment="slices")
    with pytest.raises(NotApproved, match=r"was rejected by bob .*\(slices\)"):
        answer(approvals, "carol")
    assert approvals.request("rent", 4, DIGEST, revision=0, by="dan", comment="once more").state(NOW) == "rejected"
    again = approvals.request("rent", 4, DIGEST, revision=0, by="bob", comment="slices are fine", renew=True)
    assert (again.state(NOW), again.requested_by, len(again.events)) == ("waits", "bob", 3)
    with pytest.raises(NotApproved, match="bob asked for it"):
        answer(approvals, "bob")


def test_what_has_expired_is_neither_answered_nor_released(approvals, tmp_path):
    expired(approvals, tmp_path)
    with pytest.raises(NotApproved, match="expired at 2001-01-01"):
        answer(approvals, "bob")
    approvals.request("rent", 4, DIGEST, revision=0, by="ann", comment="again", renew=True)
    answer(approvals, "bob")
    expired(approvals, tmp_path)
    with pytest.raises(NotApproved, match="expired"):
        approvals.check("rent", 4, DIGEST)


def test_bad_input_is_told(approvals, tmp_path):
    with pytest.raises(LookupError, match="nobody asked for its approval; versions that wait: 4"):
        approvals.decide("rent", 5, by="bob", approve=True, comment="fine")
    with pytest.raises(ValueError, match="wants a comment"):
        answer(approvals, "bob", comment=" ")
    with pytest.raises(NotApproved, match="tips: its versions need no approval"):
        approvals.request("tips", 1, DIGEST, revision=0, by="ann", comment="please")
    (tmp_path / "approvals" / "rent" / "4.json").write_text("{")
    with pytest.raises(DocumentUnreadable, match="not a request of an approval"):
        answer(approvals, "bob")


def test_nothing_comes_into_service_around_an_approval(tmp_path):
    store = ReleaseStore(tmp_path)
    digests = {version: store.put_bundle(bundle(version)) for version in (1, 2)}
    for version, digest in digests.items():
        store.register_version(MODEL, version, digest)
    store.publish(MODEL, [Target(version=1, digest=digests[1])], reason="before", by="ann")
    store.approvals.set_policy(MODEL, ApprovalPolicy())
    second = [Target(version=2, digest=digests[2])]
    ways = (
        lambda: store.publish(MODEL, second, reason="by hand", by="ann"),
        lambda: set_traffic(store, MODEL, TrafficChange(shares={1: 0.9, 2: 0.1}), by="ann", reason="canary"),
        lambda: set_traffic(store, MODEL, TrafficChange(shares={1: 1}, shadows=[2]), by="ann", reason="by its number"),
        lambda: set_traffic(store, "other", TrafficChange(shares={2: 1}, model=MODEL), by="ann", reason="endpoint"),
    )
    for way in ways:
        with pytest.raises(NotApproved, match="nobody asked for it"):
            way()
    assert store.revision(MODEL) == 1
    assert store.document("other") is None
    store.approvals.request(MODEL, 2, digests[2], revision=1, by="ann", comment="passed")
    store.approvals.decide(MODEL, 2, by="bob", approve=True, comment="fine")
    store.publish(MODEL, second, reason="approved", by="bob")
    store.publish(MODEL, [Target(version=1, digest=digests[1])], reason="back", by="ann", action="rollback")
    store.publish(MODEL, second, reason="it has served before", by="ann")
    assert store.revision(MODEL) == 4
