"""Changes of the access policy, each a document made of another, or a refusal that says why."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from msgspec.structs import replace

from ml_platform.governance.access.objects import CatalogueObject, NoObject, parse_object
from ml_platform.governance.access.policy import PRIVILEGES, Document, Grant, Policy, TagChange, check_privilege
from ml_platform.governance.access.principals import Directory, NoPrincipal, Principal, parse_principal

Change = Callable[[Document], Document]
PLATFORM_OBJECT = CatalogueObject("platform")


class LockedOut(ValueError):
    """A change after which nobody could change the policy."""


def with_grants(document: Document, grants: Iterable[Grant]) -> Document:
    """Add grants and denials, in place of the same ones; a grant takes no denial away, which wins until revoked."""
    added = {grant.subject: grant for grant in grants}
    for grant in added.values():
        check_privilege(grant.privilege, parse_object(grant.object))
        parse_principal(grant.principal)
    kept = [grant for grant in document.grants if grant.subject not in added]
    return replace(document, grants=(*kept, *added.values()), started=document.started or _first(added.values()))


def without_grants(document: Document, privileges: Sequence[str], on: str, principal: str) -> Document:
    """Take grants and denials away (raises LookupError where there is none to take)."""
    gone = [
        grant
        for grant in document.grants
        if grant.privilege in privileges and grant.object == on and grant.principal == principal
    ]
    if not gone:
        near = [str(grant) for grant in document.grants if grant.principal == principal or grant.object == on][:5]
        raise LookupError(
            f"{principal} has no grant or denial of {', '.join(privileges)} on {on} itself; "
            f"{'there are: ' + '; '.join(near) if near else 'ml-platform access list shows all'}"
        )
    if declared := sorted({grant.origin for grant in gone if grant.origin}):
        raise LookupError(f"{declared[0]} declares it: take it out there, and ml-platform access apply")
    return replace(document, grants=tuple(grant for grant in document.grants if grant not in gone))


def with_group(document: Document, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Document:
    """Make a group, or change its members (raises GroupCycle, NoPrincipal, LookupError)."""
    parse_principal(f"group:{name}")
    if name == "everyone":
        raise NoPrincipal("group:everyone has everybody in it already")
    members = dict.fromkeys(document.groups.get(name, ()))
    members.update(dict.fromkeys(map(parse_principal, add)))
    for member in map(parse_principal, remove):
        if member not in members:
            raise LookupError(f"{member} is not in {name}; it has {', '.join(members) or 'no members'}")
        del members[member]
    groups = {**document.groups, name: tuple(members)}
    Directory(groups)
    return replace(document, groups=groups)


def without_group(document: Document, name: str) -> Document:
    """Remove a group that nothing names any more (raises LookupError)."""
    if name not in document.groups:
        raise LookupError(f"there is no group {name}; there are {', '.join(document.groups) or 'none'}")
    text = f"group:{name}"
    uses = [str(grant) for grant in document.grants if grant.principal == text]
    uses += [f"owner of {on}" for on, owner in document.owners.items() if owner == text]
    uses += [f"member of {group}" for group, members in document.groups.items() if text in members]
    if uses:
        raise LookupError(f"{text} is still named: {'; '.join(uses[:5])}; revoke these first")
    return replace(document, groups={group: members for group, members in document.groups.items() if group != name})


def with_owner(document: Document, on: str, principal: str | None) -> Document:
    """Give an object an owner, in place of the one that definitions name, or (None) that one again."""
    owners = {text: owner for text, owner in document.owners.items() if text != on}
    return replace(document, owners=owners if principal is None else {**owners, on: parse_principal(principal)})


def with_namespace(document: Document, name: str, members: Sequence[str] | None) -> Document:
    """Make or change a namespace, or (None) dissolve it (raises NoObject, ValueError)."""
    parse_object(f"namespace:{name}")
    others = {other: texts for other, texts in document.namespaces.items() if other != name}
    if members is None:
        return replace(document, namespaces=others)
    texts = tuple(dict.fromkeys(map(namespace_member, members)))
    taken = {text: other for other, ones in others.items() for text in ones}
    if twice := next((text for text in texts if text in taken), None):
        raise ValueError(f"{twice} is in namespace:{taken[twice]} already: an object is in one namespace")
    return replace(document, namespaces={**others, name: texts})


def namespace_member(text: str) -> str:
    """Check what a namespace may contain: schemas, tables, models, or all that begin alike (raises NoObject)."""
    is_prefix = text.endswith("*")
    wanted = parse_object(text[:-1].removesuffix(".") if is_prefix else text)
    if wanted.kind not in ("schema", "table", "model"):
        raise NoObject(f"a namespace contains schemas, tables, views and models, not {text!r}")
    if is_prefix and text.endswith(".*"):
        return wanted.text  # all of a schema is the schema
    return wanted.text + "*" * is_prefix


def with_tag(document: Document, change: TagChange) -> Document:
    """Set or remove a tag on a table or column (raises ValueError, NoObject)."""
    wanted = parse_object(change.object)
    if wanted.kind not in ("table", "column"):
        raise NoObject(f"tags are for tables and columns, not {change.object}, a {wanted.kind}")
    parse_object(f"tag:{change.tag}")
    if change.removed and not change.reason.strip():
        raise ValueError("a tag is removed with a reason: --reason …")
    kept = tuple(one for one in document.tags if (one.object, one.tag) != (change.object, change.tag))
    return replace(document, tags=(*kept, change))


def with_masked_tag(document: Document, tag: str, mask: str | None) -> Document:
    """Mask the columns of a tag for all who may not select on it (`null` or `hash`), or (None) no longer."""
    parse_object(f"tag:{tag}")
    if mask not in ("null", "hash", None):
        raise ValueError(f"mask: wanted null or hash, found {mask!r}")
    masked = {name: how for name, how in document.masked_tags.items() if name != tag}
    return replace(document, masked_tags=masked if mask is None else {**masked, tag: mask})


def check_not_locked_out(document: Document, speakers: Iterable[Principal], now: datetime) -> None:
    """Refuse a policy in force that none of those who have a valid key could change (raises LockedOut)."""
    if document.started is None:
        return
    policy = Policy(document, now=now)
    reasons = []
    for speaker in speakers:
        known = policy.directory.principal(speaker.text, is_admin=speaker.is_admin)
        verdict = policy.explain(known, "manage", PLATFORM_OBJECT)
        if verdict.allowed:
            return
        if speaker.is_admin:
            reasons.append(verdict.why)
    raise LockedOut(
        "nobody could change the policy afterwards: "
        + (f"{'; '.join(reasons)}. Leave an admin out of it" if reasons else "there is no valid key with role admin. "
           'Make one first: ml-platform keys create "your name" --role admin, and export ML_PLATFORM_KEY=<the key>')
    )  # fmt: skip


def expand(privilege: str, wanted: CatalogueObject) -> list[str]:
    """The privileges that a word stands for: `all` for all that mean something on the object."""
    if privilege != "all":
        check_privilege(privilege, wanted)
        return [privilege]
    possible = []
    for one in PRIVILEGES:
        try:
            check_privilege(one, wanted)
        except ValueError:
            continue
        possible.append(one)
    return possible


def _first(grants: Iterable[Grant]) -> datetime | None:
    return min((grant.at for grant in grants if grant.at is not None), default=None)
