"""Entries of models, their versions, training sets and streams, and of the endpoints at which they answer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.catalogue.collect.tables import LakeState, how_to_read, name_of
from ml_platform.catalogue.document import Change, Column, Entry
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.registry.composition import Composition, CompositionStore
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.example_request import curl_line, example_request
from ml_platform.registry.manifest import Endpoint, Input, Manifest, describe_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.spec.input_rules import rules_of
from ml_platform.spec.inputs import InputField
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration

MOST_VERSIONS = 20  # of a model, the newest
MOST_RELEASES = 20  # in the history of an endpoint
TASKS = {"binary": "true or false", "multiclass": "one of several classes", "regression": "a number"}


def spec_entries(
    state: LakeState, specs: Mapping[Path, ModelSpec], views: Mapping[str, FeatureView], store: ReleaseStore
) -> Iterator[Entry]:
    """Entries of declared models, their training sets and streams."""
    for path, spec in specs.items():
        try:
            tables = sorted(referenced_tables((path.parent / spec.spine).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            tables = []
            state.problems.append(f"{path.parent / spec.spine}: {error}")
        yield _training_set(state, spec, tables, views)
        yield _model(spec, store)
        if spec.stream is not None:
            yield _stream(spec)


def _model(spec: ModelSpec, store: ReleaseStore) -> Entry:
    every = spec.retraining.schedule
    versions = store.versions(spec.name)
    return Entry(
        name=f"model:{spec.name}",
        kind="model",
        description=spec.description.strip(),
        owner=spec.owner,
        tags=dict(spec.tags),
        columns=tuple(_input(one) for one in spec.inputs),
        facts={
            "predicts": f"{spec.target}, {TASKS[spec.task]}" + (f" [{spec.target_unit}]" if spec.target_unit else ""),
            "a label is known": f"from {spec.label_available_at} on",
            "tries": ", ".join(spec.families),
            "is judged by": spec.metric,
            "is trained again": f"by {every} (UTC)" if every else "when people or alarms ask for it",
            "versions": f"{len(versions)}, the newest {max(versions)}" if versions else "none yet",
        },
        upstream=(f"training_set:{spec.name}",),
        how={
            "Python": f'from ml_platform.notebooks import open_model\n\nopen_model("{spec.name}").versions',
            "Page for people": f"ml-platform models page {spec.name}",
        },
        problems=() if versions else (f"no version yet: ml-platform run {spec.name}",),
        model=spec.name,
    )


def _input(field: InputField | Input) -> Column:
    rules = [word.replace("`", "") for rule in rules_of(field) for word in rule.table_words()]
    return Column(
        name=field.name,
        type=field.type,
        description=field.description,
        unit=field.unit,
        rules=(*(("required",) if field.required else ()), *rules),
    )


def _training_set(state: LakeState, spec: ModelSpec, tables: Sequence[str], views: Mapping[str, FeatureView]) -> Entry:
    table = f"training_sets/{spec.name}"
    facts = state.facts(table)
    about = {field.name: field for field in spec.inputs}
    columns = tuple(
        Column(
            name=one.name,
            type=one.type,
            description=_meaning(one.name, spec, about, views),
            unit=about[one.name].unit if one.name in about else None,
        )
        for one in facts.pop("columns", ())
    )
    return Entry(
        name=f"training_set:{spec.name}",
        kind="training set",
        description=f"Rows that {spec.name} is trained and judged on, with features as of the moment of prediction.",
        owner=spec.owner,
        tags=dict(spec.tags),
        columns=columns,
        facts={
            "label": spec.target,
            "as of": spec.timestamp,
            "holdout": f"the newest {duration(spec.split.holdout)}",
        },
        upstream=(*map(name_of, tables), *(f"features.{lookup.view}" for lookup in spec.lookups)),
        how=how_to_read(table),
        model=spec.name,
        table=table,
        **{"problems": () if facts else (f"not made yet: materialise {spec.name}/training_set",), **facts},
    )


def _meaning(name: str, spec: ModelSpec, about: Mapping[str, InputField], views: Mapping[str, FeatureView]) -> str:
    if name in about:
        return about[name].description
    if name == spec.target:
        return "The label."
    for lookup in spec.lookups:
        feature = name.removeprefix(f"{lookup.alias}__")
        view = views.get(lookup.view)
        if feature != name and view is not None and feature in view.columns:
            return view.columns[feature].description
    return ""


def _stream(spec: ModelSpec) -> Entry:
    stream = spec.stream
    assert stream is not None
    source = stream.source
    of = getattr(source, "topic", None) or getattr(source, "stream", None) or getattr(source, "table", None)
    where = of or getattr(source, "path", "")
    table = getattr(source, "table", None)
    return Entry(
        name=f"stream:{spec.name}",
        kind="stream",
        description=f"Messages that {spec.name} answers as they come.",
        owner=spec.owner,
        tags=dict(spec.tags),
        facts={
            "source": f"{source.type}: {where}",
            "answers go to": ", ".join(filter(None, (stream.sink.topic, stream.sink.table))),
            "dead letters": ", ".join(filter(None, (stream.dead_letters_topic, stream.dead_letters_table))),
        },
        upstream=(f"model:{spec.name}", *((name_of(table),) if table else ())),
        how={"Command": f"ml-platform stream status {spec.name}"},
        model=spec.name,
    )


def release_entries(store: ReleaseStore, declared: frozenset[str], url: str, problems: list[str]) -> Iterator[Entry]:
    """Entries of versions and endpoints, and of models that are registered but no longer declared."""
    documents, damaged = store.readable_documents()
    compositions, damaged_compositions = CompositionStore(store).readable()
    problems += [f"endpoint {name}: {error}" for name, error in {**damaged, **damaged_compositions}.items()]
    names = {document.model for document in documents.values()} | set(store.registered())
    owners: dict[str, str] = {}
    for model in sorted(names):
        manifests = dict(_manifests(store, model, problems))
        if model not in declared and manifests:
            yield _undeclared(model, manifests[max(manifests)], max(manifests))
        if manifests:
            owners[model] = manifests[max(manifests)].owner
        for version, manifest in manifests.items():
            yield _version(model, version, manifest)
    for name, document in sorted(documents.items()):
        yield _endpoint(store, name, document, url, owners.get(document.model, ""))
    for name, composition in sorted(compositions.items()):
        yield _composed(name, composition, url)


def _manifests(store: ReleaseStore, model: str, problems: list[str]) -> Iterator[tuple[int, Manifest]]:
    for version, digest in sorted(store.versions(model).items())[-MOST_VERSIONS:]:
        try:
            yield version, store.load_manifest(digest)
        except (LookupError, BundleRefused) as error:
            problems.append(f"version {version} of {model}: {str(error).splitlines()[0]}")


def _undeclared(model: str, manifest: Manifest, version: int) -> Entry:
    return Entry(
        name=f"model:{model}",
        kind="model",
        description=manifest.description.strip(),
        owner=manifest.owner,
        tags=dict(manifest.tags),
        columns=tuple(_input(one) for one in manifest.inputs),
        facts={"predicts": f"{manifest.target}, {TASKS[manifest.task]}", "versions": f"the newest {version}"},
        upstream=(name_of(manifest.provenance.training_set),),
        problems=("no defs.yaml of the project declares it any more",),
        model=model,
    )


def _version(model: str, version: int, manifest: Manifest) -> Entry:
    made_of = manifest.provenance
    imported = made_of.imported
    return Entry(
        name=f"version:{model}@v{version}",
        kind="version",
        description=f"Version {version} of {model}: {manifest.family}"
        + (
            f", imported from {imported.source} by {imported.by}."
            if imported
            else f" of {made_of.training_rows:,} rows."
        ),
        owner=manifest.owner,
        tags=dict(manifest.tags),
        columns=tuple(
            Column(
                name=one.name,
                type="text" if one.kind == "categorical" else "number",
                description=one.description,
                unit=one.unit,
                rules=(f"{one.importance:.1%} of the importance",),
            )
            for one in sorted(manifest.features, key=lambda one: -one.importance)
        ),
        facts={
            "trained on": f"{made_of.training_set} version {made_of.training_set_version}",
            "rows from": f"{made_of.trained_from[:10]} to {made_of.trained_until[:10]}",
            "tables": ", ".join(f"{name} {number}" for name, number in sorted(made_of.tables.items())),
            **{name: f"{value:.4g}" for name, value in manifest.metrics.items()},
        },
        version=version,
        updated_at=manifest.created_at,
        upstream=(f"model:{model}",),
        how={"Python": f'from ml_platform.notebooks import open_model\n\nopen_model("{model}@v{version}").features'},
        model=model,
    )


def _endpoint(store: ReleaseStore, name: str, document: Endpoint, url: str, owner: str) -> Entry:
    history = sorted(store.history(name), key=lambda one: one.revision)[-MOST_RELEASES:]
    how = {}
    with suppress(LookupError, BundleRefused, DocumentUnreadable, msgspec.MsgspecError):
        how["HTTP"] = curl_line(url, name, example_request(store, name))  # of what serves, where its bundle is there
    return Entry(
        name=f"endpoint:{name}",
        kind="endpoint",
        owner=owner,
        description=f"Answers with {document.model}: {describe_targets(document.targets)}."
        if document.targets
        else f"Out of service: {document.reason}",
        facts={
            "serves": describe_targets(document.targets),
            "since": document.updated_at,
            "by": document.updated_by,
            "why": document.reason,
        },
        version=document.revision,
        updated_at=document.updated_at,
        upstream=(
            f"model:{document.model}",
            *(f"version:{document.model}@v{target.version}" for target in document.targets),
        ),
        how=how,
        history=tuple(
            Change(
                version=one.revision,
                at=one.updated_at,
                what=f"{describe_targets(one.targets)}, by {one.updated_by}: {one.reason}",
            )
            for one in history
        ),
        model=document.model,
    )


def _composed(name: str, composition: Composition, url: str) -> Entry:
    facts: dict[str, Any] = {"kind": composition.kind, "members": ", ".join(composition.members)}
    return Entry(
        name=f"endpoint:{name}",
        kind="endpoint",
        description=composition.description.strip(),
        owner=composition.owner,
        facts=facts,
        version=composition.revision,
        updated_at=str(composition.updated_at),
        upstream=tuple(f"endpoint:{member}" for member in composition.members),
        how={"HTTP": f"curl -s {url}/endpoints/{name}"},
        model=name,
    )
