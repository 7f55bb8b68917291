"""What one principal sees of the lake: grants, filters, masks and tags, enforced in SQL and Python."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ml_platform.governance.access import store as policy_store
from ml_platform.governance.access.changes import with_grants, with_group, with_tag
from ml_platform.governance.access.guard import PolicyGuard
from ml_platform.governance.access.policy import Grant, TagChange
from ml_platform.governance.access.principals import PLATFORM, Principal
from ml_platform.governance.access.store import PolicyStore
from ml_platform.lake.access import AccessDenied, TableAccess
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.spec.protection import Protection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADA = Principal("ada", "user", frozenset({"analysts"}))
COLUMNS = ["id", "region", "mail"]
PROTECTION = Protection.model_validate(
    {
        "row_filter": {"sql": "region = 'EU' OR is_member('hq')", "exempt": ["group:auditors"]},
        "masks": {"mail": {"sql": "'…' || right(mail, 3)", "exempt": ["user:support"]}},
    }
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyStore:
    monkeypatch.setattr(policy_store, "RELOAD_SECONDS", 0.0)
    return PolicyStore(tmp_path / "access")


def give(store: PolicyStore, *grants: tuple[str, str, str], denies: bool = False) -> None:
    made = [Grant(privilege=p, object=on, principal=to, denies=denies, at=NOW) for p, on, to in grants]
    store.change(lambda document: with_grants(document, made), "", "", by="x")


def guard(store: PolicyStore, who: Principal = ADA, protection: Protection | None = None) -> PolicyGuard:
    return PolicyGuard(who, store, {} if protection is None else {"raw/people": protection})


def seen(guard: PolicyGuard, table: str = "raw/people", columns: Sequence[str] = COLUMNS) -> TableAccess | None:
    try:
        return guard.access(table, columns)
    except AccessDenied:
        return None


def test_a_table_is_seen_by_a_grant_on_it_or_around_it_and_a_column_by_one_of_its_own(store: PolicyStore) -> None:
    give(store, ("select", "raw.people.id", "group:analysts"))
    assert seen(guard(store)) == TableAccess({"id": None})
    assert seen(guard(store), "raw/other") is None
    give(store, ("select", "raw", "user:ada"))
    assert seen(guard(store)) == TableAccess()
    give(store, ("select", "raw.people.mail", "group:everyone"), denies=True)
    assert seen(guard(store)) == TableAccess({"id": None, "region": None})
    give(store, ("select", "platform", "user:ada"), denies=True)
    assert seen(guard(store)) is None


def test_a_filter_and_a_mask_hold_for_all_who_are_not_exempt(store: PolicyStore) -> None:
    give(store, ("select", "raw", "group:everyone"))
    masked = {"id": None, "region": None, "mail": "'…' || right(mail, 3)"}
    assert seen(guard(store, protection=PROTECTION)) == TableAccess(masked, "region = 'EU' OR FALSE")
    hq = Principal("eve", "user", frozenset({"hq"}))
    assert seen(guard(store, hq, PROTECTION)) == TableAccess(masked, "region = 'EU' OR TRUE")
    auditor = Principal("max", "user", frozenset({"auditors"}))
    assert seen(guard(store, auditor, PROTECTION)) == TableAccess(masked, None)
    assert seen(guard(store, Principal("support", "user"), PROTECTION)) == TableAccess(None, "region = 'EU' OR FALSE")
    assert seen(guard(store, PLATFORM, PROTECTION)) == TableAccess()


def test_columns_of_a_masked_tag_are_null_unless_the_tag_is_granted(store: PolicyStore) -> None:
    tagged = Protection(tags={"Mail": ("pii",)})
    give(store, ("select", "platform", "user:ada"))
    assert seen(guard(store, protection=tagged)) == TableAccess({"id": None, "region": None, "mail": "NULL"})
    give(store, ("select", "tag:pii", "group:analysts"))
    assert seen(guard(store, protection=tagged)) == TableAccess()
    give(store, ("select", "tag:pii", "user:ada"), denies=True)
    assert seen(guard(store, protection=tagged)) == TableAccess({"id": None, "region": None, "mail": "NULL"})


def test_a_table_with_a_tag_has_it_on_columns_that_nobody_named(store: PolicyStore) -> None:
    give(store, ("select", "raw", "user:ada"))
    change = TagChange(object="raw.people", tag="pii")
    undo = TagChange(object="raw.people.id", tag="pii", removed=True, reason="r")
    store.change(lambda document: with_tag(with_tag(document, change), undo), "", "", by="x")
    assert seen(guard(store), columns=["id", "new"]) == TableAccess({"id": None, "new": "NULL"})


def test_tags_flow_to_what_values_flow_to_until_they_are_removed(store: PolicyStore) -> None:
    mail, domain, count = Node("raw.people", "Mail"), Node("features.v", "domain"), Node("features.v", "n")
    graph = ColumnGraph(
        [Edge(mail, domain, "projection"), Edge(mail, count, "filter"),
         Edge(domain, Node("training_set:m", "v_domain"), "copy"), Edge(domain, Node("model:m", "score"), "input")]
    )  # fmt: skip
    give(store, ("select", "platform", "user:ada"))
    tagged = {"raw/people": Protection(tags={"mail": ("pii",)})}

    def masks(table: str, *columns: str) -> list[str | None]:
        access = PolicyGuard(ADA, store, tagged, graph=lambda: graph).access(table, columns)
        return [None] * len(columns) if access.columns is None else list(access.columns.values())

    assert masks("features/v", "domain", "n") == ["NULL", None]
    assert masks("training_sets/m", "v_domain") == ["NULL"]
    change = TagChange(object="features.v.domain", tag="pii", removed=True, reason="coarse")
    store.change(lambda document: with_tag(document, change), "", "", by="x")
    assert masks("features/v", "domain") == [None]
    assert masks("training_sets/m", "v_domain") == [None]
    assert masks("raw/people", "mail") == ["NULL"]


def test_quarantined_rows_are_for_those_who_see_the_table_whole(store: PolicyStore) -> None:
    give(store, ("select", "platform", "group:everyone"))
    assert seen(guard(store), "quarantine/raw/people", ["row"]) == TableAccess()
    for protection in (PROTECTION, Protection(tags={"mail": ("pii",)})):
        assert seen(guard(store, protection=protection), "quarantine/raw/people", ["row"]) is None
        assert seen(guard(store, PLATFORM, protection), "quarantine/raw/people", ["row"]) == TableAccess()
    give(store, ("select", "raw.people.mail", "user:ada"), denies=True)
    assert seen(guard(store), "quarantine/raw/people", ["row"]) is None


def test_a_training_set_is_read_by_a_grant_on_it_or_its_model(store: PolicyStore) -> None:
    give(store, ("select", "training_set:rent", "user:ada"), ("manage", "model:other", "user:ada"))
    assert seen(guard(store), "training_sets/rent", ["a"]) == TableAccess()
    assert seen(guard(store), "training_sets/other", ["a"]) == TableAccess()
    assert seen(guard(store), "training_sets/third", ["a"]) is None
    give(store, ("select", "training_sets.rent", "user:ada"), denies=True)
    assert seen(guard(store), "training_sets/rent", ["a"]) is None


def test_a_refusal_does_not_tell_whether_a_hidden_table_exists(store: PolicyStore) -> None:
    give(store, ("browse", "raw.people", "user:ada"))
    with pytest.raises(AccessDenied, match=r"ml-platform grant select on raw.people to user:ada"):
        guard(store).access("raw/people", COLUMNS)
    with pytest.raises(AccessDenied) as hidden:
        guard(store).access("raw/hidden", COLUMNS)
    with pytest.raises(AccessDenied) as absent:
        guard(store).access("raw/absent", COLUMNS)
    assert str(hidden.value).replace("hidden", "absent") == str(absent.value)
    assert (guard(store).browses("raw/people"), guard(store).browses("raw/hidden")) == (True, False)
    give(store, ("select", "raw.hidden.x", "user:ada"))
    assert guard(store).browses("raw/hidden")


def test_a_guard_follows_the_policy_and_the_groups_of_a_token_stay(store: PolicyStore) -> None:
    one = guard(store, Principal("bob", "user", frozenset({"claimed"})))
    give(store, ("select", "raw", "group:staff"))
    assert seen(one) is None
    store.change(lambda document: with_group(document, "staff", add=["group:claimed"]), "", "", by="x")
    assert seen(one) == TableAccess()


def test_a_lake_gives_no_more_than_that_in_sql_and_python(tmp_path: Path, store: PolicyStore) -> None:
    rows = pl.DataFrame({"id": [1, 2], "region": ["EU", "US"], "mail": ["a@x.org", "b@y.com"]})
    Lake(str(tmp_path / "lake")).append("raw/people", rows)
    Lake(str(tmp_path / "lake")).append("raw/pay", rows)
    give(store, ("select", "raw.people", "user:ada"))
    lake = Lake(str(tmp_path / "lake"), guard=guard(store, protection=PROTECTION))
    wanted = pl.DataFrame({"id": [1], "region": ["EU"], "mail": ["…org"]})
    assert query(lake, "SELECT * FROM raw.people").equals(wanted)
    assert lake.read("raw/people").collect().equals(wanted)
    assert query(lake, "SELECT count(*) FROM raw.people WHERE mail LIKE '%@%' OR region = 'US'").item() == 0
    assert lake.tables() == ["raw/people"]
    for refused in (lambda: query(lake, "SELECT * FROM raw.pay"), lambda: lake.read("raw/pay").collect()):
        with pytest.raises((TableNotFound, AccessDenied, Exception)) as error:
            refused()
        assert "b@y.com" not in str(error.value)
