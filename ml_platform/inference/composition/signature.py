"""What a composed endpoint takes and gives, worked out from its members' manifests; and whether they fit together."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast

import msgspec

from ml_platform.features.expressions.compile import columns_of
from ml_platform.registry.composition import Composition, Ensemble, Pipeline, Route, Step
from ml_platform.registry.manifest import InferenceLogPolicy, Input, Manifest, Provenance
from ml_platform.registry.version_inputs import differs

_VALUES = {"string": str, "integer": int, "boolean": bool}  # of inputs by which a map can route


class CompositionRefused(ValueError):
    """Members do not fit together; `problems` has every reason."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"composed endpoint '{name}': " + "; ".join(problems))


def composed_manifest(
    composition: Composition,
    members: Mapping[str, Manifest],
    versions: Mapping[str, Mapping[int, Manifest]] = MappingProxyType({}),
) -> Manifest:
    """Make the manifest of a composed endpoint, by which it is described and its rows are decoded.

    Its inputs are those of all members. A value is checked by every member that reads it, by its own contract.

    Parameters
    ----------
    members
        Manifest of each member, as it answers now.
    versions
        Manifests of all the versions that share a member's traffic, where there are several: each has to fit, and
        what one may not log is not logged.

    Raises
    ------
    CompositionRefused
        When tasks, classes, inputs or types do not fit together.
    """
    of, names = composition.of, composition.members
    assert of is not None
    manifests = {name: members[name] for name in names}
    produced = {step.model: set(step.inputs) for step in of.steps} if isinstance(of, Pipeline) else {}
    problems: list[str] = []
    inputs = _union(manifests, produced, is_route=isinstance(of, Route), problems=problems)
    if isinstance(of, Pipeline):
        problems += _pipeline_problems(of, manifests)
    else:
        problems += _unlike_answers(manifests)
    if isinstance(of, Route):
        problems += _route_problems(of, {field.name: field for field in inputs})
    for name, each in versions.items():
        problems += _unlike_versions(composition, name, each, manifests)
    ids = {one.id for one in manifests.values()} - {None}
    if len(ids) > 1:
        problems.append(
            f"members name rows by different inputs: {', '.join(sorted(map(str, ids)))}; give them the same `id`"
        )
    if problems:
        raise CompositionRefused(composition.name, problems)
    answering = manifests[names[-1]] if isinstance(of, Pipeline) else manifests[names[0]]
    return Manifest(
        model=composition.name,
        model_digest=composition.digest,
        task=answering.task,
        description=composition.description,
        owner=composition.owner,
        family=composition.kind,
        id=next(iter(ids), None),
        as_of=None,
        inputs=inputs,
        derived=(),
        lookups=(),
        features=(),
        classes=answering.classes,
        threshold=_threshold(of, manifests) if answering.task == "binary" else None,
        threshold_choice=_threshold_choice(of, answering),
        target=answering.target,
        target_unit=answering.target_unit,
        metrics={},
        provenance=_provenance(list(manifests.values())),
        created_at=composition.updated_at,
        tags={},
        inference_log=_log_policy(
            one.inference_log
            for one in (*manifests.values(), *(version for each in versions.values() for version in each.values()))
        ),
    )


def unknown_member(name: str, known: Iterable[str]) -> str:
    """Say that there is no endpoint of a name, which there are, and which was probably meant."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else "."
    return f"no endpoint is called '{name}'{meant} There are: {', '.join(names) or 'none'}"


def _union(
    manifests: Mapping[str, Manifest], produced: Mapping[str, set[str]], *, is_route: bool, problems: list[str]
) -> tuple[Input, ...]:
    """Inputs of all members but those that earlier steps give, each described by what the members want of it."""
    readers: dict[str, dict[str, Input]] = {}
    for name, manifest in manifests.items():
        for field in manifest.inputs:
            if field.name not in produced.get(name, ()):
                readers.setdefault(field.name, {})[name] = field
    given = set().union(*produced.values())
    for name in sorted(given & set(readers)):
        who = ", ".join(readers[name])
        problems.append(
            f"'{name}' is given by a step and also an input of the request that {who} reads; name the step for all"
        )
    union = []
    for name, fields in readers.items():
        kinds = {field.type: member for member, field in fields.items()}
        if len(kinds) > 1:
            said = ", ".join(f"{kind} in '{member}'" for kind, member in kinds.items())
            problems.append(f"input '{name}' has different types: {said}")
        union.append(_shared(list(fields.items()), len(manifests), is_route=is_route))
    return tuple(union)


def _shared(fields: Sequence[tuple[str, Input]], members: int, *, is_route: bool) -> Input:
    (_, first), *others = fields
    is_unlike = any(differs(first, other) for _, other in others)
    required = [field.required for _, field in fields]
    is_required = all(required) and len(fields) == members if is_route else any(required)
    said = [first.description.strip()]
    if len(fields) < members:
        said.append(f"Read by {', '.join(name for name, _ in fields)}.")
    if not is_unlike and is_required == first.required:
        return msgspec.structs.replace(first, description=" ".join(filter(None, said)))
    if is_unlike:
        said.append("Each of these checks it by its own contract.")
    return Input(
        name=first.name,
        type=first.type,
        description=" ".join(filter(None, said)),
        unit=first.unit,
        example=first.example,
        required=is_required,
    )


def _unlike_answers(manifests: Mapping[str, Manifest]) -> list[str]:
    """Why the answers of members cannot stand for one another."""
    problems = []
    (first, wanted), *others = manifests.items()
    for name, one in others:
        if one.task != wanted.task:
            problems.append(f"'{name}' is {one.task}, and '{first}' is {wanted.task}: members must be of the same task")
        elif set(one.classes) != set(wanted.classes):
            problems.append(
                f"'{name}' has the classes {', '.join(map(str, one.classes))}, and '{first}' "
                f"{', '.join(map(str, wanted.classes))}: members must have the same"
            )
        elif one.target_unit != wanted.target_unit:
            problems.append(
                f"'{name}' gives {one.target_unit or 'no unit'}, and '{first}' {wanted.target_unit or 'none'}"
            )
    return problems


def _unlike_versions(
    composition: Composition, name: str, versions: Mapping[int, Manifest], manifests: Mapping[str, Manifest]
) -> list[str]:
    """Why the versions that share the traffic of a member cannot stand for one another here."""
    problems = _unlike_answers({f"{name}@v{number}": manifest for number, manifest in versions.items()})
    if isinstance(composition.of, Pipeline):
        [step] = [one for one in composition.of.steps if one.model == name]
        for number, manifest in versions.items():
            for field in (field for field in manifest.inputs if field.name in step.inputs):
                source, given = step.inputs[field.name]
                if source in manifests and (problem := _unlike_types(field, manifests[source], given)):
                    problems.append(f"step '{name}@v{number}': {problem}")
    return problems


def hidden_members(composition: Composition, manifest: Manifest) -> frozenset[str]:
    """Members of which the log may not say what they answered, nor whether: it would tell an input that is hidden.

    That is the source of a step's input that the step's model redacts or hashes, and every member of a route that is
    decided by such an input.
    """
    of, policy = composition.of, manifest.inference_log
    hidden = {*policy.redact, *policy.hash}
    if isinstance(of, Pipeline):
        given = ((name, source) for step in of.steps for name, (source, _) in step.inputs.items())
        return frozenset(source for name, source in given if name in hidden)
    if isinstance(of, Route):
        read = {of.by} if of.by else {name for rule in of.rules for name in columns_of(rule.tree)}
        return frozenset(composition.members) if hidden & read else frozenset()
    return frozenset()


def _pipeline_problems(of: Pipeline, manifests: Mapping[str, Manifest]) -> list[str]:
    problems, earlier = [], dict[str, Manifest]()
    used: set[str] = set()
    for step in of.steps:
        fields = {field.name: field for field in manifests[step.model].inputs}
        for name, (source, given) in step.inputs.items():
            used.add(source)
            if source not in earlier:
                known = ", ".join(earlier) or "none: it is the first"
                problems.append(f"step '{step.model}': '{source}' is not an earlier step (there are: {known})")
            elif name not in fields:
                near = get_close_matches(name, fields, n=1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                problems.append(f"step '{step.model}': it has no input '{name}'{meant}; it has: {', '.join(fields)}")
            elif problem := _unlike_types(fields[name], earlier[source], given):
                problems.append(f"step '{step.model}': {problem}")
        earlier[step.model] = manifests[step.model]
    problems += [f"no later step uses what '{step.model}' gives" for step in of.steps[:-1] if step.model not in used]
    return problems


def _unlike_types(field: Input, source: Manifest, given: str) -> str | None:
    if given == "probability":
        if source.task == "regression":
            return f"'{source.model}' predicts a value and gives no probability; take its prediction"
        kinds = {"number"}
    elif source.task == "multiclass":
        kinds = {"integer", "number"} if all(isinstance(name, int) for name in source.classes) else {"string"}
    else:
        kinds = {"boolean"} if source.task == "binary" else {"number"}
    if field.type in kinds:
        return None
    wanted = " or ".join(sorted(kinds))
    return f"input '{field.name}' is of type {field.type}, and the {given} of '{source.model}' is {wanted}"


def _route_problems(of: Route, inputs: Mapping[str, Input]) -> list[str]:
    problems = []
    for name in dict.fromkeys(
        [*([of.by] if of.by else []), *(c for rule in of.rules for c in sorted(columns_of(rule.tree)))]
    ):
        if name not in inputs:
            near = get_close_matches(name, inputs, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            problems.append(f"the route reads '{name}', which no member has as an input{meant}")
    if of.by is not None and of.by in inputs:
        kind = inputs[of.by].type
        wanted = _VALUES.get(kind)
        if wanted is None:
            problems.append(
                f"the route is by '{of.by}' of type {kind}: only texts, integers and booleans "
                "can be mapped; use `rules`"
            )
        else:
            problems += [
                f"the map has {value!r}, and '{of.by}' is of type {kind}"
                for value, _ in of.values
                if type(value) is not wanted
            ]
    return problems


def _threshold(of: Any, manifests: Mapping[str, Manifest]) -> float:
    if isinstance(of, Ensemble):
        own = sum(weight * cast(float, manifests[name].threshold) for name, weight in of.members.items())
        return own if of.threshold is None else of.threshold
    name = of.steps[-1].model if isinstance(of, Pipeline) else of.default
    return cast(float, manifests[name].threshold)


def _threshold_choice(of: Any, answering: Manifest) -> str:
    if answering.task != "binary":
        return ""
    if isinstance(of, Ensemble):
        return "as declared" if of.threshold is not None else "the weighted mean of the members' thresholds"
    return answering.threshold_choice if isinstance(of, Pipeline) else "each row by the threshold of who answers it"


def _log_policy(policies: Iterable[InferenceLogPolicy]) -> InferenceLogPolicy:
    """What no member may log is not logged; of requests, as many as of the member that logs fewest."""
    known = list(policies)
    redact = {name for one in known for name in one.redact}
    return InferenceLogPolicy(
        sample=min(one.sample for one in known),
        redact=tuple(sorted(redact)),
        hash=tuple(sorted({name for one in known for name in one.hash} - redact)),
    )


def _provenance(members: Sequence[Manifest]) -> Provenance:
    """What was read to make the members; the span is that of all of them."""
    parts = [one.provenance for one in members]
    return Provenance(
        tables={name: version for one in parts for name, version in one.tables.items()},
        training_set=", ".join(dict.fromkeys(one.training_set for one in parts)),
        training_set_version=0,
        trained_from=min(one.trained_from for one in parts),
        trained_until=max(one.trained_until for one in parts),
        training_rows=sum(one.training_rows for one in parts),
        code_version=", ".join(dict.fromkeys(one.code_version for one in parts)),
    )


def produced_inputs(steps: Sequence[Step]) -> frozenset[str]:
    """Inputs that steps give to later ones, which no request may have."""
    return frozenset(name for step in steps for name in step.inputs)
