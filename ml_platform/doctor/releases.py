"""Checks of the release store: documents, bundles and their digests; what serves loads and gives its scores."""

from collections.abc import Callable, Iterator
from functools import partial

from ml_platform.doctor.databases import view_hashes
from ml_platform.doctor.findings import Finding, error, ok
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.model_card import carded_versions, load_card
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.settings import Settings


def releases(settings: Settings) -> Iterator[Finding]:
    """Verify every bundle, and load the versions that serve as the server does."""
    store = ReleaseStore(settings.releases_dir)
    folder = store.folder / "bundles"
    bundles = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    refused = {}
    for digest in bundles:
        try:
            store.load_manifest(digest)
        except (BundleRefused, ValueError) as problem:
            refused[digest] = str(problem)
    serving = 0
    for name in store.names():
        try:
            document = store.document(name)
        except DocumentUnreadable as problem:
            yield error("releases", str(problem), f"the last one is in {store.folder / 'history' / name}")
            continue
        try:
            store.history(name)
        except DocumentUnreadable as problem:
            yield error("releases", str(problem), "restore it from a backup; until then a rollback beyond it fails")
        for target in document.targets if document else ():
            serving += 1
            yield from _serves(store, settings, name, target)
            refused.pop(target.digest, None)
    yield from _said_of_versions(store)
    for message in refused.values():
        yield error("releases", message, "nothing serves it; remove its folder, or restore it from a backup")
    yield ok("releases", f"{len(bundles)} bundles, {serving} versions serve")


def _said_of_versions(store: ReleaseStore) -> Iterator[Finding]:
    """Check registered versions, approvals, cards and what people said."""
    kinds = ("approvals", "cards", "notes", "versions")
    for model in sorted({path.name for kind in kinds for path in (store.folder / kind).glob("*")}):
        reads: list[Callable[[], object]] = [
            partial(store.approvals.policy, model),
            partial(store.approvals.all, model),
            partial(store.notes.all, model),
            partial(store.versions, model),
            *(partial(load_card, store, model, version) for version in carded_versions(store, model)),
        ]
        for read in reads:
            try:
                read()
            except DocumentUnreadable as problem:
                yield error("releases", str(problem), "restore it from a backup")


def _serves(store: ReleaseStore, settings: Settings, name: str, target: Target) -> Iterator[Finding]:
    what = f"{name}, version {target.version}, which serves"
    try:
        if not store.bundle_path(target.digest).is_dir():
            raise BundleRefused(f"there is no bundle {target.digest[:12]}")
        manifest = Scorer.load(store.bundle_path(target.digest)).manifest
    except (BundleRefused, OSError) as problem:
        yield error(
            "releases",
            f"{what}: {problem}",
            f'restore {store.bundle_path(target.digest)} from a backup, or ml-platform rollback {name} --reason "…"',
        )
        return
    yield from _views(settings, what, manifest)


def _views(settings: Settings, what: str, manifest: Manifest) -> Iterator[Finding]:
    try:
        hashes = view_hashes(settings.online_uri, [lookup.view for lookup in manifest.lookups])
    except Exception:  # noqa: BLE001 - the check of the online store says what is wrong with it
        return
    for lookup in manifest.lookups:
        if hashes.get(lookup.view) != lookup.view_hash:
            published = "another definition of it" if lookup.view in hashes else "none of it"
            yield error(
                "releases",
                f"{what}: looks up the view {lookup.view}, of which the online store holds {published}",
                f"materialise online/{lookup.view}; if the view's definition was changed, train and release again",
            )
