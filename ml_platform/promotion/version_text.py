"""Versions of a model for a terminal: a table of all, and everything that is recorded and was said of one."""

from ml_platform.registry.recorded_comparison import fact_rows
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stages import current_state
from ml_platform.registry.version_facts import VersionFacts, all_facts, facts_of
from ml_platform.registry.version_notes import Notes

_HEAD = ("version", "stage", "aliases", "metric", "trained until", "family", "size", "serving")


def model_lines(store: ReleaseStore, model: str) -> list[str]:
    """A table of a model's versions, the newest first, below what people said of the model as a whole.

    Raises
    ------
    LookupError
        When it has no registered version.
    """
    rows = [_HEAD, *(_row(facts) for facts in reversed(all_facts(store, model)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    said = notes_lines(store.notes.load(model))
    return [model, *said, *([""] if said else []), *table]


def version_lines(store: ReleaseStore, model: str, version: int) -> list[str]:
    """What is recorded of a version, and what people said (raises LookupError for one that is not registered)."""
    facts = facts_of(store, model, version, current_state(store, model))
    notes = store.notes.load(model, version)
    rows = [(name, values[0]) for _, part in fact_rows([facts]) for name, values in part]
    width = max(len(name) for name, _ in rows)
    return [
        f"{model} version {version}: {facts.stage}" + (f", {facts.serving}" if facts.serving else ""),
        *notes_lines(notes),
        "",
        *(f"{name:<{width}}  {value}" for name, value in rows),
        *(f"Not known: {reason}" for reason in facts.missing),
    ]


def notes_lines(notes: Notes) -> list[str]:
    """What people said: description, tags, the stage that they chose, comments."""
    lines = notes.description.splitlines()
    if notes.tags:
        lines.append("tags: " + ", ".join(f"{name}={value}" for name, value in notes.tags.items()))
    if (stage := notes.stage) is not None:
        lines.append(f"{stage.name} by {stage.by}, {stage.at:%Y-%m-%d %H:%M} UTC: {stage.text}")
    return [*lines, *comment_lines(notes)]


def comment_lines(notes: Notes) -> list[str]:
    """Comments, each with its number, who and when; the answers to one below it."""
    lines = []
    for depth, number, comment in notes.thread:
        indent = "  " * depth
        lines.append(f"{indent}{number}. {comment.by}, {comment.at:%Y-%m-%d %H:%M} UTC")
        lines.extend(f"{indent}   {line}" for line in comment.text.splitlines())
    return lines


def _row(facts: VersionFacts) -> tuple[str, ...]:
    value = facts.metrics.get(facts.metric or "")
    return (
        str(facts.version),
        facts.stage,
        ", ".join(facts.aliases),
        f"{facts.metric} {value:.4f}" if value is not None else "–",
        (facts.trained_until or "–")[:10],
        facts.family or "–",
        f"{facts.bundle_bytes / 1000:,.0f} kB" if facts.bundle_bytes else "no bundle",
        facts.serving,
    )
