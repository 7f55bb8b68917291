"""Up to which revision of an endpoint the ledger and the registry have followed what serves.

The note is written last. Whoever looks for endpoints that nobody finished needs neither MLflow nor the ledger for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.version_notes import Notes


class _Note(msgspec.Struct, frozen=True):
    revision: int


@contextmanager
def following(store: ReleaseStore, name: str) -> Iterator[None]:
    """Follow an endpoint alone, from its newest revision as of now; noted as done unless an error passes through."""
    with locked(store.folder / "locks" / f"{name}.followed.lock"):  # no endpoint has a dot in its name
        revision = store.revision(name)
        yield
        replace_file(_file(store, name), msgspec.json.encode(_Note(revision)))


def followed_revision(store: ReleaseStore, name: str) -> int:
    """Newest revision of an endpoint that ledger and registry have followed; 0 for none."""
    try:
        return msgspec.json.decode(_file(store, name).read_bytes(), type=_Note).revision
    except FileNotFoundError:
        return 0


def note_followed(store: ReleaseStore, notes: Notes) -> None:
    """Note that ledger and registry have followed what people said of a model or a version."""
    replace_file(_notes_file(store, notes), msgspec.json.encode(_Note(len(notes.events))))


def followed_notes(store: ReleaseStore, notes: Notes) -> int:
    """How much of what people said of a model or a version ledger and registry have followed."""
    try:
        return msgspec.json.decode(_notes_file(store, notes).read_bytes(), type=_Note).revision
    except FileNotFoundError:
        return 0


def _notes_file(store: ReleaseStore, notes: Notes) -> Path:
    return store.folder / "followed" / ".notes" / notes.model / f"{notes.version or 'model'}.json"


def _file(store: ReleaseStore, name: str) -> Path:
    return store.folder / "followed" / f"{name}.json"
