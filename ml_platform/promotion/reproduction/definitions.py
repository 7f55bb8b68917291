"""What of a project's definitions is another than when a version was trained, key by key and line by line."""

import difflib
import json
from collections.abc import Iterator
from typing import Any

from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.reproductions import Check
from ml_platform.training.recipe import Recipe, family_sources

_LINES = 40  # of a text's changes that are shown


def changed_definitions(recipe: Recipe, now: DeclaredModel) -> tuple[Check, ...]:
    """Compare a recipe with the project as it is; empty where nothing of the model changed."""
    return tuple(_changes(recipe, now))


def _changes(recipe: Recipe, now: DeclaredModel) -> Iterator[Check]:
    recorded, declared = _flat(recipe.spec), _flat(now.spec.model_dump(mode="json"))
    for key in sorted({*recorded, *declared}):
        if recorded.get(key) != declared.get(key):
            yield _differs(f"defs.yaml: {key}", _said(recorded.get(key)), _said(declared.get(key)))
    yield from _text(now.spec.spine, recipe.spine, _read(now, now.spec.spine))
    if recipe.request_features is not None or now.spec.request_features:
        name = now.spec.request_features or str(recipe.spec.get("request_features"))
        yield from _text(name, recipe.request_features, _read(now, now.spec.request_features))
    for name, view in recipe.feature_views().items():
        present = now.views.get(name)
        if present is None:
            yield _differs(f"feature view {name}", view.hash[:12], "gone")
        elif present.hash != view.hash:
            detail = _diff(view.sql or view.code, present.sql or present.code)
            yield _differs(f"feature view {name}", view.hash[:12], present.hash[:12], detail)
    sources = family_sources(now.spec)
    for name, digest in recipe.family_sources.items():
        if sources.get(name) != digest:
            yield _differs(f"family {name}", digest[:12], sources.get(name, "not declared")[:12])


def _read(now: DeclaredModel, name: str | None) -> str | None:
    path = now.folder / name if name else None
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else None


def _text(name: str, recorded: str | None, found: str | None) -> Iterator[Check]:
    if recorded != found:
        lines = [f"{len(text.splitlines())} lines" if text is not None else "none" for text in (recorded, found)]
        yield _differs(name, lines[0], lines[1], _diff(recorded or "", found or ""))


def _diff(recorded: str, found: str) -> str:
    lines = list(difflib.unified_diff(recorded.splitlines(), found.splitlines(), "recorded", "now", lineterm="", n=0))
    more = [f"… {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of nested mappings by its path; lists are leaves, except those of named things."""
    if isinstance(value, dict) and value:
        parts = [_flat(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        parts = [_flat(item, f"{path}[{item['name'] or number}]") for number, item in enumerate(value)]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def _said(value: Any) -> str:
    return "absent" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)


def _differs(what: str, recorded: str, found: str, detail: str = "") -> Check:
    return Check(what=what, recorded=recorded, found=found, equal=False, detail=detail)
