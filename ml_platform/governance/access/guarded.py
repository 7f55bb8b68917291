"""Guards and listeners of a project's lake, for `ml_platform.lake.bound`, which knows this module by its name."""

from ml_platform.governance.access.speaker import guard_of, guard_of_speaker, policy_store, principal_named
from ml_platform.lake.access import Guard, Reads
from ml_platform.settings import Settings


def guard_for(settings: Settings, principal: str | None = None) -> Guard | None:
    """The guard of a principal, or of who speaks; None while no access policy is in force.

    Raises
    ------
    AccessDenied
        When a key is wanted, and `ML_PLATFORM_KEY` has none that is valid.
    """
    if principal is None:
        return guard_of_speaker(settings)
    store = policy_store(settings)
    return guard_of(settings, principal_named(settings, store, principal), store) if store.in_use() else None


def reads_for(_: Settings) -> Reads | None:
    """Who is told of every read of the lake; None where nobody keeps account."""
    return None
