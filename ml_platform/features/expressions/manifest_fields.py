"""Inputs and request features as a manifest or a published feature service keeps them, made of their declarations."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ml_platform.features.expressions.compile import compile_tree
from ml_platform.features.expressions.request_features import RequestFeature, derived_types
from ml_platform.registry.manifest import Derived, Input
from ml_platform.spec.input_rules import Violated, rule_values, rules_of
from ml_platform.spec.inputs import InputField


def manifest_input(field: InputField, example: Any = None) -> Input:
    """Make a declared input; `example` is shown where the declaration has none."""
    declared = field.example
    if isinstance(declared, datetime):
        declared = declared.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return Input(
        name=field.name,
        type=field.type,
        description=field.description,
        unit=field.unit,
        example=declared if declared is not None else example,
        required=field.rejects_null,
        default=field.default,
        flagged=_flagged(field),
        **rule_values(field),
    )


def manifest_features(inputs: tuple[InputField, ...], features: Mapping[str, RequestFeature]) -> tuple[Derived, ...]:
    """Make request features of their expressions (raises ValueError for one of another type than features have)."""
    types = derived_types(inputs, features)
    return tuple(
        Derived(
            name=name,
            type=types[name],
            tree=compile_tree(feature.expression),
            description=feature.description,
            unit=feature.unit,
        )
        for name, feature in features.items()
    )


def _flagged(field: InputField) -> tuple[Violated, ...]:
    """Which violations of a field's contract are flagged instead of refused."""
    nulls: list[Violated] = ["null"] if field.nulls == "flag" else []
    return (*nulls, *(rule.kind for rule in rules_of(field) if field.on_violation == "flag"))
