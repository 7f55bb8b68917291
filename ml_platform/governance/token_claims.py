"""Reads claims of an identity provider's token, wherever in it they are."""

from collections.abc import Mapping
from typing import Any


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a dotted path that leads into objects; None where there is none.

    Examples
    --------
    >>> claim_at({"realm_access": {"roles": ["a"]}}, "realm_access.roles"), claim_at({"a.b": 1}, "a.b")
    (['a'], 1)
    """
    claim: Any = claims.get(path)
    if claim is None:
        claim = claims
        for part in path.split("."):
            claim = claim.get(part) if isinstance(claim, Mapping) else None
    return claim


def claim_texts(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Texts of a claim: a list, or one text of several words, as `scope` is.

    Examples
    --------
    >>> claim_texts({"realm_access": {"roles": ["a", 1, "b"]}, "scope": "c d"}, "realm_access.roles")
    ('a', 'b')
    >>> claim_texts({"scope": "c d"}, "scope"), claim_texts({}, "scope")
    (('c', 'd'), ())
    """
    claim = claim_at(claims, path)
    if isinstance(claim, str):
        return tuple(claim.split())
    return tuple(value for value in claim if isinstance(value, str)) if isinstance(claim, list) else ()
