"""A caller under an access policy: what its key's or token's roles allow, and is granted as well.

A role is the frame, as scopes of a token are: what it does not include stays refused whatever is granted. Within it,
each request needs its privilege on what it is about.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ml_platform.governance.access.objects import CatalogueObject
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import NoPrincipal, Principal, parse_principal, principal_of_key
from ml_platform.governance.keys import ALL_MODELS, Key

if TYPE_CHECKING:
    from ml_platform.serving.access.gateway import PersonCaller
    from ml_platform.serving.access.tokens import TokenCaller

FEATURES = "features/"  # before the name of a view or feature service in what a key is for
_PLATFORM = CatalogueObject("platform")
_PRIVILEGE = {"explain": "explain", "promote": "promote", "push": "modify", "admin": "manage"}


class GovernedCaller:
    """A key or token, narrowed to what its principal is granted; it answers what a `Key` does."""

    def __init__(self, caller: "Key | TokenCaller | PersonCaller", policy: Policy) -> None:
        self.caller = caller
        self.id, self.name, self.rate, self.burst = caller.id, caller.name, caller.rate, caller.burst
        self.policy = policy
        self.principal = principal_of(caller, policy)

    def has_role(self, role: str) -> bool:
        """Whether the caller's roles include one."""
        return self.caller.has_role(role)

    def covers(self, model: str) -> bool:
        """Whether the caller may see a model, `features/<name>`, or everything ("*")."""
        return self.caller.covers(model) and self.policy.allows(self.principal, "browse", object_of(model))

    def may(self, role: str, model: str) -> bool:
        """Whether the caller has a role for a model, and the privilege on it."""
        return self.caller.may(role, model) and self.is_granted(role, model)

    def is_granted(self, role: str, model: str) -> bool:
        """Whether the privilege that a role stands for is granted on a model, or on `features/<name>`."""
        return self.policy.allows(self.principal, privilege_of(role, model), object_of(model))


def privilege_of(role: str, model: str | None) -> str:
    """The privilege that goes with a role: `predict` on features is to use them.

    Examples
    --------
    >>> privilege_of("predict", "rent"), privilege_of("predict", "features/carriers"), privilege_of("push", "*")
    ('predict', 'use_feature', 'modify')
    """
    if role == "predict":
        return "use_feature" if model is not None and model.startswith(FEATURES) else "predict"
    return _PRIVILEGE.get(role, role)


def object_of(model: str) -> CatalogueObject:
    """The catalogue object of what a key may be for: an endpoint, `features/<name>`, or the platform ("*").

    Examples
    --------
    >>> object_of("rent").text, object_of("features/carriers").text, object_of("*").text
    ('endpoint:rent', 'features.carriers', 'platform')
    """
    if model == ALL_MODELS:
        return _PLATFORM
    if model.startswith(FEATURES):
        return CatalogueObject("table", ("features", model.removeprefix(FEATURES).lower()))
    return CatalogueObject("endpoint", (model,))


def principal_of(caller: "Key | TokenCaller | PersonCaller", policy: Policy) -> Principal:
    """The principal that speaks with a key; or by a token or the login gateway: `user:<name>` in the groups it says."""
    directory = policy.directory
    if isinstance(caller, Key):
        return principal_of_key(caller, directory)
    is_admin = caller.may("admin", ALL_MODELS)
    try:
        return directory.principal(f"user:{caller.name}", is_admin=is_admin, claimed=claimed_groups(caller.groups))
    except NoPrincipal:
        return Principal("", "user")  # no grant can name it but those to everyone


def claimed_groups(values: Iterable[str]) -> list[str]:
    """Values of a claim that may be names of groups.

    Examples
    --------
    >>> claimed_groups(["analysts", "urn:x"])
    ['analysts']
    """
    names = []
    for value in values:
        try:
            parse_principal(f"group:{value}")
        except NoPrincipal:
            continue
        names.append(value)
    return names
