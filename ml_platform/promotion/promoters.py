"""Who may change at a terminal what an environment serves."""

from typing import TYPE_CHECKING

from ml_platform.processes.identity import this_user
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.governance.keys import Key


class MayNotPromote(PermissionError):
    """Who speaks may not change it: none of the environment's promoters, or without the key or grant for it."""


def promoter(settings: Settings, model: str | None = None, privilege: str = "promote") -> str:
    """Return the name under which the ledger has what this process changes, if it may.

    The name is that of the process's user id, which the environment variables `USER` and `LOGNAME` do not change; after
    that of the key in `ML_PLATFORM_KEY`, where keys are asked for.

    Parameters
    ----------
    model
        The model or endpoint to change; None for what concerns all of them.
    privilege
        What an access policy must grant on it.

    Raises
    ------
    MayNotPromote
        When the setting `promoters` names others alone, a key is wanted and missing or not for that, or the policy does
        not grant the privilege.
    """
    user = this_user()
    if settings.promoters and user not in settings.promoters:
        raise MayNotPromote(
            f"{user} may not change what is served in {settings.home}: the setting promoters names "
            f"{', '.join(settings.promoters)}; ask one of them, or have the list changed"
        )
    key = allowed_key(settings, model, privilege)
    return user if key is None else f"{key.name} ({user})"


def allowed_key(settings: Settings, model: str | None, privilege: str, *, role: str = "promote") -> "Key | None":
    """The key of who speaks, which has a role for a model and the privilege; None where nobody is asked for a key.

    Raises
    ------
    MayNotPromote
        When a key is wanted and missing, or not for that.
    """
    from ml_platform.governance.access.objects import CatalogueObject
    from ml_platform.governance.access.speaker import require, speaking_key
    from ml_platform.lake.access import AccessDenied

    wanted = CatalogueObject("platform") if model is None else CatalogueObject("endpoint", (model,))
    try:
        require(settings, privilege, wanted, role=role)
        return speaking_key(settings)
    except AccessDenied as error:
        raise MayNotPromote(str(error)) from error
