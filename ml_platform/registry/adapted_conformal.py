"""Conformal numbers of a bundle that follow the labels as they come: a small document beside the bundle.

<folder>/conformal/<digest>.json     replaced atomically; serving watches those of the bundles that serve
"""

from pathlib import Path

from ml_platform.atomic_files import replace_file
from ml_platform.registry.digests import is_digest
from ml_platform.registry.manifest import Conformal, Struct
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable, document_bytes, read_document


class CountedDay(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How intervals or sets of 0.9 did on the labelled answers of one day, by the numbers of the days before it."""

    day: str  # UTC
    rows: int
    coverage: float
    width: float  # of intervals in the target's unit, or number of classes in a set


class AdaptedConformal(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What intervals and sets of a bundle are made of now, and what is carried from one update to the next."""

    digest: str  # of the bundle
    conformal: Conformal  # in place of the manifest's; coverage and width are of the last 28 counted days
    misses: tuple[tuple[float, float], ...]  # by level: share of labels that may be below and above for it to hold
    through: str  # ISO 8601, UTC: rows before are counted
    days: int  # that were counted since the release
    gamma: float
    history: tuple[CountedDay, ...] = ()  # the newest counted days
    updated_at: str


def adapted_path(store: ReleaseStore, digest: str) -> Path:
    """File of a bundle's adapted numbers (raises ValueError for what is no digest)."""
    if not is_digest(digest):
        raise ValueError(f"bundle digest: wanted 64 hexadecimal digits, found {digest[:80]!r}")
    return store.folder / "conformal" / f"{digest}.json"


def load_adapted(store: ReleaseStore, digest: str) -> AdaptedConformal | None:
    """Read a bundle's adapted numbers; None where there are none (raises DocumentUnreadable)."""
    path = adapted_path(store, digest)
    try:
        found = read_document(path, AdaptedConformal, "adapted intervals", "remove it: the next update starts anew")
    except FileNotFoundError:
        return None
    if found.digest != digest:
        raise DocumentUnreadable(f"{path}: these are the numbers of bundle {found.digest[:12]}; remove the file")
    return found


def store_adapted(store: ReleaseStore, adapted: AdaptedConformal) -> None:
    """Put a bundle's numbers in force."""
    content = document_bytes(adapted)
    replace_file(adapted_path(store, adapted.digest), content)
