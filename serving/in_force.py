"""Which document of an endpoint was last in force, kept over restarts: how far back a server may go that starts."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from ml_platform.registry.files import locked, replace_file
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore, is_name

_MOST = 5  # documents that are tried: each loads its bundles, and a server that starts waits for it


class _Note(msgspec.Struct, frozen=True):
    revision: int
    updated_at: str


class InForce:
    """A note for each endpoint, below the home folder, of the newest document that any server took.

    A worker that starts while the newest release is refused knows by it what its siblings serve. What is older was
    superseded on purpose, by something that worked: it does not come back, whatever happens to its successor.
    """

    def __init__(self, folder: Path, store: ReleaseStore) -> None:
        self._folder = folder
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
        with locked(self._folder / ".lock"):
            before = self._read(endpoint.name)
            # A store that was put back from a backup goes back in its revisions; a worker that is late does not.
            if before is None or before.revision < noted.revision or self._store.document(endpoint.name) == endpoint:
                replace_file(self._path(endpoint.name), msgspec.json.encode(noted))

    def holds(self, endpoint: Endpoint) -> bool:
        """Whether a document is the one that was last in force (raises OSError, ValueError as `note`)."""
        return self._read(endpoint.name) == _Note(endpoint.revision, endpoint.updated_at)

    def fallbacks(self, name: str, before: int | None) -> Iterator[Endpoint]:
        """What may serve while the newest document cannot: earlier ones, newest first, down to the one last in force.

        Never anything from before a withdrawal. Where no server noted anything, it goes back over promotions that
        followed each other, and not beyond what somebody rolled back to or set by hand.

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
        if not is_name(name):  # a document may lie under any
            return
        noted = self._read(name)
        for document in islice(self._store.superseded(name, before), _MOST):
            if not document.targets or (noted is not None and document.revision < noted.revision):
                return
            yield document
            if noted is None and document.action != "promotion":
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
        return self._folder / f"{name}.json"
