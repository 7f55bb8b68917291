"""Principals: who they are, and which groups count for them."""

import pytest

from ml_platform.governance.access.principals import (
    Directory,
    GroupCycle,
    NoPrincipal,
    parse_principal,
    principal_of_claims,
    principal_of_key,
)
from ml_platform.governance.keys import KeyStore


def test_groups_of_groups_count_however_deep() -> None:
    groups = {f"g{depth}": [f"group:g{depth - 1}"] for depth in range(1, 2000)}
    directory = Directory({"g0": ["user:ada"], **groups})
    assert len(directory.groups_of("user:ada")) == 2000
    assert directory.members("g1999") >= {"user:ada", "group:g0"}
    assert directory.groups_of("user:bob") == frozenset()


@pytest.mark.parametrize(
    ("groups", "cycle"),
    [
        ({"a": ["group:a"]}, "a → a"),
        ({"a": ["group:b"], "b": ["group:c"], "c": ["user:x", "group:a"]}, "a → b → c → a"),
        ({"x": ["group:a"], "a": ["group:b"], "b": ["group:a"]}, "a → b → a"),
    ],
)
def test_a_cycle_is_refused_and_named(groups: dict[str, list[str]], cycle: str) -> None:
    with pytest.raises(GroupCycle, match=cycle):
        Directory(groups)


def test_two_ways_into_a_group_are_no_cycle() -> None:
    directory = Directory({"top": ["group:l", "group:r"], "l": ["group:base"], "r": ["group:base"], "base": ["user:a"]})
    assert directory.groups_of("user:a") == {"top", "l", "r", "base"}


def test_a_key_is_a_service_and_an_admins_key_an_admin(tmp_path) -> None:
    store = KeyStore(tmp_path)
    job, _ = store.create("nightly job", roles=["predict"])
    root, _ = store.create("root", roles=["admin"])
    directory = Directory({"jobs": ["service:nightly job"]})
    principal = principal_of_key(job, directory)
    assert (principal.text, principal.groups, principal.is_admin) == ("service:nightly job", {"jobs"}, False)
    assert principal_of_key(root).is_admin


def test_claims_name_a_person_and_the_groups_by_a_dotted_path_and_never_an_admin() -> None:
    claims = {"sub": "1", "mail": "ada@x.org", "realm": {"roles": ["admin", 3, "a\nb", "user:eve"]}, "groups": "x y"}
    principal = principal_of_claims(claims, groups_claim="realm.roles", name_claim="mail")
    assert (principal.text, principal.groups, principal.is_admin) == ("user:ada@x.org", {"admin"}, False)
    assert principal_of_claims(claims).groups == {"x", "y"}
    with pytest.raises(NoPrincipal):
        principal_of_claims({"sub": "a:b"})


@pytest.mark.parametrize(
    "text", ["ada", "user:", "usr:ada", "user: ada", "user:a:b", "group:a`b", 'user:a"b', "user:a\n"]
)
def test_what_names_no_principal_is_refused(text: str) -> None:
    if text.strip() != text and text.strip() == "user:a":
        assert parse_principal(text) == "user:a"
        return
    with pytest.raises(NoPrincipal, match="found"):
        parse_principal(text)
