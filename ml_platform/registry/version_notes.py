"""What people say of a model and of its versions: descriptions, tags, comments, and the stage that they chose.

`notes/<model>/<version>.json` under the release store's folder (`model.json` for the model itself) is a list of events
that only grows: who said what, when. The present description, tags and stage are what the events come to.
`ml_platform.promotion.follow_notes` writes each event into the ledger and shows it in MLflow.

Imports no library but msgspec: serving depends on it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.printable import check_text
from ml_platform.registry.manifest import Struct
from ml_platform.registry.stage_names import ARCHIVED, STAGES, Stage
from ml_platform.registry.stored_documents import document_bytes, read_document

NoteAction = Literal["comment", "description", "tag", "tag removed", "stage"]
LONGEST_TEXT, LONGEST_VALUE = 4000, 500
MOST_TAGS = 100  # each is a line of the ledger and a call to MLflow
REPRODUCED_TAG = "reproduced"
_OF_MODEL = "model"
TAG_NAME = r"[A-Za-z][A-Za-z0-9_.-]{0,99}"
# Tags that the platform itself writes to MLflow: a person's tag of that name would say something else there.
RESERVED_TAGS = frozenset({
    "bundle", "bundle_digest", "code_version", "family", "gate", "judged_digest", "judged_trained_until",
    "model_digest", "owner", "stage", "task", "trained_until", "training_set", "training_set_version",
    "trained_until_stated", REPRODUCED_TAG,
})  # fmt: skip
RESERVED_PREFIXES = ("holdout_", "import_", "imported_", "mlflow.", "promoted_")


class Archived(ValueError):
    """A version may not serve, because a person archived it."""


class Note(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One thing that somebody said."""

    action: NoteAction
    by: str
    at: datetime
    text: str = ""  # the comment or description, a tag's value, or why the stage was chosen
    name: str = ""  # of the tag, or the stage
    answers: int | None = None  # number of the comment that this one answers


class NoteWish(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Something that somebody wants to say."""

    action: NoteAction
    text: str = ""
    name: str = ""
    answers: int | None = None


class Notes(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything that was said of a model, or of one version; comments are numbered from 1."""

    model: str
    version: int | None  # None: of the model as a whole
    events: tuple[Note, ...] = ()  # oldest first

    @property
    def description(self) -> str:
        """The newest description; empty without one."""
        return next((event.text for event in reversed(self.events) if event.action == "description"), "")

    @property
    def tags(self) -> dict[str, str]:
        """The present tags, by name."""
        tags: dict[str, str] = {}
        for event in self.events:
            if event.action == "tag":
                tags[event.name] = event.text
            elif event.action == "tag removed":
                tags.pop(event.name, None)
        return dict(sorted(tags.items()))

    @property
    def comments(self) -> dict[int, Note]:
        """Comments by number, oldest first."""
        return dict(enumerate((event for event in self.events if event.action == "comment"), 1))

    @property
    def thread(self) -> list[tuple[int, int, Note]]:
        """Comments as a thread: depth, number and comment, each answer below what it answers."""
        answers: dict[int | None, list[int]] = {}
        for number, comment in self.comments.items():
            answers.setdefault(comment.answers, []).append(number)
        ordered: list[tuple[int, int, Note]] = []
        waiting = [(0, number) for number in reversed(answers.get(None, []))]
        while waiting:
            depth, number = waiting.pop()
            ordered.append((depth, number, self.comments[number]))
            waiting += [(depth + 1, answer) for answer in reversed(answers.get(number, []))]
        return ordered

    @property
    def stage(self) -> Note | None:
        """The newest choice of a stage; None where nobody chose one."""
        return next((event for event in reversed(self.events) if event.action == "stage"), None)


class NoteStore:
    """The notes below a release store's folder. Whether there is such a model or version is for the caller to check.

    Examples
    --------
    >>> import tempfile
    >>> notes = NoteStore(Path(tempfile.mkdtemp()))
    >>> said = notes.add("rent", 1, [NoteWish(action="tag", name="risk", text="low")], by="ann")
    >>> said.tags, said.events[0].by
    ({'risk': 'low'}, 'ann')
    >>> notes.add("rent", 1, [NoteWish(action="comment", text=" ")], by="ann")
    Traceback (most recent call last):
    ValueError: comment: wanted some text, found none
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "notes"
        self._locks = folder / "locks"

    def load(self, model: str, version: int | None = None) -> Notes:
        """What was said of a model, or of a version; nothing where nobody said anything.

        Raises
        ------
        DocumentUnreadable
            When the file is damaged.
        """
        try:
            return read_document(self._path(model, version), Notes, "notes of people", "restore it from a backup")
        except FileNotFoundError:
            return Notes(model=model, version=version)

    def all(self, model: str | None = None) -> list[Notes]:
        """Everything that was said, by model and version, the model's own first."""
        paths = self._folder.glob(f"{model or '*'}/*.json")
        keys = sorted(
            (path.parent.name, int(path.stem) if path.stem.isdigit() else -1)
            for path in paths
            if path.stem.isdigit() or path.stem == _OF_MODEL
        )
        return [self.load(name, None if number < 0 else number) for name, number in keys]

    def chosen_stages(self, model: str) -> dict[int, Stage]:
        """Stages that people chose, by version."""
        return {
            notes.version: STAGES[notes.stage.name]
            for notes in self.all(model)
            if notes.version is not None and notes.stage is not None
        }

    def add(self, model: str, version: int | None, wishes: Sequence[NoteWish], *, by: str) -> Notes:
        """Say something; what says nothing new (the same tag again) is left out.

        Parameters
        ----------
        model, version
            Of which; None for the model as a whole.
        wishes
            What to say: all of it, or nothing where one of them is wrong.
        by
            Who says it.

        Raises
        ------
        LookupError
            When a comment answers one that does not exist, or a tag to be removed is not there.
        ValueError
            When a text is empty, too long or has control characters, a tag's name is invalid or the platform's own, or
            there are too many tags.
        """
        with locked(self._locks / f"{model}.notes.lock"):
            before = notes = self.load(model, version)
            for wish in wishes:
                _check(notes, wish)
                if _is_new(notes, wish):
                    event = Note(
                        action=wish.action,
                        by=by,
                        at=datetime.now(UTC),
                        text=wish.text.strip(),
                        name=wish.name,
                        answers=wish.answers,
                    )
                    notes = msgspec.structs.replace(notes, events=(*notes.events, event))
            if notes is not before:
                content = document_bytes(notes)
                replace_file(self._path(model, version), content)
            return notes

    def check(self, model: str, version: int | None, wish: NoteWish) -> None:
        """Check that something can be said (raises what `add` raises)."""
        _check(self.load(model, version), wish)

    @contextmanager
    def stages_alone(self, model: str) -> Iterator[None]:
        """Hold what stages depend on: nothing is released or archived meanwhile."""
        with locked(self._locks / f"{model}.stages.lock"):
            yield

    def check_not_archived(self, model: str, versions: Iterable[int]) -> None:
        """Check that none of these versions was archived by a person (raises Archived)."""
        for version in versions:
            stage = self.load(model, version).stage
            if stage is not None and stage.name == ARCHIVED:
                raise Archived(
                    f"{model} version {version} was archived by {stage.by} at {stage.at:%Y-%m-%d %H:%M} UTC "
                    f"({stage.text}), and may not serve; to take it out of the archive: ml-platform models unarchive "
                    f'{model} {version} --reason "…"'
                )

    def _path(self, model: str, version: int | None) -> Path:
        folder = self._folder / model
        if folder.parent != self._folder or model.startswith("."):
            raise ValueError(f"model name: wanted lower-case letters, digits, _ or -, found {model[:80]!r}")
        return folder / f"{_OF_MODEL if version is None else version}.json"


def _check(notes: Notes, wish: NoteWish) -> None:
    text, longest = wish.text.strip(), LONGEST_VALUE if wish.action == "tag" else LONGEST_TEXT
    if len(text) > longest:
        raise ValueError(f"{wish.action}: wanted at most {longest:,} characters, found {len(text):,}")
    check_text(text, wish.action)
    if wish.action == "comment" and not text:
        raise ValueError("comment: wanted some text, found none")
    if wish.action == "stage" and not text:
        raise ValueError("stage: a change wants a reason; it goes into the ledger")
    if wish.answers is not None and wish.answers not in notes.comments:
        numbers = ", ".join(map(str, notes.comments)) or "none"
        raise LookupError(f"there is no comment {wish.answers} to answer; there are {numbers}")
    if wish.action not in {"tag", "tag removed"}:
        return
    if not re.fullmatch(TAG_NAME, wish.name):
        raise ValueError(
            f"tag: wanted a name of a letter, then letters, digits, _ . or - (100 at most), found {wish.name[:80]!r}"
        )
    if wish.name in RESERVED_TAGS or wish.name.startswith(RESERVED_PREFIXES):
        raise ValueError(f"tag: '{wish.name}' is written by the platform; choose another name")
    if wish.action == "tag" and wish.name not in notes.tags and len(notes.tags) >= MOST_TAGS:
        raise ValueError(f"tag: wanted at most {MOST_TAGS} tags; remove one before '{wish.name}'")
    if wish.action == "tag removed" and wish.name not in notes.tags:
        raise LookupError(f"there is no tag '{wish.name}'; there are {', '.join(notes.tags) or 'none'}")


def _is_new(notes: Notes, wish: NoteWish) -> bool:
    text = wish.text.strip()
    match wish.action:
        case "description":
            return notes.description != text
        case "tag":
            return notes.tags.get(wish.name) != text
        case _:
            return True
