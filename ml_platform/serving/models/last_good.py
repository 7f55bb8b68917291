"""Notes which document of an endpoint was last in force, so that a server that starts knows how far it may go back."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore, is_name

_MOST = 5  # documents to try: a server that starts waits while each one's bundles are loaded


class _Note(msgspec.Struct, frozen=True):
    revision: int
    updated_at: str


class LastKnownGood:
    """A note for each endpoint, in the home folder, of the newest document that any server put in force.

    From it, a worker that starts while the newest release is refused knows what the other workers serve. Documents
    older than that were replaced by one that worked, so they are never served again, even if that one fails now.
    """

    def __init__(self, folder: Path, store: ReleaseStore) -> None:
        self.folder = folder
        self._store = store

    def note(self, endpoint: Endpoint) -> None:
        """Note a document as in force, unless a newer one is.

        Raises
        ------
        OSError
            When the note cannot be written.
        ValueError
            When the endpoint's newest document cannot be read.
        """
        if self.holds(endpoint):
            return
        noted = _Note(endpoint.revision, endpoint.updated_at)
        with locked(self.folder / ".lock"):
            before = self._read(endpoint.name)
            # A lower revision is valid when the store was restored from a backup, but not from a worker that is late.
            if before is None or before.revision < noted.revision or self._store.document(endpoint.name) == endpoint:
                replace_file(self._path(endpoint.name), msgspec.json.encode(noted))

    def holds(self, endpoint: Endpoint) -> bool:
        """Whether a document is the one last in force (raises OSError, ValueError as `note` does)."""
        return self._read(endpoint.name) == _Note(endpoint.revision, endpoint.updated_at)

    def fallbacks(self, name: str, before: int | None) -> Iterator[Endpoint]:
        """Documents that may serve while the newest cannot: earlier ones, newest first, down to the one last in force.

        None from before a withdrawal. When no server noted anything, they go back over successive promotions, and end
        with the first document that a rollback or a person set.

        Parameters
        ----------
        name
            Of the endpoint.
        before
            Revision of the newest document, None when it cannot be read.

        Raises
        ------
        OSError, ValueError
            When the history or the note cannot be read.
        """
        if not is_name(name):  # the file of a document may have any name
            return
        noted = self._read(name)
        for document in islice(self._store.superseded(name, before), _MOST):
            if not document.targets or (noted is not None and document.revision < noted.revision):
                return
            yield document
            if noted is None and document.action not in {"promotion", "recalibration", "canary"}:
                return

    def _read(self, name: str) -> _Note | None:
        path = self._path(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Note)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: not a note of what was in force ({error}); delete it") from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
