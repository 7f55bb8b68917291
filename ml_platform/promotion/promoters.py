"""Who may change at a terminal what an environment serves."""

from ml_platform.processes.identity import this_user
from ml_platform.settings import Settings


class MayNotPromote(PermissionError):
    """The user of this process is none of the environment's promoters."""


def promoter(settings: Settings) -> str:
    """Return the name of this process's user, if that may change what is served under these settings.

    The name is that of the process's user id, which the environment variables `USER` and `LOGNAME` do not change.

    Raises
    ------
    MayNotPromote
        When the setting `promoters` names others alone.
    """
    user = this_user()
    if settings.promoters and user not in settings.promoters:
        raise MayNotPromote(
            f"{user} may not change what is served in {settings.home}: the setting promoters names "
            f"{', '.join(settings.promoters)}; ask one of them, or have the list changed"
        )
    return user
