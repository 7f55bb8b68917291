"""Published feature services: which features of which views are given out under one name.

    <folder>/feature_services/<name>.json                       what is served now; replaced atomically
    <folder>/feature_services/history/<name>/<revision>.json    every revision that ever was, withdrawn ones too

below the release store's folder. Serving reads nothing else of a service: neither the project's files nor the lake.

Imports no library but msgspec: serving depends on it.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.manifest import Derived, Input, Struct
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.registry.stored_documents import document_bytes, read_document

_FOLDER = "feature_services"
_HISTORY = "history"  # a folder, so no service's file


class ServedView(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a service takes from one view."""

    name: str  # what its features are called by: <name>__<feature>
    view: str
    view_hash: str  # of the definition when the service was published
    keys: dict[str, str]  # the view's entity column → field of the request, or request feature
    features: tuple[str, ...]  # as the view calls them
    ttl_seconds: float | None = None


class FeatureService(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One revision of a feature service."""

    name: str
    description: str
    owner: str
    views: tuple[ServedView, ...]
    inputs: tuple[Input, ...] = ()  # beside the views' keys
    derived: tuple[Derived, ...] = ()  # request features
    pinned: bool = False  # refused while a view has another definition
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    revision: int = 0  # 0: not published yet
    published_at: datetime | None = None  # UTC
    published_by: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what is answered: views, their definitions, keys, features, request features."""
        meaning = (self.views, self.inputs, self.derived, self.pinned)
        return hashlib.sha256(msgspec.json.encode(meaning, order="sorted")).hexdigest()


class FeatureServiceStore:
    """Feature services of a release store, written by publication and read by serving.

    Examples
    --------
    >>> import tempfile
    >>> store = FeatureServiceStore(ReleaseStore(tempfile.mkdtemp()))
    >>> view = ServedView(name="weather", view="weather", view_hash="1f", keys={"origin": "origin"}, features=("temp",))
    >>> board = FeatureService(name="board", description="For the board.", owner="team:web", views=(view,))
    >>> [store.publish(board, by="ann").revision for _ in range(2)], store.names()
    ([1, 1], ['board'])
    """

    def __init__(self, releases: ReleaseStore) -> None:
        self.folder = releases.folder / _FOLDER

    def names(self) -> list[str]:
        """Names of what is published, sorted, whether or not each can be read."""
        return sorted(path.stem for path in self.folder.glob("*.json") if is_name(path.stem))

    def path(self, name: str) -> Path:
        """File of a service (raises ValueError for an invalid name)."""
        if not is_name(name):
            raise ValueError(f"feature service: wanted lower case, digits, underscores, found {name[:80]!r}")
        return self.folder / f"{name}.json"

    def read(self, name: str) -> FeatureService | None:
        """Read what is served under a name; None for nothing.

        Raises
        ------
        ml_platform.registry.stored_documents.DocumentUnreadable
            When the file is damaged.
        """
        try:
            return read_document(self.path(name), FeatureService, "a feature service", "publish the service again")
        except FileNotFoundError:
            return None

    def publish(self, service: FeatureService, *, by: str) -> FeatureService:
        """Put a service in force, and give it with its revision; one that says the same as before makes none.

        Raises
        ------
        OSError
            When the store cannot be written. What was in force stays.
        """
        with locked(self.folder / "publish.lock"):
            current = self._current(service.name)
            if current is not None and _said(current) == _said(service):
                return current
            service = msgspec.structs.replace(
                service, revision=self._last_revision(service.name) + 1, published_at=datetime.now(UTC), published_by=by
            )
            content = document_bytes(service)
            replace_file(self._history(service.name) / f"{service.revision}.json", content)
            replace_file(self.path(service.name), content)
        return service

    def withdraw(self, name: str) -> bool:
        """Take a service out of service; False when none of this name was in it."""
        with locked(self.folder / "publish.lock"):
            path = self.path(name)
            is_there = path.exists()
            path.unlink(missing_ok=True)
        return is_there

    def _current(self, name: str) -> FeatureService | None:
        try:
            return self.read(name)
        except ValueError:  # damaged: publishing mends it
            return None

    def _history(self, name: str) -> Path:
        return self.folder / _HISTORY / self.path(name).stem

    def _last_revision(self, name: str) -> int:
        return max((int(path.stem) for path in self._history(name).glob("*.json") if path.stem.isdigit()), default=0)


def _said(service: FeatureService) -> FeatureService:
    """A service without what its publication adds."""
    return msgspec.structs.replace(service, revision=0, published_at=None, published_by="")
