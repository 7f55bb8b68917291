"""Guards and listeners of a project's lake, for `ml_platform.lake.bound`, which knows this module by its name."""

from ml_platform.governance.access.speaker import guard_of, guard_of_speaker, policy_store, principal_named
from ml_platform.lake.access import AccessDenied, Guard, Reads
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings


def guard_for(settings: Settings, principal: str | None = None) -> Guard | None:
    """The guard of a principal, or of who speaks; None while no access policy is in force.

    Raises
    ------
    AccessDenied
        When a key is wanted, and `ML_PLATFORM_KEY` has none that is valid.
    """
    guard: Guard | None
    if principal is None:
        guard = guard_of_speaker(settings)
    else:
        store = policy_store(settings)
        guard = guard_of(settings, principal_named(settings, store, principal), store) if store.in_use() else None
    if guard is not None:
        _check_project(guard)
    return guard


def _check_project(guard: Guard) -> None:
    """Refuse where there are no definitions: what they mask and filter would be given as it is."""
    try:
        current_project()
    except ProjectNotFound as error:
        remedy = (
            "Masks and filters are in the project's definitions, and there is no project here: ML_PLATFORM_PROJECT."
        )
        raise AccessDenied(guard.principal, "select", "the lake", remedy) from error


def reads_for(settings: Settings, principal: str | None = None) -> Reads | None:
    """Who is told of every read of the lake by a principal, or by who speaks (raises KeyWanted); None for nobody."""
    from ml_platform.governance.access.read_audit import reads_for as listener

    return listener(settings, principal)
