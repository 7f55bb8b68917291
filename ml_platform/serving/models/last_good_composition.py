"""Notes by which members a composed endpoint last answered, so that a server that starts can answer by them again."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.composition import Composition, CompositionStore
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.serving.models.composed import ComposedModel, leaves
from ml_platform.serving.models.slots import EndpointState, live_targets


class ComposedNote(msgspec.Struct, frozen=True):
    """A composition and what answered for its members, all the way down."""

    composition: Composition
    endpoints: dict[str, Endpoint]  # members that are models: their documents in force, without shadows
    composed: dict[str, "ComposedNote"]  # members that are composed themselves

    @classmethod
    def of(cls, model: ComposedModel) -> "ComposedNote":
        """Say what a snapshot is made of."""
        endpoints, composed = {}, {}
        for name, slot in model.sources.items():
            if isinstance(slot.served[0], ComposedModel):
                composed[name] = cls.of(slot.served[0])
            elif slot.endpoint is not None:
                endpoints[name] = without_shadows(slot.endpoint)
        return cls(model.composition, endpoints, composed)

    def revisions(self) -> dict[tuple[str, ...], int]:
        """The revision of each document, by the way to it."""
        own: dict[tuple[str, ...], int] = {(self.composition.name,): self.composition.revision}
        own |= {(self.composition.name, name): one.revision for name, one in self.endpoints.items()}
        inner = (one.revisions() for one in self.composed.values())
        return own | {(self.composition.name, *way): revision for ways in inner for way, revision in ways.items()}

    def documents(self) -> Iterator[Endpoint | Composition]:
        """Every document, a composition before its members."""
        yield self.composition
        yield from self.endpoints.values()
        for one in self.composed.values():
            yield from one.documents()


class LastGoodCompositions:
    """A note for each composed endpoint, in the home folder, of the newest snapshot that any server answered by.

    A server that starts while the members do not fit together answers by it, as one that runs keeps what it served.
    It is not used where one of its parts was taken out of service since, or where it is of another release store.
    """

    def __init__(self, folder: Path, store: ReleaseStore) -> None:
        self._folder = folder / "composed"
        self._store = store
        self._compositions = CompositionStore(store)

    def note(self, model: ComposedModel) -> None:
        """Note what answers, unless something newer did (raises OSError, ValueError)."""
        if any(one.lookups.unverified for one in leaves(model)):
            return
        note = ComposedNote.of(model)
        if self._read(model.name) == note:
            return
        with locked(self._folder / ".lock"):
            before, revisions = self._read(model.name), note.revisions()
            is_older = before is not None and any(
                revisions.get(way, revision) < revision for way, revision in before.revisions().items()
            )
            # Lower revisions are valid when the store was restored from a backup, but not from a worker that is late.
            if not is_older or all(self._is_newest(document) for document in note.documents()):
                replace_file(self._path(model.name), msgspec.json.encode(note))

    def get(self, name: str) -> ComposedNote | None:
        """What a composed endpoint may answer by while its newest documents do not fit; None for nothing.

        Raises
        ------
        OSError, ValueError
            When the note or the history cannot be read.
        """
        note = self._read(name) if is_name(name) else None
        if note is None or not all(self._still_holds(document) for document in note.documents()):
            return None
        return note

    def _is_newest(self, document: Endpoint | Composition) -> bool:
        newest = (
            self._compositions.get(document.name)
            if isinstance(document, Composition)
            else self._store.document(document.name)
        )
        return newest is not None and _stamp(newest) == _stamp(document)

    def _still_holds(self, document: Endpoint | Composition) -> bool:
        """Whether a document is one of this store, and nobody took the endpoint out of service since."""
        if isinstance(document, Composition):
            past = self._compositions.history(document.name)
            return _follows(document, ((one, one.of is not None) for one in past))
        return _follows(document, ((one, bool(one.targets)) for one in self._store.superseded(document.name, None)))

    def _read(self, name: str) -> ComposedNote | None:
        path = self._path(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=ComposedNote)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: not a note of what answered ({error}); delete it") from error

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def without_shadows(endpoint: Endpoint) -> Endpoint:
    """A document with the versions that answer only."""
    return msgspec.structs.replace(endpoint, targets=live_targets(endpoint))


def restore(
    note: ComposedNote,
    slots: Mapping[str, EndpointState],
    load: Callable[[Endpoint], EndpointState],
    build: Callable[[Composition, Mapping[str, EndpointState]], EndpointState],
) -> EndpointState:
    """Make the state of a note: members as they serve where that is what was noted, else loaded.

    Raises
    ------
    Exception
        Whatever loading a version or putting the members together raises.
    """
    members = {}
    for name, endpoint in note.endpoints.items():
        slot = slots.get(name)
        is_noted = slot is not None and slot.endpoint is not None and without_shadows(slot.endpoint) == endpoint
        members[name] = slot if slot is not None and slot.served and is_noted else load(endpoint)
    for name, inner in note.composed.items():
        members[name] = restore(inner, slots, load, build)
    return build(note.composition, members)


def _follows(document: Endpoint | Composition, past: Iterator[tuple[Endpoint | Composition, bool]]) -> bool:
    """Whether a document is among those of the past, newest first, and none that is newer is out of service."""
    for one, is_in_service in past:
        if _stamp(one) == _stamp(document):
            return True
        if not is_in_service or one.revision < document.revision:
            return False
    return False


def _stamp(document: Endpoint | Composition) -> tuple[int, str]:
    return document.revision, document.updated_at
