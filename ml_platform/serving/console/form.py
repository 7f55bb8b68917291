"""The form of a model: a field for each input of its signature, filled in with the owner's example."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.registry.manifest import Input, Manifest
from ml_platform.serving.openapi.predictions import example_row
from ml_platform.spec.input_rules import rules_of

_CONTROLS = {
    "string": "text",
    "integer": "number",
    "number": "number",
    "boolean": "select",
    "timestamp": "datetime-local",
}


@dataclass(frozen=True, slots=True)
class FormField:
    """One control."""

    name: str
    type: str  # of the signature
    control: str  # type of the HTML input, or "select"
    description: str
    unit: str | None
    required: bool
    value: str
    attributes: Mapping[str, Any]  # of the HTML input, which enforces them
    choices: tuple[str, ...]  # the only values of a select; suggestions of other controls
    when_empty: str  # what it shows when it is left empty
    hint: str  # shown beside the description


def form_fields(manifest: Manifest) -> list[FormField]:
    """Fields in the order of the signature; what the contract only flags can be entered."""
    example = example_row(manifest)
    known = {feature.name: feature.categories or () for feature in manifest.features if feature.source == "input"}
    return [form_field(field, example.get(field.name), known.get(field.name, ())) for field in manifest.inputs]


def form_field(field: Input, example: Any, known: tuple[str, ...] = ()) -> FormField:
    """The control of one field, filled with an example; `known` are values that are suggested."""
    choices = known if field.type == "string" else ()
    control = _CONTROLS[field.type]
    attributes: dict[str, Any] = {}
    if field.type == "boolean":
        choices = ("true", "false")
    for rule in rules_of(field):
        choices = choices if rule.literals is None else tuple(map(str, rule.literals))
        if rule.kind not in field.flagged:
            control = control if rule.literals is None else "select"
            attributes |= rule.form_attributes()
    return FormField(
        name=field.name,
        type=field.type,
        control=control,
        description=field.description,
        unit=field.unit,
        required=field.required,
        value=_text(field, example),
        attributes=attributes,
        choices=choices,
        when_empty="none" if field.default is None else f"{_text(field, field.default)} by default",
        hint=_hint(field, choices),
    )


def _hint(field: Input, choices: tuple[str, ...]) -> str:
    rules = rules_of(field)
    parts = [f"{rule.hint()}, flagged otherwise" for rule in rules if rule.kind in field.flagged]
    parts += [rule.hint() for rule in rules if rule.kind not in field.flagged and rule.literals is None]
    if field.type == "string" and choices and all(rule.literals is None for rule in rules):
        parts.append(f"{len(choices)} known values")
    if not field.required:
        if field.default is not None:
            parts.append(f"optional, {_text(field, field.default)} when empty")
        else:
            parts.append("optional, flagged when empty" if "null" in field.flagged else "optional")
    return ", ".join(parts)


def _text(field: Input, value: Any) -> str:
    """A value as its control takes it."""
    if value is None:
        return ""
    if field.type == "boolean":
        return "true" if value else "false"
    if field.type == "timestamp":
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return str(value)
