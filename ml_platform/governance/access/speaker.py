"""Who speaks at a terminal, in a notebook or a script: the principal of the key in `ML_PLATFORM_KEY`.

The platform asks for a key from the moment on that a key with the role admin exists or an access policy is in force.
Until then whoever can write the platform's files may do everything, as a key would only ever be asked of themselves.
"""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.governance.access.guard import PolicyGuard
from ml_platform.governance.access.objects import CatalogueObject
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import PLATFORM, Principal, principal_of_key
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import ALL_MODELS, Key, KeyStore
from ml_platform.lake.access import AccessDenied
from ml_platform.processes.identity import this_user
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.lineage.graph import ColumnGraph

_ASK = (
    "Set ML_PLATFORM_KEY to your key; an admin makes one by ml-platform keys create. Where no admin has a valid key "
    'any more, whoever has the files does: ml-platform keys create "name" --role admin.'
)


class KeyWanted(AccessDenied):
    """A command that is for somebody with a key, without a valid one."""

    def __init__(self, problem: str) -> None:
        PermissionError.__init__(self, f"{problem} {_ASK}")
        self.principal, self.privilege, self.name, self.remedy = "nobody", "", "", _ASK


def policy_store(settings: Settings, *, audited: bool = False, with_owners: bool = True) -> PolicyStore:
    """Open the platform's access policy, with the owners that definitions name."""

    def owners() -> dict[str, str]:
        from ml_platform.governance.access.definitions import load_definitions

        return dict(load_definitions().owners) if with_owners else {}

    trail: tuple[Path, Path] | tuple[None, None] = (settings.audit_dir, settings.keys_dir) if audited else (None, None)
    return PolicyStore(settings.access_dir, *trail, owners=owners)


def asks_for_key(settings: Settings, store: PolicyStore | None = None) -> bool:
    """Whether commands are for holders of a key alone."""
    known = KeyStore(settings.keys_dir).keys()
    return (
        any(key.may("admin", ALL_MODELS) for key in known)
        or (store or policy_store(settings, with_owners=False)).in_use()
    )


def speaking_key(settings: Settings) -> Key | None:
    """The key in `ML_PLATFORM_KEY`; None when there is none (raises KeyWanted for one that is not valid)."""
    text = settings.key.get_secret_value()
    if not text:
        return None
    key = KeyStore(settings.keys_dir).find(text)
    if key is None:
        raise KeyWanted("ML_PLATFORM_KEY is no valid key of this platform: it was revoked, has ended, or is mistyped.")
    return key


def speaker(settings: Settings, store: PolicyStore | None = None) -> Principal:
    """The principal who speaks; the local owner, an admin, while nobody is asked for a key.

    Raises
    ------
    KeyWanted
        When a key is wanted and `ML_PLATFORM_KEY` has none that is valid.
    """
    store = store or policy_store(settings, with_owners=False)
    wanted = asks_for_key(settings, store)
    key = speaking_key(settings) if wanted or settings.key.get_secret_value() else None
    if key is not None:
        return principal_of_key(key, store.policy.directory)
    if wanted:
        raise KeyWanted("This platform asks for a key.")
    return Principal(this_user(), "user", is_admin=True)


def require(settings: Settings, privilege: str, wanted: CatalogueObject, *, role: str) -> Principal:
    """Refuse a command of somebody who may not; else give who it is, for ledger and log.

    A key needs the role for the model, or for all models where the object is none; and, where a policy is in force, the
    privilege on the object.

    Raises
    ------
    KeyWanted, AccessDenied
        Saying what is missing and what to do.
    """
    store = policy_store(settings)
    principal = speaker(settings, store)
    if not asks_for_key(settings, store):
        return principal
    key = speaking_key(settings)
    assert key is not None  # else `speaker` had refused
    model = wanted.parts[0] if wanted.kind in ("model", "endpoint", "training_set") else ALL_MODELS
    if not key.may(role, model):
        scope = "" if model == ALL_MODELS else f" --model {model}"
        remedy = (
            f'The key lacks the role: an admin makes one by ml-platform keys create "{key.name}" --role {role}{scope}'
        )
        raise AccessDenied(principal.text, privilege, wanted.text, remedy)
    if store.in_use():
        check_allowed(store.policy, principal, privilege, wanted)
    return principal


def check_allowed(policy: Policy, principal: Principal, privilege: str, wanted: CatalogueObject) -> None:
    """Refuse what the policy does not allow (raises AccessDenied with the reason, the owner and the command)."""
    verdict = policy.explain(principal, privilege, wanted)
    if verdict.allowed:
        return
    command = f"ml-platform grant {privilege} on {wanted.text} to {principal.text}"
    if not policy.allows(principal, "browse", wanted):  # as of an object that does not exist
        raise AccessDenied(principal.text, privilege, wanted.text, f"Nothing grants it; an admin can: {command}")
    owner = policy.owner_of(wanted)
    who = f"{owner} owns it" if owner else "an admin grants it"
    remedy = f"{verdict.why[0].upper()}{verdict.why[1:]}; {who}: {command}"
    raise AccessDenied(principal.text, privilege, wanted.text, remedy)


def guard_of_speaker(settings: Settings) -> PolicyGuard | None:
    """The guard of who speaks, for a lake; None while no policy is in force (raises KeyWanted)."""
    store = policy_store(settings)
    return guard_of(settings, speaker(settings, store), store) if store.in_use() else None


def guard_of(settings: Settings, principal: Principal, store: PolicyStore | None = None) -> PolicyGuard:
    """The guard of a principal, by the project's policy and definitions."""
    from ml_platform.governance.access.definitions import load_definitions

    return PolicyGuard(principal, store or policy_store(settings), load_definitions().protections, graph=project_graph)


def project_graph() -> "ColumnGraph":
    """What the columns of the current project are made of, by its definitions; read once by a process."""
    from ml_platform.lineage.graph import ColumnGraph
    from ml_platform.project import ProjectNotFound, current_project

    try:
        return _graph_of(current_project().defs)
    except ProjectNotFound:
        return ColumnGraph()


@cache
def _graph_of(_: Path) -> "ColumnGraph":
    from ml_platform.lineage.project_graph import build_lineage, read_project

    return build_lineage(read_project())[0].graph


def principal_named(settings: Settings, store: PolicyStore, text: str) -> Principal:
    """The principal of a text: the platform itself, whoever has the key of a name, or a person in their groups."""
    if text == PLATFORM.text:
        return PLATFORM
    known, now = KeyStore(settings.keys_dir).keys(), datetime.now(UTC)
    key = next((one for one in known if f"service:{one.name}" == text and one.is_valid(now)), None)
    directory = store.policy.directory
    return directory.principal(text) if key is None else principal_of_key(key, directory)
