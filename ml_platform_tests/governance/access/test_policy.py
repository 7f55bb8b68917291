"""Decisions: who may what, in which order grants, denials, owners and admins count, and when a grant ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.governance.access import store as policy_store
from ml_platform.governance.access.changes import (
    LockedOut,
    check_not_locked_out,
    with_grants,
    with_namespace,
    with_owner,
)
from ml_platform.governance.access.objects import parse_object
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.store import PolicyStore

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ADA = Principal("ada", "user", frozenset({"analysts"}))
ROOT = Principal("root", "service", is_admin=True)


def grant(words: str, *, denies: bool = False, until: datetime | None = None) -> Grant:
    privilege, on, to = words.split(" ")
    return Grant(privilege=privilege, object=on, principal=to, denies=denies, until=until, at=NOW)


def deny(words: str) -> Grant:
    return grant(words, denies=True)


def allows(grants: list[Grant], words: str, who: Principal = ADA, document: Document | None = None) -> bool:
    policy = Policy(with_grants(document or Document(), grants), now=NOW)
    privilege, on = words.split(" ")
    decided = policy.allows(who, privilege, parse_object(on))
    assert (
        decided
        == policy.allows(who, privilege, parse_object(on))
        == policy.explain(who, privilege, parse_object(on)).allowed
    )
    return decided


@pytest.mark.parametrize(
    ("granted", "wanted", "allowed"),
    [
        ("select raw user:ada", "select raw.flights.carrier", True),
        ("select raw group:analysts", "select raw.flights", True),
        ("select raw group:everyone", "select raw.flights", True),
        ("select raw user:bob", "select raw.flights", False),
        ("select raw.flights user:ada", "select raw", False),
        ("select raw.flights user:ada", "select raw.flights2", False),
        ("select raw.flights.carrier user:ada", "select raw.flights", False),
        ("select raw user:ada", "modify raw.flights", False),
        ("select raw user:ada", "browse raw.flights", True),
        ("predict platform user:ada", "browse endpoint:m", True),
        ("predict platform user:ada", "browse raw.flights", False),
        ("use_feature features user:ada", "browse features.v", True),
        ("manage raw user:ada", "modify raw.flights", True),
        ("manage model:m user:ada", "predict endpoint:m", True),
        ("predict endpoint:m user:ada", "predict model:m", False),
        ("explain model:m user:ada", "predict endpoint:m", True),
        ("predict model:m user:ada", "explain endpoint:m", False),
        ("predict platform user:ada", "predict endpoint:m", True),
        ("select platform user:ada", "select tag:pii", False),
        ("manage platform user:ada", "select tag:pii", False),
        ("select tag:pii user:ada", "select tag:pii", True),
        ("select tag:pii user:ada", "select raw.flights", False),
    ],
)
def test_a_grant_holds_within_and_for_what_it_includes(granted: str, wanted: str, allowed: bool) -> None:
    assert allows([grant(granted)], wanted) is allowed


@pytest.mark.parametrize(
    "denied",
    [
        "select raw.flights user:ada",
        "select raw group:analysts",
        "select platform group:everyone",
        "browse raw user:ada",
    ],
)
def test_a_denial_wins_over_grants_owners_and_admins(denied: str) -> None:
    given = [grant("select raw.flights user:ada"), grant("manage raw user:ada"), deny(denied)]
    assert not allows(given, "select raw.flights.carrier")
    owned = with_owner(Document(), "raw.flights", "user:ada")
    assert not allows([deny(denied)], "select raw.flights", document=owned)
    admin = Principal("ada", "user", frozenset({"analysts"}), is_admin=True)
    assert not allows([deny(denied)], "select raw.flights", admin)
    assert allows([deny(denied)], "select features.x", admin) is ("platform" not in denied)


def test_who_may_not_predict_may_not_explain() -> None:
    assert not allows([grant("explain model:m user:ada"), deny("predict model:m user:ada")], "explain endpoint:m")


def test_owners_may_everything_on_what_they_own_and_what_that_contains() -> None:
    owned = with_owner(Document(), "raw.flights", "group:analysts")
    assert allows([], "manage raw.flights.carrier", document=owned)
    assert not allows([], "manage raw", document=owned)
    assert Policy(owned, owners={"raw.flights": "user:bob"}).owner_of(parse_object("raw.flights")) == "group:analysts"


def test_a_namespace_holds_what_it_names_and_what_comes_later() -> None:
    document = with_namespace(Document(), "risk", ["risk_raw", "model:risk_*", "features.risk_*"])
    given = [grant("select namespace:risk user:ada"), grant("predict namespace:risk user:ada")]
    for wanted, allowed in (
        ("select risk_raw.loans.amount", True), ("predict endpoint:risk_new", True),
        ("select features.risk_history", True),
        ("select raw.flights", False), ("predict endpoint:rent", False), ("select risk_raw2.x", False),
    ):  # fmt: skip
        assert allows(given, wanted, document=document) is allowed, wanted
    longer = with_namespace(document, "loans", ["model:risk_loans_*"])
    assert Policy(longer).chain(parse_object("endpoint:risk_loans_a")) == [
        "endpoint:risk_loans_a", "model:risk_loans_a", "namespace:loans", "platform",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="in namespace:risk already"):
        with_namespace(document, "other", ["risk_raw"])


def test_a_grant_ends_and_does_not_open_the_platform_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_store, "RELOAD_SECONDS", 0.0)
    store, real = PolicyStore(tmp_path / "access"), datetime.now(UTC)
    ended, later = grant("select raw user:ada", until=real - timedelta(seconds=1)), real + timedelta(hours=1)
    active = grant("select features user:ada", until=later)
    store.change(lambda document: with_grants(document, [ended, active]), "", "", by="x")
    assert store.in_use()
    assert not store.policy.allows(ADA, "select", parse_object("raw.flights"))
    assert store.policy.allows(ADA, "select", parse_object("features.x"))
    before = store.revision()
    monkeypatch.setattr("ml_platform.governance.access.store.time.time", lambda: later.timestamp() + 1)
    assert store.revision() == before + 1


def test_nobody_is_locked_out() -> None:
    check_not_locked_out(with_grants(Document(), [grant("select raw user:ada")]), [ROOT], NOW)
    check_not_locked_out(with_grants(Document(), [grant("manage platform user:ada")]), [ADA], NOW)
    check_not_locked_out(Document(), [], NOW)
    for grants, speakers in (
        ([grant("select raw user:ada")], []), ([grant("select raw user:ada")], [ADA]),
        ([deny("manage platform service:root")], [ROOT]), ([deny("browse platform group:everyone")], [ROOT]),
        ([grant("manage platform user:ada", until=NOW)], [ADA]),
    ):  # fmt: skip
        with pytest.raises(LockedOut):
            check_not_locked_out(with_grants(Document(), grants), speakers, NOW)


def test_a_policy_that_was_there_stays_in_force_when_its_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_store, "RELOAD_SECONDS", 0.0)
    store = PolicyStore(tmp_path / "access")
    store.change(lambda document: with_grants(document, [grant("select raw user:ada")]), "", "", by="x")
    assert store.in_use()
    store.path.unlink()
    assert store.in_use()
    assert not store.policy.allows(ADA, "select", parse_object("features.x"))
