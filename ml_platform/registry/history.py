"""What an endpoint served, when, and what it was made of: read from the documents of the release store.

Imports no more than the store does: serving answers with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore


@dataclass(frozen=True)
class Reign:
    """The state of an endpoint from one revision to the next.

    Attributes
    ----------
    document
        As published.
    since, until
        When it was published, and when the next revision took its place; None while it is in force.
    """

    document: Endpoint
    since: datetime
    until: datetime | None


def reigns(store: ReleaseStore, name: str) -> list[Reign]:
    """Every state of an endpoint, oldest first; none before the first release."""
    documents = store.history(name)
    starts = [datetime.fromisoformat(document.updated_at).astimezone(UTC) for document in documents]
    ends = [*starts, None][1:]
    return [Reign(document, since, until) for document, since, until in zip(documents, starts, ends, strict=True)]


def reign_at(store: ReleaseStore, name: str, at: datetime) -> Reign | None:
    """What an endpoint served at an instant; None before the first release."""
    earlier = [reign for reign in reigns(store, name) if reign.since <= at]
    return earlier[-1] if earlier else None


def origins_of(store: ReleaseStore, document: Endpoint) -> dict[int, dict[str, Any]]:
    """Data and code that made each version of a document; without those whose bundle is damaged or was removed."""
    made_of = {target.version: bundle_origin(store, target.digest) for target in document.targets}
    return {version: origin for version, origin in made_of.items() if origin is not None}


def bundle_origin(store: ReleaseStore, digest: str) -> dict[str, Any] | None:
    """Data and code that made a bundle; None where it is damaged or was removed."""
    try:
        manifest = store.load_manifest(digest)
    except (LookupError, BundleRefused):
        return None
    return {"family": manifest.family, **msgspec.to_builtins(manifest.provenance)}


def describe_origin(made_of: Mapping[str, Any]) -> str:
    """Say in a sentence what a version was made of.

    Examples
    --------
    >>> describe_origin({"family": "ridge", "training_set": "training_sets/rent", "training_set_version": 3,
    ...     "tables": {"raw/rent": 7}, "trained_from": "2024-01-01T00:00:00Z", "trained_until": "2024-06-01T00:00:00Z",
    ...     "training_rows": 1200, "code_version": "a1b2c3"})
    'ridge of 1,200 rows of training_sets/rent version 3, 2024-01-01 to 2024-06-01, made of raw/rent 7; code a1b2c3'
    """
    tables = ", ".join(f"{name} {version}" for name, version in sorted(made_of["tables"].items()))
    if imported := made_of.get("imported"):
        return (
            f"{made_of['family']} by {imported['by']} from {imported['source']} (SHA-256 {imported['digest'][:12]}), "
            f"judged on {made_of['training_set']} version {made_of['training_set_version']}"
        )
    return (
        f"{made_of['family']} of {made_of['training_rows']:,} rows of {made_of['training_set']} version "
        f"{made_of['training_set_version']}, {made_of['trained_from'][:10]} to {made_of['trained_until'][:10]}, "
        f"made of {tables or 'no table'}; code {made_of['code_version']}"
    )
