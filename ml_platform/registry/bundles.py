"""Bundles, named by their content: the folder of them, where a bundle is stored whole or not at all.

Imports nothing but the standard library and msgspec: serving depends on it.
"""

import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from ml_platform.atomic_files import sync_path, write_synced
from ml_platform.registry.digests import BUNDLE_FILES, bundle_digest, check_bundle, is_digest
from ml_platform.registry.manifest import Manifest, Struct
from ml_platform.registry.stored_documents import read_document


class Pruned(Struct, kw_only=True, frozen=True):
    """That a bundle was removed on purpose: its versions stay registered without one."""

    by: str
    at: datetime
    reason: str


class BundleStore:
    """The bundles of a release store.

    Parameters
    ----------
    folder
        Of the release store; bundles are below `bundles/`, notes of those that were removed below `pruned/`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def put_bundle(self, files: Mapping[str, bytes] | Path) -> str:
        """Store a bundle (its files, or a folder that holds them) and return its digest; the same bundle twice is one.

        Raises
        ------
        BundleRefused
            When a file is missing or the manifest does not describe the graph.
        """
        if isinstance(files, Path):
            files = {name: (files / name).read_bytes() for name in BUNDLE_FILES if (files / name).is_file()}
        bundle_files = {name: files[name] for name in BUNDLE_FILES if name in files}
        digest = bundle_digest(bundle_files)
        check_bundle(bundle_files, digest)
        target = self.bundle_path(digest)
        if target.is_dir():
            self.load_manifest(digest)
            return digest
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.parent / f".staged-{uuid4().hex}"
        staged.mkdir()
        try:
            for name, content in bundle_files.items():
                write_synced(staged / name, content)
            sync_path(staged)
            os.rename(staged, target)
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            if not target.is_dir():  # else another process stored the same content first
                raise
        sync_path(target.parent)
        return digest

    def bundle_path(self, digest: str) -> Path:
        """Folder of a bundle, whether or not it exists.

        Raises
        ------
        ValueError
            When `digest` is not a SHA-256 in hexadecimal.
        """
        if not is_digest(digest):
            raise ValueError(f"bundle digest: wanted 64 hexadecimal digits, found {digest!r}")
        return self.folder / "bundles" / digest

    def pruned(self, digest: str) -> Pruned | None:
        """Who removed a bundle on purpose; None for one that is there, or that was lost otherwise."""
        if self.bundle_path(digest).is_dir():
            return None
        try:
            return read_document(self.pruned_path(digest), Pruned, "a note of a removed bundle", "remove the file")
        except FileNotFoundError:
            return None

    def pruned_path(self, digest: str) -> Path:
        """File that says that a bundle was removed on purpose."""
        return self.folder / "pruned" / f"{self.bundle_path(digest).name}.json"

    def read_bundle(self, digest: str) -> dict[str, bytes]:
        """Files of a bundle by name, unverified.

        Raises
        ------
        LookupError
            When the store has no such bundle.
        """
        path = self.bundle_path(digest)
        if not path.is_dir():
            if (pruned := self.pruned(digest)) is not None:
                raise LookupError(
                    f"bundle {digest[:12]} was removed by {pruned.by} at {pruned.at:%Y-%m-%d %H:%M} UTC "
                    f"({pruned.reason}); train the model again, or restore {path} from a backup"
                )
            raise LookupError(f"no bundle {digest[:12]} in {path.parent}; train the model again or restore that folder")
        return {name: (path / name).read_bytes() for name in BUNDLE_FILES if (path / name).is_file()}

    def load_manifest(self, digest: str) -> Manifest:
        """Manifest of a bundle, after its digests were verified.

        Raises
        ------
        BundleRefused
            When the bundle is not what its digest says.
        LookupError
            When the store has no such bundle.
        """
        return check_bundle(self.read_bundle(digest), digest)
