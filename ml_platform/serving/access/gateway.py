"""People who have signed in at the login gateway, which names them in a header that it alone can make."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from ml_platform.gateway_identity import SCHEME, GatewaySigner, Identity, login_in_use
from ml_platform.governance.keys import includes_role

AUDIENCE: Final = "console"
# What people may ask of this server, by their role, in the words of keys.
KEY_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "viewer": ("predict",),
    "launcher": ("explain",),
    "editor": ("explain", "push", "promote"),
    "admin": ("admin",),
}


class PersonCaller(msgspec.Struct, frozen=True):
    """A person; it answers what a `Key` does, for all models.

    Examples
    --------
    >>> ada = PersonCaller.of(Identity("ada", "launcher", ("analysts",)))
    >>> ada.id, ada.may("predict", "any"), ada.may("promote", "any")
    ('user:ada', True, False)
    """

    id: str  # the principal: `user:<name>`
    name: str
    roles: tuple[str, ...]
    groups: tuple[str, ...] = ()
    rate: float | None = None
    burst: int | None = None

    @classmethod
    def of(cls, identity: Identity) -> "PersonCaller":
        """The caller that an identity stands for."""
        return cls(f"user:{identity.name}", identity.name, KEY_ROLES[identity.role], identity.groups)

    def has_role(self, role: str) -> bool:
        """Whether the person's role includes one of a key's."""
        return includes_role(self.roles, role)

    def covers(self, model: str) -> bool:  # noqa: ARG002 - as a key is asked
        """Whether the person may see a model: all, as grants do not narrow it."""
        return True

    def may(self, role: str, model: str) -> bool:  # noqa: ARG002
        """Whether the person has a role for a model."""
        return self.has_role(role)


class GatewayCallers:
    """Finds the people of requests that the gateway passes on. One per worker.

    Parameters
    ----------
    keys_dir
        The platform's `keys_dir`, where the gateway's secret is.
    """

    def __init__(self, keys_dir: Path) -> None:
        self._keys_dir = keys_dir
        self._signer: GatewaySigner | None = None

    def in_use(self) -> bool:
        """Whether people sign in; once they do, the server stays closed until it starts anew."""
        if self._signer is None and login_in_use(self._keys_dir):
            self._signer = GatewaySigner(self._keys_dir)
        return self._signer is not None

    def find(self, credentials: Iterable[tuple[bytes, bytes]]) -> PersonCaller | None:
        """The person of a request's credentials; None when the gateway did not make them just now, for this server."""
        sent = [value.decode("latin-1") for name, value in credentials if name == b"authorization"]
        if len(sent) != 1 or not sent[0].lower().startswith(SCHEME) or not self.in_use():
            return None
        assert self._signer is not None
        identity = self._signer.identity(sent[0], AUDIENCE)
        return None if identity is None else PersonCaller.of(identity)
