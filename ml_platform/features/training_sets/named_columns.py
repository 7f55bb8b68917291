"""Checks every key of a model's YAML that names a column: a misspelt one is told when definitions load, with its line.

What the spine's query itself gives is known only where its tables are declared, and is checked there
(`ml_platform.orchestration.spine_check`). Everything here follows from the YAML, the request features and the views.
"""

from collections.abc import Collection, Iterator, Mapping

import polars as pl

from ml_platform.features.expressions.request_features import RequestFeature, derived_types
from ml_platform.features.point_in_time.lookup import feature_column
from ml_platform.features.training_sets.build import feature_infos
from ml_platform.features.views.view import FeatureView
from ml_platform.spec.guardrails import Columns, columns_of_set
from ml_platform.spec.input_rules import FieldType
from ml_platform.spec.model import SCORE_COLUMNS, ModelSpec
from ml_platform.spec.promotion import BLOCK_UNITS
from ml_platform.yaml_documents import Document, Location, SpecProblem, nearest, unknown

_ID_TYPES = ("string", "integer")  # of which a value has one spelling


def column_problems(
    document: Document, spec: ModelSpec, derived: Mapping[str, RequestFeature] | None, views: Mapping[str, FeatureView]
) -> Iterator[SpecProblem]:
    """Mistakes in the keys that name columns: unknown names, and one column for what must be two.

    Parameters
    ----------
    document
        The model's YAML, for lines.
    spec
        The model.
    derived
        Its request features; None if they cannot be read, so that nobody can say which columns there are.
    views
        Feature views by name, among them all that are looked up.
    """
    yield from _roles(document, spec)
    if derived is None:
        return
    if mistakes := list(_request_features(document, spec, derived)):
        yield from mistakes
        return
    types = {**{field.name: field.type for field in spec.inputs}, **derived_types(spec.inputs, derived)}
    if spec.timestamp in derived and types[spec.timestamp] != "timestamp":
        message = f"the request feature '{spec.timestamp}' is a {types[spec.timestamp]}, a timestamp is wanted"
        yield document.problem(("attributes", "timestamp"), message)
    yield from _lookups(document, spec, types, views)
    yield from _groups(document, spec, derived, views)


def _roles(document: Document, spec: ModelSpec) -> Iterator[SpecProblem]:
    """One column in two parts, and inputs of a type that their part cannot have."""
    for key in ("id", "timestamp", "label_available_at"):
        if getattr(spec, key) == spec.target:
            message = f"'{spec.target}' is the target, which is known only afterwards; name another column"
            yield document.problem(("attributes", key), message)
    for index, field in enumerate(spec.inputs):
        location: Location = ("attributes", "inputs", index)
        if field.name == spec.target:
            message = (
                f"'{field.name}' is the target, which no request can know; leave it out. Labels of earlier rows come "
                "from a feature view, with the instant from which they were known as its event_time"
            )
            yield document.problem((*location, "name"), message)
        elif field.name in {spec.timestamp, spec.label_available_at} and field.type != "timestamp":
            key = "timestamp" if field.name == spec.timestamp else "label_available_at"
            message = f"'{field.name}' is the `{key}`, so its type is timestamp, not {field.type}"
            yield document.problem((*location, "type"), message)
        elif field.name == spec.id and field.type not in _ID_TYPES:
            message = (
                f"'{field.name}' is the id, by whose text labels find their scores, and a {field.type} has more than "
                "one spelling; declare a string or an integer"
            )
            yield document.problem((*location, "type"), message)


def _request_features(
    document: Document, spec: ModelSpec, derived: Mapping[str, RequestFeature]
) -> Iterator[SpecProblem]:
    """Request features with the name of another column, or of columns that a request does not bring."""
    place: Location = ("attributes", "request_features")
    known = [field.name for field in spec.inputs]
    uses = {spec.id: "the id", spec.target: "the target", spec.label_available_at: "`label_available_at`"}
    uses |= dict.fromkeys(known, "an input")
    for name, feature in derived.items():
        if name in uses:
            yield document.problem(place, f"'{name}' is {uses[name]}; give the request feature another name")
        elif name in SCORE_COLUMNS:
            yield document.problem(place, f"'{name}' is a column of the scores' own; give it another name")
        for column in feature.expression.meta.root_names():
            if column == spec.target:
                message = f"'{name}' is computed from the target '{column}', which no request can know"
                yield document.problem(place, message)
            elif column not in known:
                message = f"'{name}': {unknown(column, known, what='input or earlier request feature')}"
                yield document.problem(place, message)
        known.append(name)
    try:
        derived_types(spec.inputs, derived)
    except (pl.exceptions.PolarsError, ValueError) as error:
        if set(known) >= {column for one in derived.values() for column in one.expression.meta.root_names()}:
            yield document.problem(place, str(error).partition("\n")[0])


def _lookups(
    document: Document, spec: ModelSpec, types: Mapping[str, FieldType], views: Mapping[str, FeatureView]
) -> Iterator[SpecProblem]:
    """Keys that a view does not have or a request does not bring, and features with the name of another column."""
    for index, lookup in enumerate(spec.lookups):
        view, location = views[lookup.view], ("attributes", "lookups", index)
        for column, name in lookup.keys.items():
            if column not in view.entity:
                message = unknown(column, view.entity, what=f"entity column of {view.name}")
                yield document.problem((*location, "keys", column), message)
            elif name not in types:
                yield document.problem((*location, "keys", column), _no_key(name, types, spec))
        for column in view.entity:
            if column not in lookup.keys and column not in types:
                message = (
                    f"{view.name} is looked up by '{column}', which is no input and no request feature; say which of "
                    f"those has it (keys: {{{column}: …}})"
                )
                yield document.problem((*location, "keys"), message)
        if lookup.knowledge_time and view.created is None:
            message = f"{view.name} has no `created` column, the instant at which a row was written; leave it out"
            yield document.problem((*location, "knowledge_time"), message)
        for name in lookup.features or view.columns:
            if (column := feature_column(lookup.alias, name)) in {*types, spec.target, spec.id}:
                message = f"'{column}' is another column's name too; give the look-up a `name` of its own"
                yield document.problem(location, message)


def _no_key(name: str, types: Collection[str], spec: ModelSpec) -> str:
    why = "is the target, which no request can know" if name == spec.target else "is no input and no request feature"
    return f"'{name}' {why}, and a request looks up by those{nearest(name, types)} Allowed: {', '.join(sorted(types))}"


def _groups(
    document: Document, spec: ModelSpec, derived: Mapping[str, RequestFeature], views: Mapping[str, FeatureView]
) -> Iterator[SpecProblem]:
    """Columns of the training set that the gate, the search for leaks and the families' constraints name."""
    infos = feature_infos(spec, derived, views)
    features = [info.name for info in infos]
    own = [spec.id, spec.timestamp, spec.label_available_at, *(field.name for field in spec.inputs)]
    columns = dict.fromkeys([*own, *features])
    label = "is the target itself, whose groups say nothing of the rows; name a column that is known before"
    fairness = spec.promotion.guardrails.fairness
    named: dict[Location, Columns] = {
        ("attributes", "promotion", "slices"): spec.promotion.slices,
        ("attributes", "promotion", "guardrails", "fairness", "columns"): fairness.columns if fairness else (),
    }
    for location, sets in named.items():
        for index, one in enumerate(sets):
            for place, name in enumerate(columns_of_set(one)):
                if name not in columns:
                    what = "column of the training set"
                    message = f"'{name}' {label}" if name == spec.target else unknown(name, columns, what=what)
                    inner = () if isinstance(one, str) else (place,)
                    yield document.problem((*location, index, *inner), message)
    block = spec.promotion.block
    if block not in BLOCK_UNITS and block not in columns:
        what = "unit or column of the training set"
        message = f"'{block}' {label}" if block == spec.target else unknown(block, [*BLOCK_UNITS, *columns], what=what)
        yield document.problem(("attributes", "promotion", "block"), message)
    for index, name in enumerate(spec.leakage.allow):
        if name not in features:
            yield document.problem(("attributes", "leakage", "allow", index), unknown(name, features, what="feature"))
    numeric = [info.name for info in infos if info.kind == "numeric"]
    for index, name in enumerate(spec.promotion.baseline):
        if name not in numeric:
            message = unknown(name, numeric, what="numeric feature")
            yield document.problem(("attributes", "promotion", "baseline", index), message)
    for name in spec.monotone:
        if name not in numeric:
            yield document.problem(("attributes", "monotone", name), unknown(name, numeric, what="numeric feature"))
