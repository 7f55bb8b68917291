"""Passwords: argon2id with its authors' parameters, and the same work for names that nobody has."""

import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 12, 256  # characters
# Each takes 64 MiB: people who sign in at once wait for one another rather than for memory.
_TURNS = threading.BoundedSemaphore(2)


class PasswordRefused(ValueError):
    """A password that may not be set."""


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys() -> str:
    return _hasher().hash("of nobody")


def _normal(password: str) -> str:
    """One spelling of a password for all keyboards and systems: OpaqueString of RFC 8265."""
    return unicodedata.normalize("NFC", "".join(" " if unicodedata.category(one) == "Zs" else one for one in password))


def check_new(password: str, name: str) -> None:
    """Refuse what is too easy to guess (raises PasswordRefused)."""
    password = _normal(password)
    if any(unicodedata.category(one) == "Cs" for one in password):
        raise PasswordRefused("the password is no text in UTF-8: is the terminal's encoding another one?")
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordRefused(f"wanted a password of {SHORTEST} to {LONGEST} characters, found {len(password)}")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise PasswordRefused("the password is too easy to guess: it repeats few characters, or holds the name")


def hashed(password: str) -> str:
    """What is kept of a password."""
    with _TURNS:
        return _hasher().hash(_normal(password))


def is_right(password: str, kept: str | None) -> bool:
    """Whether a password is the one of a hash; None, for a name that nobody has, takes as long and is never right."""
    from argon2.exceptions import InvalidHashError, VerifyMismatchError

    if len(password) > LONGEST:
        return False
    with _TURNS:
        try:
            _hasher().verify(kept or _nobodys(), _normal(password).encode(errors="replace"))
        except (VerifyMismatchError, InvalidHashError):
            return False
    return kept is not None
