"""Begin, end and take up canary walks by hand: in the release store, then in ledger and registry."""

from ml_platform.promotion.promote import sync_registry
from ml_platform.registry.canary import NoWalk, resume_walk, roll_back_walk, start_walk
from ml_platform.registry.manifest import CanaryPolicy, Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def begin_walk(settings: Settings, name: str, version: int, *, policy: CanaryPolicy, by: str, reason: str) -> Endpoint:
    """Let a registered version walk, whatever the gate found.

    Raises
    ------
    LookupError
        When there is no such version, or nothing serves that it could be held against.
    ReleaseConflict
        When another walk is under way.
    ValueError, NotApproved, BundleRefused, RegistryBehind
        When the version serves already, waits for a person, or is damaged; when it walks and the registry is away.
    """
    store = ReleaseStore(settings.releases_dir)
    document = store.document(name)
    model = document.model if document else name
    known = store.versions(model)
    if version not in known:
        raise LookupError(f"no version {version} is registered; there are {sorted(known) or 'none'}")
    _wants_reason(reason)
    start_walk(store, name, version, known[version], policy=policy, reason=reason, by=by)
    return sync_registry(settings, name)


def abort_walk(settings: Settings, name: str, *, by: str, reason: str) -> Endpoint:
    """End the walk that is under way: what served before it serves again (raises NoWalk, ReleaseConflict)."""
    store = ReleaseStore(settings.releases_dir)
    document = store.document(name)
    if document is None:
        raise NoWalk(f"'{name}' was never released. Known: {', '.join(store.documents()) or 'none'}")
    _wants_reason(reason)
    roll_back_walk(store, document, reason=reason, by=by, state="ended")
    return sync_registry(settings, name)


def take_up_walk(settings: Settings, name: str, *, by: str, reason: str) -> Endpoint:
    """Take up the last walk at the step where it ended (raises NoWalk, and as `begin_walk`)."""
    _wants_reason(reason)
    resume_walk(ReleaseStore(settings.releases_dir), name, reason=reason, by=by)
    return sync_registry(settings, name)


def _wants_reason(reason: str) -> None:
    if not reason.strip():
        raise ValueError("a change of what serves wants a reason; it goes into the ledger")
