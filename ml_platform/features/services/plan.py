"""How a view or a service is looked up: the fields of a request, the keys made of them, and the names of the values.

Serving depends on it: no Dagster, Polars or lake.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ml_platform.features.expressions.compile import evaluator
from ml_platform.features.online.store import Definition, OnlineStore
from ml_platform.registry.feature_services import FeatureService, ServedView
from ml_platform.registry.manifest import Derived, Input

_LONGEST = 2**62  # microseconds of a TTL that can be taken from an instant in 64 bits


class NotServable(RuntimeError):
    """A view or service cannot be answered for as the online store is now; the message says why and what to do."""


class DefinitionMoved(RuntimeError):
    """Rows of another definition were read than the plan was made for: make it anew."""


@dataclass(frozen=True, slots=True)
class PlannedView:
    """How one view is looked up."""

    name: str  # what the answer calls it
    view: str
    view_hash: str
    keys: tuple[str, ...]  # fields or request features, in the order of the view's entity
    features: tuple[str, ...]  # as the view calls them
    columns: tuple[str, ...]  # as the answer calls them
    ttl_seconds: float | None  # None: unlimited
    is_streamed: bool = False

    @property
    def ttl(self) -> int | None:
        """TTL in microseconds; None for none."""
        return None if self.ttl_seconds is None else min(round(self.ttl_seconds * 1e6), _LONGEST)


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """How a view or service is looked up, by the definitions that are in the online store.

    Attributes
    ----------
    name
        What is asked for.
    service
        The published service; None for a view.
    fields
        What a request has.
    nullable
        Fields that have to be sent and may be null: keys that no input declares.
    views
        How each view is looked up.
    derived
        Request features, in the order in which they are computed.
    is_keyed_by_derived
        Whether some view's key is a request feature, so that they are computed for every request.
    """

    name: str
    service: FeatureService | None
    fields: tuple[Input, ...]
    nullable: frozenset[str]
    views: tuple[PlannedView, ...]
    derived: tuple[tuple[str, Callable[[Mapping[str, Any]], Any]], ...] = ()
    is_keyed_by_derived: bool = False

    def derive(self, row: dict[str, Any]) -> None:
        """Add the request features to a row of fields (raises ValueError, ArithmeticError where they have no value)."""
        for name, compute in self.derived:
            row[name] = compute(row)


def stored_definitions(store: OnlineStore, views: Iterable[str]) -> dict[str, Definition]:
    """Definitions of some views in the online store; those that it does not have are left out."""
    definitions = {view: store.definition(view) for view in views}
    return {view: definition for view, definition in definitions.items() if definition is not None}


def plan_view(name: str, definition: Definition) -> LookupPlan:
    """Plan the look-up of all features of one view, under the view's own names.

    Raises
    ------
    NotServable
        When the store does not know the view's columns.
    """
    schema = _schema(name, definition)
    ttl = schema.ttl_seconds
    if ttl is msgspec.UNSET:
        raise NotServable(f"the online store does not know the TTL of '{name}': materialise online/{name} again")
    features = tuple(column.name for column in schema.columns)
    keys = tuple(field.name for field in schema.entity)
    view = PlannedView(name, name, definition.hash, keys, features, features, ttl, schema.streamed)
    return LookupPlan(name, None, schema.entity, frozenset(keys), (view,))


def plan_service(service: FeatureService, definitions: Mapping[str, Definition]) -> LookupPlan:
    """Plan the look-up of a service.

    Raises
    ------
    NotServable
        When a view is not in the store, lacks a feature or has another key; when two views want one field to be of
        different types; or when the service is pinned, and a view has another definition.
    """
    inputs = {field.name: field for field in service.inputs}
    derived = {feature.name for feature in service.derived}
    implied: dict[str, Input] = {}
    views = []
    for one in service.views:
        definition = definitions.get(one.view)
        if definition is None:
            raise NotServable(f"'{one.view}' is not in the online store: materialise online/{one.view}")
        views.append(_planned(service, one, definition))
        for field in _schema(one.view, definition).entity:
            wanted = one.keys[field.name]
            if wanted in inputs:
                _check_type(service, wanted, inputs[wanted], field)
            elif wanted not in derived:
                implied[wanted] = _merged(service, implied.get(wanted), msgspec.structs.replace(field, name=wanted))
    return LookupPlan(
        name=service.name,
        service=service,
        fields=(*implied.values(), *service.inputs),
        nullable=frozenset(implied),
        views=tuple(views),
        derived=tuple((feature.name, evaluator(feature.tree)) for feature in service.derived),
        is_keyed_by_derived=any(key in derived for view in views for key in view.keys),
    )


def plain_names(plan: LookupPlan) -> dict[str, str]:
    """The view's own name of each feature by the answer's, where it stands for nothing else of the request or answer.

    Examples
    --------
    >>> one = PlannedView("here", "weather", "1f", ("a",), ("temp", "wind"), ("here__temp", "here__wind"), None)
    >>> two = PlannedView("there", "weather", "1f", ("b",), ("temp",), ("there__temp",), None)
    >>> plain_names(LookupPlan("board", None, (), frozenset(), (one, two)))
    {'here__wind': 'wind'}
    """
    taken = [field.name for field in plan.fields] + [name for name, _ in plan.derived]
    taken += [feature for view in plan.views for feature in view.features]
    return {
        column: feature
        for view in plan.views
        for feature, column in zip(view.features, view.columns, strict=True)
        if taken.count(feature) == 1
    }


def derived_inputs(derived: Sequence[Derived]) -> list[dict[str, Any]]:
    """Describe request features: name, type, unit, description."""
    return [{"name": one.name, "type": one.type, "unit": one.unit, "description": one.description} for one in derived]


def _planned(service: FeatureService, one: ServedView, definition: Definition) -> PlannedView:
    schema = _schema(one.view, definition)
    again = f"publish the service again (`ml-platform features publish {service.name}`)"
    if service.pinned and definition.hash != one.view_hash:
        raise NotServable(
            f"'{one.view}' is {definition.hash[:12]} in the online store, '{service.name}' is pinned to "
            f"{one.view_hash[:12]}: {again}, or materialise online/{one.view} from that definition"
        )
    entity = {field.name for field in schema.entity}
    if entity != one.keys.keys():
        raise NotServable(
            f"'{one.view}' is looked up by {', '.join(sorted(entity))} now, by {', '.join(sorted(one.keys))} when "
            f"'{service.name}' was published: {again}"
        )
    if lacking := sorted(set(one.features) - {column.name for column in schema.columns}):
        raise NotServable(f"'{one.view}' has no feature {', '.join(lacking)} any more: {again}")
    ttl = one.ttl_seconds if schema.ttl_seconds is msgspec.UNSET else schema.ttl_seconds
    return PlannedView(
        name=one.name,
        view=one.view,
        view_hash=definition.hash,
        keys=tuple(one.keys[field.name] for field in schema.entity),
        features=one.features,
        columns=tuple(f"{one.name}__{feature}" for feature in one.features),
        ttl_seconds=ttl,
        is_streamed=schema.streamed,
    )


def _schema(view: str, definition: Definition) -> Any:
    if definition.schema is None:
        raise NotServable(
            f"the online store does not know the columns of '{view}': materialise online/{view} again; its entity "
            "columns must be text, whole numbers, booleans or timestamps"
        )
    return definition.schema


def _check_type(service: FeatureService, name: str, declared: Input, key: Input) -> None:
    if declared.type != key.type:
        raise NotServable(
            f"'{service.name}' declares its input '{name}' as {declared.type}, the view's key is {key.type}: declare "
            "it so, and publish the service again"
        )


def _merged(service: FeatureService, known: Input | None, field: Input) -> Input:
    """One field for the keys of several views; bounds of their column's type only where all have the same."""
    if known is None or known == field:
        return field
    _check_type(service, field.name, known, field)
    return Input(name=field.name, type=field.type)
