"""The access policy: groups, grants, denials, owners, namespaces and tags, and what they decide.

Serving imports this: standard library and msgspec only. A decision reads dictionaries alone.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from ml_platform.governance.access.objects import CatalogueObject
from ml_platform.governance.access.principals import Directory, Principal

PRIVILEGES: Final = (
    "browse", "select", "modify", "use_feature", "train", "register", "promote", "predict", "explain", "manage",
)  # fmt: skip
_KINDS_OF: Final[Mapping[str, frozenset[str]]] = {
    "select": frozenset({"schema", "table", "column", "training_set", "model", "tag", "namespace", "platform"}),
    "modify": frozenset({"schema", "table", "namespace", "platform"}),
    "use_feature": frozenset({"schema", "table", "column", "namespace", "platform"}),
    "train": frozenset({"model", "training_set", "namespace", "platform"}),
    "register": frozenset({"model", "namespace", "platform"}),
    "promote": frozenset({"model", "endpoint", "namespace", "platform"}),
    "predict": frozenset({"model", "endpoint", "namespace", "platform"}),
    "explain": frozenset({"model", "endpoint", "namespace", "platform"}),
}
# What must not be denied for a privilege to hold, besides itself.
_NEEDS: Final = {"explain": ("predict", "browse"), "browse": ()}
# What else a grant of a privilege allows.
_GIVES: Final[Mapping[str, tuple[str, ...]]] = {"explain": ("predict",), "manage": PRIVILEGES}
_REMEMBERED = 100_000


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A privilege on an object that a principal has, or that it is denied; who gave it, when and why."""

    privilege: str
    object: str
    principal: str
    denies: bool = False
    until: datetime | None = None
    by: str = ""
    at: datetime | None = None
    reason: str = ""
    origin: str = ""  # the file that declares it; empty for one given by a command

    @property
    def subject(self) -> tuple[str, str, str, bool]:
        """What makes two grants the same one."""
        return self.privilege, self.object, self.principal, self.denies

    def is_active(self, now: datetime) -> bool:
        """Whether it counts at an instant."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        verb = "deny" if self.denies else "grant"
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"{verb} {self.privilege} on {self.object} to {self.principal}{until}"


class TagChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tag that a command set on a table or column, or took away from it, with the reason."""

    object: str
    tag: str
    removed: bool = False
    by: str = ""
    at: datetime | None = None
    reason: str = ""
    origin: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All that is kept of the policy. It is in force from its first grant on, `started`, until it is stopped."""

    started: datetime | None = None
    groups: dict[str, tuple[str, ...]] = {}
    grants: tuple[Grant, ...] = ()
    owners: dict[str, str] = {}  # object → principal
    namespaces: dict[str, tuple[str, ...]] = {}  # name → objects in it; a * at the end stands for any rest
    tags: tuple[TagChange, ...] = ()
    # tag → how its columns look without select on the tag
    masked_tags: dict[str, str] = msgspec.field(default_factory=lambda: {"pii": "null"})


class Verdict(msgspec.Struct, frozen=True):
    """A decision and what it rests on."""

    allowed: bool
    why: str


class Policy:
    """Decides by a document, as of an instant.

    DENY wins: over grants, owners and admins, and from a container over what it contains. Then admins may everything,
    owners everything on what they own and what that contains, others what they or a group of theirs is granted on the
    object or on anything that contains it.

    Parameters
    ----------
    document
        The policy.
    now
        Grants that have ended by then do not count; `next_end` says when the next one ends.
    owners
        Further owners, such as those of definitions; the document's own come first.

    Examples
    --------
    >>> from ml_platform.governance.access.objects import parse_object
    >>> grants = (Grant(privilege="select", object="raw", principal="group:analysts"),
    ...           Grant(privilege="select", object="raw.pay", principal="group:everyone", denies=True))
    >>> policy = Policy(Document(grants=grants, groups={"analysts": ("user:ada",)}))
    >>> ada = policy.directory.principal("user:ada")
    >>> [policy.allows(ada, "select", parse_object(text)) for text in ("raw.flights", "raw.pay", "features.x")]
    [True, False, False]
    """

    def __init__(
        self, document: Document, *, now: datetime | None = None, owners: Mapping[str, str] | None = None
    ) -> None:
        now = now or datetime.now(UTC)
        self.document = document
        self.directory = Directory(document.groups)
        self.owners: dict[str, str] = {**(owners or {}), **document.owners}
        ends = [grant.until for grant in document.grants if grant.until is not None and now < grant.until]
        self.next_end: datetime | None = min(ends, default=None)
        self._granted: dict[tuple[str, str], set[str]] = {}  # privilege, object → principals
        self._denied: dict[tuple[str, str], set[str]] = {}
        for grant in document.grants:
            if not grant.is_active(now):
                continue
            table = self._denied if grant.denies else self._granted
            given = () if grant.denies else _GIVES.get(grant.privilege, ())
            # Who may ask all models knows of models by that, and not of tables.
            known = () if grant.denies else [f"browse {kind}" for kind in _KINDS_OF.get(grant.privilege, ())]
            for privilege in {grant.privilege, *given, *known}:
                table.setdefault((privilege, grant.object), set()).add(grant.principal)
        self._exact, self._prefixes = _namespace_tables(document.namespaces)
        self._decided: dict[tuple[object, ...], bool] = {}

    def allows(self, principal: Principal, privilege: str, wanted: CatalogueObject) -> bool:
        """Whether a principal has a privilege on an object."""
        key = (principal.text, principal.is_admin, principal.groups, privilege, wanted.kind, wanted.parts)
        decided = self._decided.get(key)
        if decided is None:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            decided = self._decided[key] = self.explain(principal, privilege, wanted).allowed
        return decided

    def explain(self, principal: Principal, privilege: str, wanted: CatalogueObject) -> Verdict:
        """Decide, and say by which grant, owner or lack of one."""
        chain = self.chain(wanted)
        identities = principal.identities
        for needed in (privilege, *_NEEDS.get(privilege, ("browse",))):
            for place in chain:
                denied = self._denied.get((needed, place), ())
                for identity in identities:
                    if identity in denied:
                        return Verdict(False, f"deny {needed} on {place} to {identity}")
        if principal.is_admin:
            return Verdict(True, f"{principal.text} is an admin")
        for place in chain:
            if self.owners.get(place) in identities:
                return Verdict(True, f"{self.owners[place]} owns {place}")
            granted = self._granted.get((privilege, place), ())
            known = self._granted.get((f"browse {wanted.kind}", place), ()) if privilege == "browse" else ()
            for identity in identities:
                if identity in granted or identity in known:
                    return Verdict(True, f"granted to {identity} on {place}")
        return Verdict(
            False, f"nobody granted {privilege} on {wanted.text}, or on what contains it, to {principal.text}"
        )

    def chain(self, wanted: CatalogueObject) -> list[str]:
        """Texts of an object and all that contains it, its namespace among them, from the inside out.

        Tags stand alone: what is granted on the platform does not lift masks.
        """
        if wanted.kind == "tag":
            return [wanted.text]
        chain = [wanted.text, *(one.text for one in wanted.containers)]
        namespace = next((name for text in chain if (name := self.namespace_of(text)) is not None), None)
        if namespace is not None and wanted.kind != "namespace":
            chain.insert(len(chain) - 1, f"namespace:{namespace}")
        return chain

    def namespace_of(self, text: str) -> str | None:
        """The namespace that an object is in by its own name; None when only what contains it may be in one."""
        if (name := self._exact.get(text)) is not None:
            return name
        return next((name for prefix, name in self._prefixes if text.startswith(prefix)), None)

    def grants_on(self, wanted: CatalogueObject) -> list[Grant]:
        """All grants and denials that bear on an object, the nearest first."""
        order = {text: place for place, text in enumerate(self.chain(wanted))}
        return sorted((one for one in self.document.grants if one.object in order), key=lambda one: order[one.object])

    def owner_of(self, wanted: CatalogueObject) -> str | None:
        """Who owns an object, or the nearest thing around it that has an owner."""
        return next((self.owners[text] for text in self.chain(wanted) if text in self.owners), None)


def check_privilege(privilege: str, wanted: CatalogueObject) -> None:
    """Refuse a privilege that there is not, or that means nothing on such an object (raises ValueError).

    Examples
    --------
    >>> from ml_platform.governance.access.objects import parse_object
    >>> check_privilege("predict", parse_object("raw.flights"))
    Traceback (most recent call last):
    ValueError: predict means nothing on raw.flights, a table; it is for model, endpoint, namespace, platform
    """
    from difflib import get_close_matches

    if privilege not in PRIVILEGES:
        near = get_close_matches(privilege, PRIVILEGES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no privilege {privilege!r}; wanted one of {', '.join(PRIVILEGES)}{hint}")
    kinds = _KINDS_OF.get(privilege)
    if (kinds is not None and wanted.kind not in kinds) or (wanted.kind == "tag" and privilege in ("browse",)):
        order = ("tag", "schema", "table", "column", "training_set", "model", "endpoint", "namespace", "platform")
        names = ", ".join(kind for kind in order if kinds and kind in kinds)
        raise ValueError(
            f"{privilege} means nothing on {wanted.text}, a {wanted.kind}; it is for {names or 'other objects'}"
        )


def _namespace_tables(namespaces: Mapping[str, Iterable[str]]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    exact: dict[str, str] = {}
    prefixes: list[tuple[str, str]] = []
    for name, members in namespaces.items():
        for member in members:
            if member.endswith("*"):
                prefixes.append((member[:-1], name))
            else:
                exact[member] = name
    return exact, sorted(prefixes, key=lambda one: (-len(one[0]), one))  # the longest prefix says most
