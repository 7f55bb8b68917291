"""Removes bundles that nothing names: of runs that never came to a registered version, and what a kill left behind."""

import re
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.types import Strict

GRACE = timedelta(days=7)  # a bundle is stored before its version is registered, maybe by a run that waits for a person
_DIGEST = re.compile(rb"\b[0-9a-f]{64}\b")


class Sweep(Strict):
    """What was removed from a release store."""

    bundles: tuple[str, ...] = Field(description="Digests of the bundles that were removed.")
    unfinished: int = Field(description="Unfinished uploads that were removed.")
    freed_bytes: int = Field(description="Bytes that were freed.")


def sweep_bundles(store: ReleaseStore, *, grace: timedelta = GRACE) -> Sweep:
    """Remove bundles that no version, endpoint document or other bundle names, and folders of writes that were killed.

    Parameters
    ----------
    store
        The release store.
    grace
        Younger ones stay.

    Returns
    -------
    Sweep
        What was removed.
    """
    folder, before = store.folder / "bundles", time.time() - grace.total_seconds()
    old = [path for path in folder.glob("*") if path.is_dir() and path.stat().st_mtime < before]
    named = set(named_digests(store))
    orphans = [path for path in old if not path.name.startswith(".") and path.name not in named]
    unfinished = [path for path in old if path.name.startswith(".staged-")]
    freed = sum(file.stat().st_size for path in (*orphans, *unfinished) for file in path.iterdir())
    for path in (*orphans, *unfinished):
        shutil.rmtree(path)
    return Sweep(bundles=tuple(sorted(path.name for path in orphans)), unfinished=len(unfinished), freed_bytes=freed)


def named_digests(store: ReleaseStore) -> Iterator[str]:
    """Digests in any document of the store, and in the manifests of the bundles that these name."""
    documents = (
        path for kind in ("versions", "endpoints", "history") for path in (store.folder / kind).rglob("*.json")
    )
    waiting, seen = [digest for path in documents for digest in _digests(path)], set[str]()
    while waiting:
        digest = waiting.pop()
        if digest in seen:
            continue
        seen.add(digest)
        yield digest
        manifest = store.bundle_path(digest) / "manifest.json"
        waiting += _digests(manifest) if manifest.is_file() else []


def _digests(path: Path) -> list[str]:
    return [digest.decode() for digest in _DIGEST.findall(path.read_bytes())]
