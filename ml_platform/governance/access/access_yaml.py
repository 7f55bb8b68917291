"""`access.yaml`: groups, grants, denials, owners and namespaces as code, applied by a command."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

from msgspec.structs import replace
from pydantic import BeforeValidator, Field, ValidationError

from ml_platform.governance.access.changes import (
    PLATFORM_OBJECT,
    expand,
    with_grants,
    with_group,
    with_masked_tag,
    with_namespace,
    with_owner,
)
from ml_platform.governance.access.commands import AccessEditor, grants_of_keys
from ml_platform.governance.access.objects import parse_object
from ml_platform.governance.access.policy import Document, Grant
from ml_platform.governance.access.principals import parse_principal
from ml_platform.spec.types import Declared
from ml_platform.yaml_documents import SpecError, SpecProblem, documents, explain, without_tags

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class DeclaredGrant(Declared):
    """Privileges on objects for principals."""

    privileges: Texts = Field(min_length=1, description="Privileges, or `all`.")
    objects: Texts = Field(min_length=1, description="Catalogue objects: raw.flights, model:my_model, namespace:risk …")
    to: Texts = Field(min_length=1, description="Principals: user:<name>, service:<key name>, group:<name>.")
    until: date | None = Field(None, description="Last day (UTC) on which it counts; for good when absent.")
    reason: str = Field("", description="Why.")


class DeclaredNamespace(Declared):
    """A team's share of the platform."""

    objects: tuple[str, ...] = Field(
        min_length=1, description="Schemas, tables, views and models in it; a * at the end stands for any rest."
    )
    owner: str | None = Field(None, description="Principal that owns all in it.")


class AccessFile(Declared):
    """What `access.yaml` may declare."""

    groups: dict[str, tuple[str, ...]] = Field({}, description="Group → its members.")
    grants: tuple[DeclaredGrant, ...] = Field((), description="What is granted.")
    denials: tuple[DeclaredGrant, ...] = Field((), description="What is denied: it wins over every grant.")
    owners: dict[str, str] = Field({}, description="Object → the principal that owns it.")
    namespaces: dict[str, DeclaredNamespace] = Field({}, description="Namespace → what is in it.")
    masked_tags: dict[str, str] = Field({}, description="Tag → how its columns look unless granted: null or hash.")


def read_declared(path: Path) -> AccessFile:
    """Read the file.

    Raises
    ------
    FileNotFoundError
        When there is none.
    SpecError
        With every mistake, at its line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; ml-platform grant … gives privileges without a file")
    [document, *more] = documents(path)
    if more:
        raise SpecError([SpecProblem(path, 1, "document", "wanted one document, found several")])
    try:
        return AccessFile.model_validate(document.data or {})
    except ValidationError as error:
        raise SpecError(
            [
                document.problem(without_tags(AccessFile, one["loc"]), message)
                for one in error.errors()
                for message in explain(AccessFile, one).split("\n")
            ]
        ) from None


def apply_declared(editor: AccessEditor, declared: AccessFile, origin: str, *, dry_run: bool = False) -> list[str]:
    """Make the policy what the file declares; return what changes, in lines.

    Grants that the file does not declare any more, of those that it did, are taken away. A group, owner, namespace or
    masked tag that it names is as it says; others stay. What commands granted stays beside it.

    Raises
    ------
    AccessDenied, LockedOut, ValueError
        When the speaker may not manage the platform, nobody could any more, or something named does not exist.
    """
    now = datetime.now(UTC)
    grants = [
        *_grants(declared.grants, origin, editor, now),
        *_grants(declared.denials, origin, editor, now, denies=True),
    ]
    lines: list[str] = []

    def change(before: Document) -> Document:
        after = _with_declared(before, declared, grants, origin)
        if grants and before.started is None:
            kept = grants_of_keys(editor.valid_keys(), now=now, by=editor.who.text)
            after = with_grants(after, [one for one in kept if one.subject not in {g.subject for g in after.grants}])
        lines[:] = _difference(before, after)
        if dry_run:
            return before
        return after

    editor.change(change, PLATFORM_OBJECT, f"{origin} applied")
    return lines


def _with_declared(before: Document, declared: AccessFile, grants: list[Grant], origin: str) -> Document:
    document = before
    groups = {name: members for name, members in before.groups.items() if name not in declared.groups}
    document = replace(document, groups={**groups, **dict.fromkeys(declared.groups, ())})
    for name, members in declared.groups.items():
        document = with_group(document, name, add=members)
    for name, namespace in declared.namespaces.items():
        document = with_namespace(document, name, namespace.objects)
        if namespace.owner is not None:
            document = with_owner(document, f"namespace:{name}", namespace.owner)
    for on, owner in declared.owners.items():
        document = with_owner(document, parse_object(on).text, owner)
    for tag, how in declared.masked_tags.items():
        document = with_masked_tag(document, tag, how)
    old = {one.subject: one for one in before.grants if one.origin == origin}
    kept = [_as_before(one, old) for one in grants]  # without a new date for what was declared before
    document = replace(document, grants=tuple(one for one in document.grants if one.origin != origin))
    return with_grants(document, kept) if kept else document


def _as_before(grant: Grant, old: Mapping[tuple[str, str, str, bool], Grant]) -> Grant:
    before = old.get(grant.subject)
    same = before is not None and (before.until, before.reason) == (grant.until, grant.reason)
    return before if before is not None and same else grant


def _grants(
    declared: tuple[DeclaredGrant, ...], origin: str, editor: AccessEditor, now: datetime, *, denies: bool = False
) -> list[Grant]:
    grants = []
    for one in declared:
        until = None
        if one.until is not None:
            until = datetime.combine(one.until, datetime.max.time(), UTC)
        for text in one.objects:
            on = parse_object(text)
            editor.check_object(on)
            grants += [
                Grant(
                    privilege=privilege, object=on.text, principal=parse_principal(to), denies=denies, until=until,
                    by=editor.who.text, at=now, reason=one.reason, origin=origin,
                )
                for word in one.privileges
                for privilege in expand(word, on)
                for to in one.to
            ]  # fmt: skip
    return grants


def _difference(before: Document, after: Document) -> list[str]:
    lines = [f"+ {one}" for one in after.grants if one not in before.grants]
    lines += [f"- {one}" for one in before.grants if one not in after.grants]
    for what in ("groups", "owners", "namespaces", "masked_tags"):
        old, new = getattr(before, what), getattr(after, what)
        lines += [f"~ {what}.{name}: {_words(value)}" for name, value in new.items() if old.get(name) != value]
    return lines


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
