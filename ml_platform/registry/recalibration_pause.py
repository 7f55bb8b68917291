"""Whether a model's recalibrations wait, because what one of them had released was taken back.

Nothing is noted when a version is taken back: the history of the endpoint tells. Only that somebody let recalibrations
go on is a document of its own, `recalibration/<model>.json` in the release store.
"""

from datetime import UTC, datetime

from ml_platform.atomic_files import replace_file
from ml_platform.printable import check_text
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Endpoint, Manifest, Struct, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import document_bytes, read_document


class Resumption(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """That recalibrations may be released again, whatever was taken back up to a revision."""

    revision: int
    at: datetime
    by: str
    reason: str


class NotPaused(ValueError):
    """There is nothing to resume."""


def recalibration_pause(store: ReleaseStore, model: str) -> Endpoint | None:
    """The revision by which a recalibrated version was last taken back, while that holds; None without one.

    Taken back is a recalibrated version in whose place comes one that it was made of, by a rollback or by hand, and one
    whose canary walk was rolled back or ended. It holds until somebody resumes, or a version takes over that is no
    older recalibration of the same training.
    """
    resumed = resumption(store, model)
    manifests: dict[str, Manifest | None] = {}

    def manifest_of(target: Target) -> Manifest | None:
        if target.digest not in manifests:
            try:
                manifests[target.digest] = store.load_manifest(target.digest)
            except (LookupError, BundleRefused):
                manifests[target.digest] = None  # of a bundle that was removed nobody can say what it was made of
        return manifests[target.digest]

    def base(target: Target) -> str:
        manifest = manifest_of(target)
        return manifest.recalibrated.base_digest if manifest and manifest.recalibrated else target.digest

    def is_earlier(after: Target, before: Target) -> bool:
        manifest = manifest_of(before)
        is_recalibrated = manifest is not None and manifest.recalibrated is not None
        return is_recalibrated and base(after) == base(before) and after.version < before.version

    for document in reversed(store.history(model)):
        if resumed is not None and document.revision <= resumed.revision:
            return None
        after, before, walk = document.champion, document.champion_before, document.canary
        if after is None:
            continue
        if walk is not None and walk.state in {"rolled back", "ended"}:
            before = Target(version=walk.version, digest=walk.digest)
            if is_earlier(after, before):
                return document
        elif before is not None and before.digest != after.digest:
            return document if is_earlier(after, before) else None
    return None


def resumption(store: ReleaseStore, model: str) -> Resumption | None:
    """When recalibrations were last let go on; None for never."""
    path = store.folder / "recalibration" / f"{model}.json"
    try:
        return read_document(path, Resumption, "a resumption", "delete it, and resume again")
    except FileNotFoundError:
        return None


def check_resumable(store: ReleaseStore, model: str, reason: str) -> Endpoint:
    """What paused recalibrations, if they may be resumed.

    Raises
    ------
    NotPaused
        When none waits.
    ValueError
        Without a reason.
    """
    check_text(reason, "reason")
    if not reason.strip():
        raise ValueError("resume: wanted a reason, such as what was found to be wrong")
    paused = recalibration_pause(store, model)
    if paused is None:
        raise NotPaused(f"{model}: recalibrations are not paused; there is nothing to resume")
    return paused


def resume(store: ReleaseStore, model: str, *, by: str, reason: str) -> None:
    """Let recalibrations be released again, whatever was taken back so far."""
    document = Resumption(revision=store.revision(model), at=datetime.now(UTC), by=by, reason=reason.strip())
    replace_file(store.folder / "recalibration" / f"{model}.json", document_bytes(document))


def pause_in_words(model: str, paused: Endpoint) -> str:
    """Say since when recalibrations wait, why, and how they go on."""
    return (
        f"Recalibrations are paused: one was taken back in revision {paused.revision} at {paused.updated_at} by "
        f"{paused.updated_by} ({paused.reason}). They go on once a newly trained version serves, or with: ml-platform "
        f'recalibrate {model} --resume "…".'
    )
