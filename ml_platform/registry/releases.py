"""The release store: what serving reads. Bundles named by their content, and one small endpoint document per model.

    <folder>/bundles/<digest>/{manifest.json, model.onnx, golden.json}
    <folder>/endpoints/<model>.json                what serves now; replaced atomically
    <folder>/history/<model>/<revision>.json       every document that ever was current
    <folder>/status/<model>.json                   what monitoring found lately, see `ml_platform.monitoring.status`

Imports nothing but the standard library and msgspec: serving depends on it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.registry.digests import BUNDLE_FILES, bundle_digest, check_bundle, is_digest
from ml_platform.registry.files import locked, replace_file, sync_folder, write_synced
from ml_platform.registry.manifest import Endpoint, Manifest, Target

_MODEL = re.compile(r"[a-z][a-z0-9_]{1,62}")


class ReleaseConflict(RuntimeError):
    """The endpoint changed between reading it and publishing: nothing was written."""


class ReleaseStore:
    """Folder of bundles and endpoint documents, shared by promoters (writers) and serving (readers).

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = ReleaseStore(Path(folder.name))
    >>> store.endpoint("flight_delay") is None
    True
    >>> folder.cleanup()
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
        kept = {name: files[name] for name in BUNDLE_FILES if name in files}
        digest = bundle_digest(kept)
        check_bundle(kept, digest)
        target = self.bundle_path(digest)
        if target.is_dir():
            self.verify(digest)
            return digest
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=target.parent, prefix=".staged-"))
        try:
            staged.chmod(0o755)
            for name, content in kept.items():
                write_synced(staged / name, content)
            sync_folder(staged)
            os.rename(staged, target)
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            if not target.is_dir():  # else another process stored the same content first
                raise
        sync_folder(target.parent)
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

    def read_bundle(self, digest: str) -> dict[str, bytes]:
        """Files of a bundle by name, unverified.

        Raises
        ------
        LookupError
            When the store has no such bundle.
        """
        path = self.bundle_path(digest)
        if not path.is_dir():
            raise LookupError(f"no bundle {digest[:12]} in {path.parent}; train the model again or restore that folder")
        return {name: (path / name).read_bytes() for name in BUNDLE_FILES if (path / name).is_file()}

    def verify(self, digest: str) -> Manifest:
        """Manifest of a bundle after its digests were proven (raises BundleRefused, LookupError)."""
        return check_bundle(self.read_bundle(digest), digest)

    def load_manifest(self, digest: str) -> Manifest:
        """Manifest of a bundle (raises BundleRefused when the bundle is not what its name says, LookupError)."""
        return self.verify(digest)

    def endpoint(self, model: str) -> Endpoint | None:
        """Return the endpoint document of a model, or None before its first release."""
        return _read_document(self.endpoint_path(model))

    def endpoints(self) -> dict[str, Endpoint]:
        """Every model's endpoint document, by model name."""
        found = {}
        for path in sorted((self.folder / "endpoints").glob("*.json")):
            if _MODEL.fullmatch(path.stem) and (document := _read_document(path)) is not None:
                found[path.stem] = document
        return found

    def endpoint_path(self, model: str) -> Path:
        """File that serving watches for a model (raises ValueError for a name that is no model name)."""
        return self.folder / "endpoints" / f"{_checked_name(model)}.json"

    def status_path(self, model: str) -> Path:
        """File in which monitoring tells how a model does (raises ValueError for a name that is no model name)."""
        return self.folder / "status" / f"{_checked_name(model)}.json"

    def publish(
        self,
        model: str,
        targets: Sequence[Target],
        *,
        reason: str,
        by: str,
        expected_revision: int | None = None,
    ) -> Endpoint:
        """Let `targets` serve `model` from now on; the document before becomes history and `previous`.

        Parameters
        ----------
        targets
            Versions with their shares; the live shares add up to 1. Every bundle is verified before anything changes.
        expected_revision
            Revision that the decision was based on (0 for none yet). None publishes over whatever is there.

        Raises
        ------
        ReleaseConflict
            When another revision is current than `expected_revision`.
        BundleRefused, LookupError
            When a bundle is damaged or missing.
        ValueError
            When a bundle is another model's, or the shares do not add up.
        """
        _checked_name(model)
        self._check_targets(model, targets)
        with locked(self.folder / "locks" / f"{model}.lock"):
            current = self.endpoint(model)
            revision = current.revision if current else 0
            if expected_revision is not None and expected_revision != revision:
                raise ReleaseConflict(
                    f"{model}: the decision was based on revision {expected_revision}, but revision {revision} is "
                    f"current (by {current.updated_by if current else 'nobody'}); evaluate against it and publish again"
                )
            document = Endpoint(
                model=model,
                revision=revision + 1,
                targets=tuple(targets),
                updated_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                updated_by=by,
                reason=reason,
                previous=current.targets if current else (),
            )
            content = msgspec.json.format(msgspec.json.encode(document), indent=2)
            # History first: a crash between the two writes leaves a document that the next publication overwrites.
            replace_file(self._history_folder(model) / f"{document.revision:08d}.json", content)
            replace_file(self.endpoint_path(model), content)
        return document

    def history(self, model: str) -> list[Endpoint]:
        """Every endpoint document of a model, oldest first."""
        current = self.endpoint(model)
        documents = [_read_document(path) for path in sorted(self._history_folder(model).glob("*.json"))]
        return [entry for entry in documents if entry is not None and current and entry.revision <= current.revision]

    def _history_folder(self, model: str) -> Path:
        return self.folder / "history" / _checked_name(model)

    def _check_targets(self, model: str, targets: Sequence[Target]) -> None:
        live = sum(target.share for target in targets if target.mode == "live")
        if abs(live - 1.0) > 1e-9 or any(not 0 <= target.share <= 1 for target in targets):
            shares = (
                ", ".join(f"version {target.version} {target.mode} {target.share:g}" for target in targets) or "none"
            )
            raise ValueError(
                f"{model}: the live targets' shares must be within 0 and 1 and add up to 1, found: {shares}"
            )
        for target in targets:
            manifest = self.verify(target.digest)
            if manifest.model != model:
                raise ValueError(
                    f"{model}: version {target.version} names bundle {target.digest[:12]}, which is a model "
                    f"'{manifest.model}'; publish it there"
                )


def champion_target(endpoint: Endpoint) -> Target:
    """The champion of an endpoint document: the live target with the largest share, the newest of equals."""
    live = [target for target in endpoint.targets if target.mode == "live"]
    return max(live, key=lambda target: (target.share, target.version))


def _checked_name(model: str) -> str:
    if _MODEL.fullmatch(model) is None:
        raise ValueError(f"model name: wanted lower-case letters, digits and underscores (2 to 63), found {model!r}")
    return model


def _read_document(path: Path) -> Endpoint | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=Endpoint)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: not an endpoint document ({error}); restore it from the history folder") from error
