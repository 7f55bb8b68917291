"""Principals, to whom privileges are granted: people, services and groups of them, and groups of groups.

Serving imports this: standard library and msgspec only.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from ml_platform.governance.keys import ALL_MODELS, Key
from ml_platform.governance.token_claims import claim_at, claim_texts

KINDS: Final = ("user", "service", "group")
EVERYONE = "everyone"  # the group that every principal is in
_NAME = re.compile(r"[^\s:`\"'\\/\x00-\x1f\x7f](?:[^:`\"'\\/\x00-\x1f\x7f]{0,198}[^\s:`\"'\\/\x00-\x1f\x7f])?")


class Principal(msgspec.Struct, frozen=True):
    """Who asks, with all groups that count for them.

    Examples
    --------
    >>> ada = Principal("ada@example.com", "user", frozenset({"analysts"}))
    >>> ada.text, ada.identities
    ('user:ada@example.com', ('user:ada@example.com', 'group:analysts', 'group:everyone'))
    """

    name: str
    kind: str  # one of KINDS
    groups: frozenset[str] = frozenset()  # names, without those that are there for everyone
    is_admin: bool = False

    @property
    def text(self) -> str:
        """The principal as grants name it: `user:ada`."""
        return f"{self.kind}:{self.name}"

    @property
    def identities(self) -> tuple[str, ...]:
        """Every text under which something may be granted to this principal: its own first, then its groups."""
        return (self.text, *(f"group:{name}" for name in sorted({*self.groups, EVERYONE} - {self._own_group})))

    @property
    def _own_group(self) -> str | None:
        return self.name if self.kind == "group" else None


PLATFORM = Principal("platform", "service", is_admin=True)  # the jobs that Dagster runs


class GroupCycle(ValueError):
    """Groups that contain one another in a circle, which is named."""

    def __init__(self, cycle: Iterable[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(f"groups contain one another: {' → '.join(self.cycle)}; take one out of the next")


class NoPrincipal(ValueError):
    """A text that names no principal."""


def parse_principal(text: str) -> str:
    """Check the text of a principal, and give it as grants name it (raises NoPrincipal).

    Examples
    --------
    >>> parse_principal("group:analysts")
    'group:analysts'
    >>> parse_principal("analysts")
    Traceback (most recent call last):
    ml_platform.governance.access.principals.NoPrincipal: wanted user:…, service:… or group:<name>, found 'analysts'
    """
    kind, colon, name = text.strip().partition(":")
    if not colon or kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1) if colon else []
        hint = f"; did you mean {near[0]}:{name}?" if near else ""
        raise NoPrincipal(f"wanted user:…, service:… or group:<name>, found {text!r}{hint}")
    if _NAME.fullmatch(name) is None:
        raise NoPrincipal(
            f"wanted a name of 1 to 200 characters after {kind}:, no blank at an end, none of : ` \" ' \\ /, "
            f"found {name!r}"
        )
    return f"{kind}:{name}"


class Directory:
    """Groups with their members, which may be groups.

    Parameters
    ----------
    groups
        Names of groups to the texts of their members, like `user:ada` or `group:analysts`.

    Raises
    ------
    GroupCycle
        When a group contains itself, through however many others.

    Examples
    --------
    >>> directory = Directory({"analysts": ["user:ada"], "staff": ["group:analysts", "service:nightly job"]})
    >>> sorted(directory.groups_of("user:ada")), sorted(directory.members("staff"))
    (['analysts', 'staff'], ['group:analysts', 'service:nightly job', 'user:ada'])
    >>> Directory({"a": ["group:b"], "b": ["group:a"]})
    Traceback (most recent call last):
    ml_platform.governance.access.principals.GroupCycle: groups contain one another: a → b → a; take one out of the next
    """

    def __init__(self, groups: Mapping[str, Iterable[str]]) -> None:
        self.groups: dict[str, tuple[str, ...]] = {name: tuple(members) for name, members in groups.items()}
        self._parents: dict[str, set[str]] = {}
        for name, members in self.groups.items():
            for member in members:
                self._parents.setdefault(member, set()).add(name)
        if (cycle := find_cycle(self.groups)) is not None:
            raise GroupCycle(cycle)

    def groups_of(self, *texts: str) -> frozenset[str]:
        """Names of all groups that have a principal, or any of several, as a member, directly or through others."""
        known: set[str] = set()
        waiting = list(texts)
        while waiting:
            for name in self._parents.get(waiting.pop(), ()):
                if name not in known:
                    known.add(name)
                    waiting.append(f"group:{name}")
        return frozenset(known)

    def members(self, group: str) -> frozenset[str]:
        """Texts of all that are in a group, directly or through others."""
        known: set[str] = set()
        waiting = [group]
        while waiting:
            for member in self.groups.get(waiting.pop(), ()):
                if member not in known:
                    known.add(member)
                    waiting += [member.removeprefix("group:")] if member.startswith("group:") else []
        return frozenset(known)

    def principal(self, text: str, *, is_admin: bool = False, claimed: Iterable[str] = ()) -> Principal:
        """The principal of a text with all its groups; `claimed` are groups that a token says it is in."""
        kind, _, name = parse_principal(text).partition(":")
        own = [f"group:{group}" for group in claimed]
        groups = self.groups_of(text, *own) | {group.removeprefix("group:") for group in own}
        return Principal(name, kind, groups, is_admin)


def principal_of_key(key: Key, directory: Directory | None = None) -> Principal:
    """The principal that speaks with an API key: `service:<its name>`; an admin's key for all models is an admin."""
    directory = directory or Directory({})
    text = f"service:{key.name}"
    return Principal(key.name, "service", directory.groups_of(text), key.may("admin", ALL_MODELS))


def principal_of_claims(
    claims: Mapping[str, Any],
    directory: Directory | None = None,
    *,
    groups_claim: str = "groups",
    name_claim: str = "sub",
) -> Principal:
    """The principal of an OpenID Connect token that was verified: `user:<name>`, in the groups that it claims.

    Claimed groups whose names no grant could name are left out. An admin is made by grants or roles, never by a claim.

    Parameters
    ----------
    claims
        The token's claims.
    directory
        The platform's own groups, which may contain the person or the groups of the token.
    groups_claim, name_claim
        Claims that hold the groups (a list, or one text of several words) and the name; dots lead into objects.

    Examples
    --------
    >>> directory = Directory({"staff": ["group:analysts"]})
    >>> ada = principal_of_claims({"sub": "ada", "groups": ["analysts", "a:b"]}, directory)
    >>> ada.text, sorted(ada.groups)
    ('user:ada', ['analysts', 'staff'])
    """
    directory = directory or Directory({})
    claim = claim_at(claims, name_claim)
    texts = [claim] if isinstance(claim, str) else claim_texts(claims, name_claim)
    name = next(iter(texts), str(claims.get("sub", "")))[:200]
    if _NAME.fullmatch(name) is None:
        raise NoPrincipal(f"the token names nobody whom a grant could name: {name!r}")
    groups = [group for group in claim_texts(claims, groups_claim) if _NAME.fullmatch(group)]
    return directory.principal(f"user:{name}", claimed=groups)


def find_cycle(groups: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Names of groups that contain one another in a circle, the first one again at the end; None without a circle."""
    done: set[str] = set()
    for start in groups:
        path: list[str] = []
        waiting: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            path, waiting = [start], [(start, iter(_inner(groups, start)))]
        while waiting:
            name, inner = waiting[-1]
            child = next(inner, None)
            if child is None:
                done.add(name)
                waiting.pop()
                path.pop()
            elif child in path:
                return [*path[path.index(child) :], child]
            elif child not in done:
                path.append(child)
                waiting.append((child, iter(_inner(groups, child))))
    return None


def _inner(groups: Mapping[str, Iterable[str]], name: str) -> list[str]:
    return [member.removeprefix("group:") for member in groups.get(name, ()) if member.startswith("group:")]
