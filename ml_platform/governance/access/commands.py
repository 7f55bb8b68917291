"""Changes of the access policy by a person: what is named exists, they are allowed to, and nobody is locked out."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from msgspec.structs import replace

from ml_platform.governance.access.changes import Change, check_not_locked_out, expand, with_grants, without_grants
from ml_platform.governance.access.definitions import existing_objects
from ml_platform.governance.access.objects import CatalogueObject, check_exists, parse_object
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.governance.access.principals import EVERYONE, PLATFORM, NoPrincipal, Principal, principal_of_key
from ml_platform.governance.access.publish_protections import publish_protections
from ml_platform.governance.access.speaker import check_allowed, policy_store, principal_named, speaker
from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from ml_platform.settings import Settings

_FEATURES = "features/"
_PRIVILEGES_OF = {
    "predict": ("predict",),
    "explain": ("explain",),
    "push": ("modify",),
    "promote": ("promote",),
    "admin": ("manage",),
}
_MOST_DAYS = 36_500


class AccessEditor:
    """Changes the policy on behalf of who speaks, each change checked and in the audit log.

    Raises
    ------
    KeyWanted
        When a key is wanted and there is none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = policy_store(settings, audited=True)
        self.who: Principal = speaker(settings, self._store)

    @property
    def policy(self) -> Policy:
        """The policy as it stands, with what definitions add."""
        return self._store.policy

    def grant(
        self,
        privileges: Sequence[str],
        on: CatalogueObject,
        principals: Sequence[str],
        *,
        denies: bool = False,
        until: datetime | None = None,
        reason: str = "",
    ) -> list[str]:
        """Grant or deny; return what happened, in lines.

        Raises
        ------
        AccessDenied, LockedOut, ValueError
            When the speaker may not, an admin would be locked out, or something named does not exist.
        """
        self.check_object(on)
        warnings = [line for principal in principals for line in self._check_principal(principal)]
        now = datetime.now(UTC)
        if until is not None and until <= now:
            raise ValueError(f"until: {until:%Y-%m-%d %H:%M} UTC is past")
        grants = [
            Grant(
                privilege=privilege, object=on.text, principal=principal, denies=denies, until=until,
                by=self.who.text, at=now, reason=reason,
            )
            for word in privileges
            for privilege in expand(word, on)
            for principal in principals
        ]  # fmt: skip
        adopted: list[Grant] = []

        def change(document: Document) -> Document:
            adopted.clear()
            if document.started is None:
                adopted.extend(grants_of_keys(self.valid_keys(), now=now, by=self.who.text))
            return with_grants(with_grants(document, adopted), grants)

        self.change(change, on, "; ".join(map(str, grants)), reason)
        lines = [*warnings, *map(str, grants)]
        if adopted:
            lines.append(
                f"From now on nothing is allowed that is not granted. {len(adopted)} grants keep what the roles of "
                "today's keys give: ml-platform access list"
            )
        return lines

    def revoke(self, privileges: Sequence[str], on: CatalogueObject, principals: Sequence[str], reason: str) -> None:
        """Take grants and denials away (raises LookupError where there are none)."""

        wanted = None if list(privileges) == ["all"] else [one for word in privileges for one in expand(word, on)]

        def change(document: Document) -> Document:
            for principal in principals:
                if wanted is None:
                    document = _without_all(document, on, principal)
                else:
                    document = without_grants(document, wanted, on.text, principal)
            return document

        words = f"revoke {', '.join(privileges)} on {on.text} from {', '.join(principals)}"
        self.change(change, on, words, reason)

    def change(self, change: Change, on: CatalogueObject, words: str, reason: str = "") -> Document:
        """Change what concerns an object: for who may manage it."""
        now = datetime.now(UTC)

        def checked(before: Document) -> Document:
            if before.started is not None or not self.who.is_admin:
                policy = Policy(before, now=now, owners=self.policy.owners)
                who = policy.directory.principal(self.who.text, is_admin=self.who.is_admin)
                check_allowed(policy, who, "manage", on)
            after = change(before)
            check_not_locked_out(after, map(principal_of_key, self.valid_keys()), now)
            return after

        detail = f"{words}{f'; {reason}' if reason else ''}"
        publish_protections(self._settings)  # before it counts: a tag that is set now may flow into a view
        return self._store.change(checked, "access changed", detail, by=self.who.text)

    def check_object(self, on: CatalogueObject) -> None:
        """Refuse an object that does not exist, with the nearest name (raises NoObject).

        Who may not manage an object of that name is told that alone (raises AccessDenied), not whether there is one.
        """
        if on.kind == "platform":
            return
        policy = self.policy
        if policy.document.started is not None and on.kind != "tag":
            who = policy.directory.principal(self.who.text, is_admin=self.who.is_admin)
            check_allowed(policy, who, "manage", on)
        columns = on if on.kind == "column" else None
        check_exists(on, existing_objects(self._settings, self._store.read(), columns_of=columns))

    def _check_principal(self, text: str) -> list[str]:
        kind, _, name = text.partition(":")
        if kind == "service" and text != PLATFORM.text:
            known = sorted({key.name for key in self.valid_keys()})
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean service:{near[0]}?" if near else f"valid keys are {', '.join(known) or 'none'}"
                raise NoPrincipal(f"no valid key is called {name!r}; {hint}")
        if kind == "group" and name != EVERYONE and name not in self._store.read().groups:
            return [f"No group {name} is known here: it counts for tokens that name it, and once it is made."]
        return []

    def principal_named(self, text: str) -> Principal:
        """The principal of a text, with its groups and what keys of that name make of it."""
        return principal_named(self._settings, self._store, text)

    def valid_keys(self) -> list[Key]:
        """Keys that open something now."""
        now = datetime.now(UTC)
        known = KeyStore(self._settings.keys_dir).keys()
        return [key for key in known if key.is_valid(now)]


def grants_of_keys(keys: Iterable[Key], *, now: datetime, by: str) -> list[Grant]:
    """Grants that allow keys what their roles do, so that nothing stops when a policy comes into force."""
    grants: dict[tuple[str, str, str, bool], Grant] = {}
    for key in keys:
        if key.may("admin", ALL_MODELS):
            continue
        for role in key.roles:
            for model in key.models:
                for privilege, on in _role_objects(role, model):
                    grant = Grant(
                        privilege=privilege, object=on, principal=f"service:{key.name}", until=key.expires_at,
                        by=by, at=now, reason=f"role {role} of key {key.id}",
                    )  # fmt: skip
                    grants[grant.subject] = grant
    return list(grants.values())


def parse_until(until: str | None, days: float | None) -> datetime | None:
    """The instant at which a grant ends, from a date or instant (UTC), or from days (raises ValueError)."""
    if until is not None and days is not None:
        raise ValueError("--days and --until: give one of both")
    if days is not None:
        if not 0 < days <= _MOST_DAYS:
            raise ValueError(f"days: wanted more than 0 and at most {_MOST_DAYS:,}, found {days:g}")
        return datetime.now(UTC) + timedelta(days=days)
    if until is None:
        return None
    try:
        instant = datetime.fromisoformat(until)
    except ValueError:
        raise ValueError(f"until: wanted 2026-12-31 or 2026-12-31T12:00Z, found {until!r}") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _role_objects(role: str, model: str) -> list[tuple[str, str]]:
    if model.startswith(_FEATURES):
        on = parse_object(f"view:{model.removeprefix(_FEATURES)}").text
        return [("use_feature", on)] if role in ("predict", "explain") else []
    if role == "push":
        return [("modify", "features")] if model == ALL_MODELS else []
    on = "platform" if model == ALL_MODELS else CatalogueObject("model", (model,)).text
    more = [("use_feature", "features")] if model == ALL_MODELS and role in ("predict", "explain") else []
    return [*((privilege, on) for privilege in _PRIVILEGES_OF[role]), *more]


def _without_all(document: Document, on: CatalogueObject, principal: str) -> Document:
    kept = tuple(one for one in document.grants if (one.object, one.principal) != (on.text, principal) or one.origin)
    if len(kept) == len(document.grants):
        raise LookupError(f"{principal} has no grant or denial on {on.text} itself; ml-platform access list shows all")
    return replace(document, grants=kept)
