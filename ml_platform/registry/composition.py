"""Composed endpoints as the release store keeps them: one document each, which serving watches.

    <folder>/compositions/<name>.json                   what is composed now; replaced atomically
    <folder>/compositions_history/<name>/<revision>.json  every document that ever was current

A document names its members by their endpoints and no versions: what a member's own endpoint document releases is what
answers for it here too.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.printable import check_text
from ml_platform.registry.manifest import Struct
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore, is_name
from ml_platform.registry.stored_documents import DocumentUnreadable, document_bytes, read_document

_REMEDY = "publish it again"
_ROUNDING = 1e-6  # of shares that add up to 1


class Ensemble(Struct, kw_only=True, frozen=True, tag="ensemble"):
    """The weighted mean of the members' scores."""

    members: dict[str, float]  # endpoint → share of the sum; they add up to 1
    threshold: float | None = None  # binary; the members' weighted mean when absent


class Step(Struct, kw_only=True, frozen=True):
    """One step of a pipeline."""

    model: str
    inputs: dict[str, tuple[str, str]]  # input → step and what it gives: "prediction" or "probability"


class Pipeline(Struct, kw_only=True, frozen=True, tag="pipeline"):
    """Steps in their order; what they give are inputs of later ones, and the last one answers."""

    steps: tuple[Step, ...]


class Rule(Struct, kw_only=True, frozen=True):
    """A segment: a portable expression, see `features.expressions.compile`, and who answers its rows."""

    when: str  # as it was declared
    tree: Any
    model: str


class Route(Struct, kw_only=True, frozen=True, tag="route"):
    """One member for each row."""

    default: str
    by: str | None = None  # input whose value decides
    values: tuple[tuple[str | int | bool, str], ...] = ()  # its values and who answers them
    rules: tuple[Rule, ...] = ()


class Composition(Struct, kw_only=True, frozen=True):
    """The document of a composed endpoint."""

    name: str
    revision: int
    description: str
    owner: str
    of: Ensemble | Pipeline | Route | None  # None: out of service
    updated_at: str
    updated_by: str
    reason: str

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return "retired" if self.of is None else type(self.of).__name__.lower()

    @property
    def members(self) -> tuple[str, ...]:
        """Endpoints that answer, each once, in their order."""
        if isinstance(self.of, Ensemble):
            return tuple(self.of.members)
        if isinstance(self.of, Pipeline):
            return tuple(step.model for step in self.of.steps)
        if isinstance(self.of, Route):
            named = [*(name for _, name in self.of.values), *(rule.model for rule in self.of.rules), self.of.default]
            return tuple(dict.fromkeys(named))
        return ()

    @property
    def digest(self) -> str:
        """SHA-256 of what it says of the answer: equal for equal compositions, whoever published them and when."""
        parts = (self.name, self.of)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


class CompositionStore:
    """The composed endpoints of a release store.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     CompositionStore(ReleaseStore(Path(folder))).all()
    {}
    """

    def __init__(self, releases: ReleaseStore) -> None:
        self._releases = releases
        self.folder = releases.folder / "compositions"

    def path(self, name: str) -> Path:
        """File that serving watches for a composed endpoint (raises ValueError for an invalid name)."""
        if not is_name(name):
            raise ValueError(
                f"name of a composed endpoint: wanted a lower-case letter, then letters, digits, _ or - (2 to 63 in "
                f"all), found {name[:80]!r}"
            )
        return self.folder / f"{name}.json"

    def get(self, name: str) -> Composition | None:
        """The newest document of a name, of one that is out of service too; None before the first.

        Raises
        ------
        DocumentUnreadable
            When it is damaged.
        """
        path = self.path(name)
        try:
            document = read_document(path, Composition, "a composed endpoint", _REMEDY)
        except FileNotFoundError:
            return None
        if document.name != name:
            raise DocumentUnreadable(f"{path}: this is the document of '{document.name}'; remove the file")
        if problem := _damage(document):
            raise DocumentUnreadable(f"{path}: not a composed endpoint ({problem}); {_REMEDY}")
        return document

    def all(self) -> dict[str, Composition]:
        """Every composed endpoint that is in service, by name; without those whose documents are damaged."""
        return self.readable()[0]

    def readable(self) -> tuple[dict[str, Composition], dict[str, str]]:
        """Every composed endpoint that is in service, by name, and why the documents of others cannot be read."""
        documents, unreadable = {}, {}
        for name in sorted(path.stem for path in self.folder.glob("*.json") if is_name(path.stem)):
            try:
                document = self.get(name)
            except (OSError, ValueError) as error:
                unreadable[name] = str(error)
                continue
            if document is not None and document.of is not None:
                documents[name] = document
        return documents, unreadable

    def history(self, name: str) -> Iterator[Composition]:
        """Every document that was published under a name, newest first, read one by one; damaged ones are left out."""
        self.path(name)
        for path in sorted((self._releases.folder / "compositions_history" / name).glob("*.json"), reverse=True):
            try:
                yield read_document(path, Composition, "a composed endpoint", "restore it from a backup")
            except (OSError, DocumentUnreadable):
                continue

    def publish(
        self,
        name: str,
        of: Ensemble | Pipeline | Route | None,
        *,
        description: str,
        owner: str,
        reason: str,
        by: str,
        expected_revision: int | None = None,
    ) -> Composition:
        """Let a composition answer from now on, or, where `of` is None, take it out of service.

        What is so already makes no revision: the present document is returned. Members are not looked at here, see
        `inference.composition.signature`.

        Raises
        ------
        ReleaseConflict
            When another revision is current than `expected_revision` (0: none yet).
        ValueError
            When a model or an endpoint has the name, the composition would lead back to itself, or the reason has
            control characters.
        """
        check_text(reason, "reason")
        path, locks = self.path(name), self._releases.folder / "locks"
        # The name's own lock is that which publishing an endpoint takes too. The other lets one composition at a time
        # be published: of two that name each other, the second is refused.
        with locked(locks / f"{name}.lock"), locked(locks / ".compositions.lock"):
            if name in self._releases.registered() or self._releases.document(name) is not None:
                raise ValueError(
                    f"'{name}' is the name of a model or an endpoint of one; give the composed endpoint another"
                )
            current, revision = self._current(name)
            if expected_revision is not None and expected_revision != revision:
                raise ReleaseConflict(
                    f"{name}: the change was based on revision {expected_revision}, but revision {revision} is current"
                )
            if current is not None and (current.of, current.description, current.owner) == (of, description, owner):
                return current
            document = Composition(
                name=name,
                revision=revision + 1,
                description=description,
                owner=owner,
                of=of,
                updated_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                updated_by=by,
                reason=reason,
            )
            if of is not None and (way := cycle(name, {**self.all(), name: document})):
                raise ValueError(f"composed endpoint '{name}': it leads back to itself: {' → '.join(way)}")
            content = document_bytes(document)
            # History first: a crash between the two writes leaves a document that the next publication overwrites.
            history = self._releases.folder / "compositions_history" / name
            replace_file(history / f"{document.revision:08d}.json", content)
            replace_file(path, content)
        return document

    def _current(self, name: str) -> tuple[Composition | None, int]:
        """The current document and its revision; of a damaged one, which is published over, only the latter."""
        try:
            current = self.get(name)
        except DocumentUnreadable:
            return None, max((one.revision for one in self.history(name)), default=0)
        return current, current.revision if current else 0


def _damage(document: Composition) -> str | None:
    """What is wrong with a document that somebody wrote by hand; None for nothing that can be told without members."""
    of = document.of
    if wrong := next((name for name in document.members if not is_name(name)), None):
        return f"{wrong[:80]!r} is not the name of an endpoint"
    if isinstance(of, Ensemble):
        return _ensemble_damage(of)
    if isinstance(of, Pipeline):
        outputs = {given for step in of.steps for _, given in step.inputs.values()}
        if len(of.steps) < 2 or len(document.members) != len(set(document.members)):
            return "wanted at least two steps, each of another endpoint"
        if unknown := outputs - {"prediction", "probability"}:
            return f"a step gives its prediction or its probability, not {', '.join(sorted(unknown))!r}"
    elif isinstance(of, Route) and ((of.by is None) == (not of.rules) or (of.by is None) != (not of.values)):
        return "wanted either an input with values, or rules"
    return None


def _ensemble_damage(of: Ensemble) -> str | None:
    if not of.members or not all(0 < share < math.inf for share in of.members.values()):
        return "wanted members with shares above 0"
    if abs(sum(of.members.values()) - 1) > _ROUNDING:
        return f"the members' shares add up to {sum(of.members.values()):g}, not 1"
    if of.threshold is not None and not 0 < of.threshold < 1:
        return f"wanted a threshold between 0 and 1, found {of.threshold:g}"
    return None


def cycle(name: str, compositions: Mapping[str, Composition]) -> tuple[str, ...]:
    """The way by which a composed endpoint leads back to itself; empty when it does not.

    Examples
    --------
    >>> made = {"updated_at": "", "updated_by": "", "reason": "", "description": "", "owner": "", "revision": 1}
    >>> both = {a: Composition(name=a, of=Ensemble(members={b: 1.0}), **made) for a, b in ("ab", "ba")}
    >>> cycle("a", both)
    ('a', 'b', 'a')
    """

    def follow(way: tuple[str, ...]) -> tuple[str, ...]:
        known = compositions.get(way[-1])
        for member in known.members if known else ():
            if member == name:
                return (*way, member)
            if member not in way and (closed := follow((*way, member))):
                return closed
        return ()

    return follow((name,))
