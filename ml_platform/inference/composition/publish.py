"""Checks a declared composition against what is released, and publishes it."""

from collections.abc import Mapping

import msgspec

from ml_platform.features.expressions.compile import UnsupportedExpression, compile_tree
from ml_platform.inference.composition.signature import CompositionRefused, composed_manifest, unknown_member
from ml_platform.registry.composition import (
    Composition,
    CompositionStore,
    Ensemble,
    Pipeline,
    Route,
    Rule,
    Step,
    cycle,
)
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.composition import ComposedEndpointSpec, RuleSpec


def publish_composition(
    releases: ReleaseStore, spec: ComposedEndpointSpec, *, by: str, reason: str, expected_revision: int | None = None
) -> Composition:
    """Publish what a spec declares, once its members are released and fit together.

    Raises
    ------
    CompositionRefused
        With everything that is wrong: unknown members, members without a release, cycles, unlike tasks or inputs.
    ReleaseConflict, ValueError
        See `CompositionStore.publish`.
    """
    composed = composition_of(spec)
    check_composition(releases, composed)
    return CompositionStore(releases).publish(
        spec.name,
        composed.of,
        description=spec.description,
        owner=spec.owner,
        reason=reason,
        by=by,
        expected_revision=expected_revision,
    )


def composition_of(spec: ComposedEndpointSpec) -> Composition:
    """What a spec declares, as a document that was not published yet (raises CompositionRefused)."""
    of: Ensemble | Pipeline | Route
    if spec.ensemble is not None:
        total = sum(spec.ensemble.members.values())
        shares = {name: weight / total for name, weight in spec.ensemble.members.items()}
        of = Ensemble(members=shares, threshold=spec.ensemble.threshold)
    elif spec.route is not None:
        route = spec.route
        of = Route(
            default=route.default,
            by=route.by,
            values=tuple(route.map.items()),
            rules=tuple(_rule(spec.name, rule) for rule in route.rules),
        )
    else:
        of = Pipeline(
            steps=tuple(
                Step(model=step.model, inputs={name: _source(given) for name, given in step.inputs.items()})
                for step in spec.pipeline
            )
        )
    return Composition(
        name=spec.name, revision=0, description=spec.description, owner=spec.owner, of=of,
        updated_at="", updated_by="", reason="",
    )  # fmt: skip


def check_composition(releases: ReleaseStore, composed: Composition) -> Manifest:
    """Work out what a composition takes and gives, as its members are released now (raises CompositionRefused)."""
    compositions = {**CompositionStore(releases).all(), composed.name: composed}
    if way := cycle(composed.name, compositions):
        raise CompositionRefused(composed.name, [f"it leads back to itself: {' → '.join(way)}"])
    return _manifest(releases, composed, compositions)


def _manifest(releases: ReleaseStore, composed: Composition, compositions: Mapping[str, Composition]) -> Manifest:
    documents = releases.documents()
    members, problems = {}, []
    for name in composed.members:
        document = documents.get(name)
        if name in compositions:
            members[name] = _manifest(releases, compositions[name], compositions)
        elif document is not None and document.champion is not None:
            manifest = releases.load_manifest(document.champion.digest)
            members[name] = msgspec.structs.replace(manifest, model=name)
        elif document is not None:
            gone = "was retired" if document.is_retired else "is out of service"
            problems.append(f"'{name}' {gone}: promote a version of it, or leave it out")
        elif name in releases.registered():
            problems.append(f"'{name}' has no release yet: promote a version of it first")
        else:
            problems.append(unknown_member(name, [*documents, *compositions.keys() - {composed.name}]))
    if problems:
        raise CompositionRefused(composed.name, problems)
    return composed_manifest(composed, members)


def _source(given: str) -> tuple[str, str]:
    member, _, output = given.rpartition(".")
    return member, output


def _rule(name: str, rule: RuleSpec) -> Rule:
    """Compile a segment's expression (raises CompositionRefused)."""
    import polars as pl

    try:
        expression = pl.sql_expr(rule.when)
        return Rule(when=rule.when, tree=compile_tree(expression), model=rule.model)
    except (pl.exceptions.PolarsError, UnsupportedExpression) as error:
        raise CompositionRefused(name, [f"rule `{rule.when}` cannot be computed for one request: {error}"]) from error
