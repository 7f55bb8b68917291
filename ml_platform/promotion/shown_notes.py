"""Shows in MLflow what people said: their tags as tags, their description and comments below what was recorded."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ml_platform.registry.version_notes import Notes

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BELOW = "\n\n---\n\n**Said by people**"


def recorded_part(description: str | None) -> str:
    """What MLflow's description has from the registration, without what people said since.

    Examples
    --------
    >>> recorded_part(with_notes("A ridge model.", Notes(model="rent", version=1)))
    'A ridge model.'
    """
    return (description or "").partition(_BELOW)[0]


def with_notes(recorded: str, notes: Notes) -> str:
    """The recorded description, and below it what people said."""
    parts = [notes.description] if notes.description else []
    comments = [
        f"- {number}. {comment.at:%Y-%m-%d %H:%M} UTC, {comment.by}"
        f"{f', to {comment.answers}' if comment.answers else ''}: {' '.join(comment.text.split())}"
        for number, comment in notes.comments.items()
    ]
    if comments:
        parts.append("\n".join(comments))
    return "\n\n".join([recorded + _BELOW, *parts]) if parts else recorded


def show_notes(client: "MlflowClient", notes: Notes, tags: Mapping[str, str], description: str | None) -> Iterator[str]:
    """Set tags and description in MLflow to what people said; yields what was changed, in words.

    Parameters
    ----------
    client
        Client of the registry.
    notes
        Of a model, or of a version.
    tags, description
        As MLflow has them.
    """
    model, version = notes.model, notes.version
    what = "the model" if version is None else f"version {version}"
    for name, value in notes.tags.items():
        if tags.get(name) != value:
            if version is None:
                client.set_registered_model_tag(model, name, value)
            else:
                client.set_model_version_tag(model, str(version), name, value)
            yield f"{what}: tag {name}"
    removed = {event.name for event in notes.events if event.action == "tag removed"} - notes.tags.keys()
    for name in sorted(removed & tags.keys()):
        if version is None:
            client.delete_registered_model_tag(model, name)
        else:
            client.delete_model_version_tag(model, str(version), name)
        yield f"{what}: tag {name} removed"
    wanted = with_notes(recorded_part(description), notes)
    if wanted != (description or ""):
        if version is None:
            client.update_registered_model(model, description=wanted)
        else:
            client.update_model_version(model, str(version), wanted)
        yield f"{what}: description and comments"
