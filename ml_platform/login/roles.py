"""Roles of people on each user interface."""

from collections.abc import Iterable, Mapping
from typing import Final

from ml_platform.gateway_identity import ROLES

UIS: Final = ("dagster", "mlflow", "console")
DOES: Final = {
    "viewer": "reads",
    "launcher": "also starts and stops runs, asks for predictions",
    "editor": "also changes what is scheduled, tracked, registered and served",
    "admin": "everything",
}


class RoleUnknown(ValueError):
    """A text that is neither a role nor `<user interface>=<role>`."""


def includes(held: str | None, needed: str) -> bool:
    """Whether a role includes another; None is no role at all.

    Examples
    --------
    >>> includes("editor", "launcher"), includes("viewer", "launcher"), includes(None, "viewer")
    (True, False, False)
    """
    return held is not None and ROLES.index(held) >= ROLES.index(needed)


def parse_roles(texts: Iterable[str]) -> dict[str, str]:
    """Roles by user interface from texts: `viewer` for all, `dagster=editor` for one, which wins over `viewer`.

    Raises
    ------
    RoleUnknown
        For anything else.

    Examples
    --------
    >>> parse_roles(["viewer", "dagster=launcher"])
    {'dagster': 'launcher', 'mlflow': 'viewer', 'console': 'viewer'}
    >>> parse_roles(["mlflow=viewer"])
    {'mlflow': 'viewer'}
    """
    of_all: str | None = None
    of_one: dict[str, str] = {}
    for text in texts:
        where, equals, role = text.strip().rpartition("=")
        if role not in ROLES or (equals and where not in UIS):
            raise RoleUnknown(
                f"wanted one of {', '.join(ROLES)}, for one user interface as {'|'.join(UIS)}=<role>, found {text!r}"
            )
        if equals:
            of_one[where] = role
        else:
            of_all = role
    return {ui: given for ui in UIS if (given := of_one.get(ui, of_all)) is not None}


def highest(several: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The highest role on each user interface.

    Examples
    --------
    >>> highest([{"dagster": "viewer"}, {"dagster": "editor", "mlflow": "viewer"}])
    {'dagster': 'editor', 'mlflow': 'viewer'}
    """
    found: dict[str, str] = {}
    for roles in several:
        for ui, role in roles.items():
            if not includes(found.get(ui), role):
                found[ui] = role
    return found


def in_words(roles: Mapping[str, str]) -> str:
    """Roles as `parse_roles` reads them.

    Examples
    --------
    >>> in_words({"dagster": "viewer", "mlflow": "viewer", "console": "viewer"}), in_words({"mlflow": "editor"})
    ('viewer', 'mlflow=editor')
    """
    held = [roles.get(ui) for ui in UIS]
    if held[0] is not None and len(set(held)) == 1:
        return held[0]
    return ", ".join(f"{ui}={roles[ui]}" for ui in UIS if ui in roles) or "none"
