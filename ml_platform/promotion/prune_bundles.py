"""Which bundles a release store may do without, and why each of the others stays; and their removal."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.atomic_files import replace_file
from ml_platform.promotion.pinned import Pins
from ml_platform.promotion.prune_item import PruneItem, Retention
from ml_platform.promotion.sweep import named_digests
from ml_platform.registry.adapted_conformal import adapted_path
from ml_platform.registry.bundles import Pruned
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import STAGING
from ml_platform.registry.stages import current_state, rollback_state
from ml_platform.registry.stored_documents import document_bytes

_REMOVED = ".staged-removed-"  # where a bundle is from its removal on; the sweep removes what a kill leaves of it


def bundle_items(
    store: ReleaseStore, retention: Retention, model: str | None = None, *, pins: Pins | None = None
) -> Iterator[PruneItem]:
    """Every bundle, with why it stays; those of one model, or of all and of none. `pins` name versions by number.

    Raises
    ------
    DocumentUnreadable
        When a document is damaged: what it names is unknown, so nothing may be removed.
    """
    reasons = dict(_of_versions(store, retention, pins))
    named = set(named_digests(store))
    for path in sorted((store.folder / "bundles").glob("*")):
        if path.name.startswith("."):
            continue
        owner, versions, keep = reasons.get(path.name, (None, (), ""))
        if owner is None:
            keep = "another bundle or a document names it" if path.name in named else ""
        if model is not None and owner != model:
            continue
        try:
            age = datetime.now(UTC) - datetime.fromtimestamp(path.stat().st_mtime, UTC)
            size = sum(file.stat().st_size for file in path.iterdir())
        except FileNotFoundError:
            continue  # another pruning has just removed it
        if not keep and age < retention.younger_than:
            keep = f"younger than {retention.younger_than.days} days"
        about = ", ".join(f"version {version}" for version in versions) or "no version"
        yield PruneItem("bundle", path.name, owner or "", about, size, keep)


def remove_bundle(store: ReleaseStore, item: PruneItem, *, by: str, reason: str) -> bool:
    """Remove a bundle, unless it serves meanwhile; says first, where a version is without it from then on, who did.

    False where it stays, and where there is none any more.
    """
    path = store.bundle_path(item.name)
    if not path.is_dir():
        return False
    if item.model:
        with store.notes.stages_alone(item.model):  # nothing is released meanwhile
            if any(
                item.name == target.digest for document in store.documents().values() for target in document.targets
            ):
                return False
            note = Pruned(by=by, at=datetime.now(UTC), reason=reason)
            replace_file(store.pruned_path(item.name), document_bytes(note))
            gone = _set_aside(path)
            adapted_path(store, item.name).unlink(missing_ok=True)
    else:
        gone = _set_aside(path)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def finish_removals(store: ReleaseStore) -> int:
    """Remove what a killed removal has left; returns the bytes."""
    left = sorted((store.folder / "bundles").glob(f"{_REMOVED}*"))
    size = sum(file.stat().st_size for path in left for file in path.iterdir())
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return size


def _set_aside(path: Path) -> Path:
    gone = path.with_name(_REMOVED + path.name)
    os.rename(path, gone)
    return gone


def _of_versions(
    store: ReleaseStore, retention: Retention, pins: Pins | None
) -> Iterator[tuple[str, tuple[str, tuple[int, ...], str]]]:
    """Bundles of registered versions: digest → model, versions, why it stays."""
    documents = store.documents()
    for model in sorted({*store.registered(), *(document.model for document in documents.values())}):
        histories = [store.history(name) for name, document in documents.items() if document.model == model]
        known, state = store.versions(model), current_state(store, model)
        newest = set(list(known)[-retention.keep_last :]) if retention.keep_last else set()
        by_digest: dict[str, list[int]] = {}
        for version, digest in known.items():
            by_digest.setdefault(digest, []).append(version)
        for digest, versions in by_digest.items():
            keeps = [
                *_by_endpoints(histories, digest, retention),
                *(f"it is the {alias}" for alias, number in state.aliases.items() if number in versions),
                *(["in Staging"] if any(state.stages[version] == STAGING for version in versions) else []),
                *(
                    f"an approval of version {version} is open"
                    for version in versions
                    if (request := store.approvals.get(model, version)) is not None and request.is_open()
                ),
                *(pin for version in versions for pin in (pins.of(model, version) if pins else ())),
                *([f"among the last {retention.keep_last} versions"] if newest & set(versions) else []),
                *([] if retention.versions else ["a registered version is made of it (--bundles lets it go)"]),
            ]
            yield digest, (model, tuple(versions), keeps[0] if keeps else "")


def _by_endpoints(histories: list[list[Endpoint]], digest: str, retention: Retention) -> Iterator[str]:
    for documents in histories:
        if digest in {target.digest for target in documents[-1].targets}:
            yield f"{documents[-1].name} serves it"
        earlier = rollback_state(documents)
        if earlier is not None and digest in {target.digest for target in earlier.targets}:
            yield f"a rollback of {documents[-1].name} goes back to it"
        if not retention.served and any(digest in {one.digest for one in document.targets} for document in documents):
            yield "it has served: the ledger names it (--served lets it go)"
