"""Where a bundle came from that was not trained in this environment, and where its training set is in this lake."""

from pathlib import Path

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Struct
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable, document_bytes


class Origin(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The environment that a bundle was promoted from."""

    environment: str
    version: int  # its number there
    by: str
    at: str  # ISO 8601, UTC
    training_set: str | None = None  # the copy in this environment's lake; None where both have one lake
    training_set_version: int | None = None


def origin_of(store: ReleaseStore, digest: str) -> Origin | None:
    """Return where a bundle came from; None for one that was trained here (raises DocumentUnreadable)."""
    path = _file(store, digest)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise DocumentUnreadable(f"{path}: not an origin ({error}); promote the model again") from error


def note_origin(store: ReleaseStore, digest: str, origin: Origin) -> None:
    """Write down where a bundle came from."""
    replace_file(_file(store, digest), document_bytes(origin))


def _file(store: ReleaseStore, digest: str) -> Path:
    return store.folder / "origins" / f"{store.bundle_path(digest).name}.json"
