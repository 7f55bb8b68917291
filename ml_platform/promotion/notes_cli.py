"""Commands of `ml-platform models` for versions: show, describe, tag, comment, stage, archive, unarchive."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.version_notes import Notes, NoteWish

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(help="Version in the registry.")]
OfWhich = Annotated[int | None, typer.Argument(help="Version; the model as a whole when left out.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `ml-platform models`."""
    for command in (show, describe, tag, comment, stage, archive, unarchive):
        app.command()(command)


def show(model: Model, version: OfWhich = None) -> None:
    """List a model's versions with stage, quality and size; of one version, all that is recorded and was said.

    Example: ml-platform models show my_model 3
    """
    from ml_platform.promotion.version_text import model_lines, version_lines
    from ml_platform.registry.stored_documents import DocumentUnreadable

    store = _store()
    try:
        lines = model_lines(store, model) if version is None else version_lines(store, model, version)
    except (LookupError, ValueError, DocumentUnreadable) as error:
        stop(str(error))
    for line in lines:
        say(line)


def describe(
    model: Model, version: OfWhich = None, *, text: Annotated[str, typer.Option(help="What it is; '' takes it back.")]
) -> None:
    """Describe a version, or the model as a whole, in your own words; what is recorded of it stays beside them.

    Example: ml-platform models describe my_model 3 --text "With the carriers of the new contract."
    """
    from ml_platform.registry.version_notes import NoteWish

    _say_of(model, version, [NoteWish(action="description", text=text)])
    say(f"{_name(model, version)} is {'described' if text.strip() else 'described no more'}")


def tag(
    model: Model,
    version: OfWhich = None,
    *,
    to: Annotated[list[str] | None, typer.Option("--set", help="name=value. May be repeated.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Name of a tag to remove. May be repeated.")] = None,
) -> None:
    """Set or remove tags of a version, or of the model as a whole; without any, show those that there are.

    Example: ml-platform models tag my_model 3 --set risk=low --set reviewed-by=ann
    """
    from ml_platform.registry.version_notes import NoteWish

    wishes = []
    for word in to or []:
        name, equals, value = word.partition("=")
        if not equals:
            stop(f"--set: wanted name=value, found '{word}'")
        wishes.append(NoteWish(action="tag", name=name, text=value))
    wishes += [NoteWish(action="tag removed", name=name) for name in remove or []]
    notes = _say_of(model, version, wishes) if wishes else _read(model, version)
    for name, value in notes.tags.items():
        say(f"{name}={value}")
    if not notes.tags:
        say(f"{_name(model, version)} has no tags of people")


def comment(
    model: Model,
    version: OfWhich = None,
    *,
    text: Annotated[str | None, typer.Option(help="What to say; without, the comments are shown.")] = None,
    answer: Annotated[int | None, typer.Option(help="Number of the comment that it answers.")] = None,
) -> None:
    """Comment on a version, or on the model as a whole. Comments stay: none is changed or taken back.

    Example: ml-platform models comment my_model 3 --text "Errors on Sundays come from the timetable."
    """
    from ml_platform.promotion.version_text import comment_lines
    from ml_platform.registry.version_notes import NoteWish

    if text is None and answer is not None:
        stop("--answer wants --text with what to say")
    if text is None:
        notes = _read(model, version)
    else:
        notes = _say_of(model, version, [NoteWish(action="comment", text=text, answers=answer)])
    for line in comment_lines(notes):
        say(line)
    if not notes.comments:
        say(f"Nobody has commented on {_name(model, version)}")


def stage(
    model: Model,
    version: Version,
    to: Annotated[str, typer.Argument(help="Staging, Archived or None. Production is what serves: promote.")],
    reason: Reason,
) -> None:
    """Put a version into a stage. What serves is Production, and is changed by promote, traffic and rollback alone.

    Example: ml-platform models stage my_model 3 Staging --reason "to be tried next week"
    """
    _move(model, version, to, reason)


def archive(
    model: Model,
    version: Version,
    reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a rollback, a definition or another environment needs it.")
    ] = False,
) -> None:
    """Archive a version: it cannot be released until somebody unarchives it. Refused while anything uses it.

    Example: ml-platform models archive my_model 2 --reason "trained on wrong prices"
    """
    _move(model, version, "Archived", reason, force=force)


def unarchive(model: Model, version: Version, reason: Reason) -> None:
    """Take a version out of the archive: it may be released again."""
    from ml_platform.registry.stage_names import ARCHIVED

    notes = _read(model, version)
    if notes.stage is None or notes.stage.name != ARCHIVED:
        stop(
            f"{_name(model, version)} was not archived by anybody; to release it: ml-platform promote {model} {version}"
        )
    _move(model, version, "None", reason)


def _move(model: str, version: int, word: str, reason: str, *, force: bool = False) -> None:
    from ml_platform.registry.stage_names import ARCHIVED, stage_named
    from ml_platform.registry.stages import StageRefused, choose_stage, current_state

    store = _store()

    def change(by: str) -> "Notes":
        to = stage_named(word)
        if to == ARCHIVED and not force and (users := _users(store, model, version)):
            raise StageRefused(
                f"{_name(model, version)} cannot be archived: {'; '.join(users)}; --force does all the same"
            )
        return choose_stage(store, model, version, to, by=by, reason=reason, force=force)

    _change(model, change)
    say(f"{_name(model, version)} is {current_state(store, model).stages[version]}")


def _users(store: "ReleaseStore", model: str, version: int) -> list[str]:
    """What serves a version in another environment, or names it by its number."""
    from ml_platform.promotion.pinned import Pins
    from ml_platform.promotion.use_elsewhere import used_elsewhere

    return [*used_elsewhere(store, model, version), *Pins(Settings()).of(model, version)]


def _say_of(model: str, version: int | None, wishes: "Sequence[NoteWish]") -> "Notes":
    store = _store()

    def change(by: str) -> "Notes":
        store.check_version(model, version)
        return store.notes.add(model, version, wishes, by=by)

    return _change(model, change)


def _change(model: str, change: "Callable[[str], Notes]") -> "Notes":
    """Change something, and let ledger and MLflow follow; what they lack is made up for by the sensor."""
    from ml_platform.promotion.follow_notes import follow_notes
    from ml_platform.registry.stored_documents import DocumentUnreadable

    try:
        settings = Settings()
        notes = change(promoter(settings, model))
    except (LookupError, ValueError, DocumentUnreadable, MayNotPromote, EnvironmentUnknown) as error:
        stop(str(error))
    try:
        follow_notes(settings, model)
    except Exception as error:  # noqa: BLE001 - whatever keeps MLflow or the lake away, what was said is kept
        say(
            f"It is noted; ledger or MLflow could not follow: {error}. The sensor `registry_behind` makes up for it.",
            err=True,
        )
    return notes


def _read(model: str, version: int | None) -> "Notes":
    from ml_platform.registry.stored_documents import DocumentUnreadable

    store = _store()
    try:
        store.check_version(model, version)
        return store.notes.load(model, version)
    except (LookupError, ValueError, DocumentUnreadable) as error:
        stop(str(error))


def _store() -> "ReleaseStore":
    from ml_platform.registry.releases import ReleaseStore

    try:
        return ReleaseStore(Settings().releases_dir)
    except EnvironmentUnknown as error:
        stop(str(error))


def _name(model: str, version: int | None) -> str:
    return model if version is None else f"{model} version {version}"
