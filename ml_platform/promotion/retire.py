"""Retires a model: what serves or reads it is said first; then nothing serves it any more, and its history stays."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from ml_platform.features.training_sets.spine import spine_text
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.promote import sync_registry
from ml_platform.promotion.reconcile import reconcile_registry
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.manifest import Endpoint, describe_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.registry.traffic import retire_endpoint
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict


class ModelUse(Strict):
    """What serves a model, makes it anew, or reads what it has made."""

    model: str = Field(description="Name of the model.")
    endpoints: dict[str, str] = Field(description="Endpoint that serves it → its versions with their shares, in words.")
    retired: bool = Field(description="Whether it was retired before.")
    versions: tuple[int, ...] = Field(description="Versions that were registered or served, the oldest first.")
    declared_in: str | None = Field(description="Its folder in `defs/`; null where it was removed.")
    schedules: tuple[str, ...] = Field(description="What its declaration starts by itself, each with its time.")
    looks_up: tuple[str, ...] = Field(description="Feature views that no other model looks up.")
    readers: tuple[str, ...] = Field(
        description="Feature views and other models that read its tables, with these; composed endpoints that ask it."
    )
    tables: tuple[str, ...] = Field(description="Tables of the lake that hold its rows, scores and answers; they stay.")


def use_of(
    settings: Settings, model: str, specs: Mapping[Path, ModelSpec], views: Mapping[str, FeatureView]
) -> ModelUse:
    """Say what uses a model.

    Parameters
    ----------
    settings
        Where release store and lake are.
    model
        Its name.
    specs
        The models that are declared, by their `defs.yaml`.
    views
        The feature views that are declared.

    Raises
    ------
    LookupError
        When no model of this name is declared, registered or served, nor ever was.
    """
    store, lake = ReleaseStore(settings.releases_dir), Lake(settings.lake_uri)
    documents = {name: one for name, one in store.documents().items() if one.model == model}
    declared = {path: spec for path, spec in specs.items() if spec.name == model}
    versions = tuple(store.versions(model))
    if not declared and not versions and not documents:
        known = sorted({*store.registered(), *(spec.name for spec in specs.values())})
        raise LookupError(f"no model is called '{model}'; there are {', '.join(known) or 'none'}")
    tables = tuple(filter(None, _own(model, lake.tables()).split(", ")))
    others = {path: spec for path, spec in specs.items() if spec.name != model}
    looked_up = {lookup.view for spec in others.values() for lookup in spec.lookups}
    own = {lookup.view for spec in declared.values() for lookup in spec.lookups}
    return ModelUse(
        model=model,
        endpoints={name: describe_targets(one.targets) for name, one in documents.items() if one.targets},
        retired=model in documents and documents[model].is_retired,
        versions=versions,
        declared_in=next((str(path.parent) for path in declared), None),
        schedules=tuple(_schedules(next(iter(declared.values())))) if declared else (),
        looks_up=tuple(sorted(own - looked_up)),
        readers=(*_readers(model, others, views), *_composed(store, documents)),
        tables=tables,
    )


def retire(settings: Settings, model: str, *, by: str, reason: str) -> list[Endpoint]:
    """Take every endpoint of a model out of service for good, and archive its versions in the registry.

    Bundles, versions, tables and history stay. `promote` puts a version back.

    Parameters
    ----------
    settings
        Where release store, registry and lake are.
    model
        Its name.
    by, reason
        For the endpoint documents, the ledger and the audit log.

    Returns
    -------
    list[Endpoint]
        The newest document of each of its endpoints.

    Raises
    ------
    ReleaseConflict
        When somebody changed an endpoint meanwhile.
    RegistryBehind
        When ledger and registry could not follow; the model is retired all the same.
    """
    store = ReleaseStore(settings.releases_dir)
    names = {name for name, document in store.documents().items() if document.model == model}
    documents = [retire_endpoint(store, name, model, by=by, reason=reason) for name in sorted({*names, model})]
    for document in documents:
        sync_registry(settings, document.name)
    reconcile_registry(Tracker(settings), model)
    return documents


def _schedules(spec: ModelSpec) -> list[str]:
    daily = None if spec.scoring.end is not None else spec.scoring.daily_at
    times = {
        "training": spec.retraining.schedule,
        "batch scoring": f"daily at {daily}" if daily else None,
        "performance and drift": spec.monitoring.schedule,
        "skew": spec.skew.schedule,
    }
    return [f"{name} ({time})" for name, time in times.items() if time is not None]


def _readers(model: str, others: Mapping[Path, ModelSpec], views: Mapping[str, FeatureView]) -> list[str]:
    readers = []
    for name, view in sorted(views.items()):
        if tables := _own(model, view.source_tables):
            readers.append(f"feature view {name} ({tables})")
    for path, spec in others.items():
        if tables := _own(model, referenced_tables(spine_text(spec, path.parent))):
            readers.append(f"model {spec.name} ({tables})")
    return readers


def _composed(store: ReleaseStore, documents: Mapping[str, Endpoint]) -> list[str]:
    """Composed endpoints that answer by some endpoints, in words: without these they answer 503."""
    composed = CompositionStore(store).all()
    return [
        f"composed endpoint {name} ({', '.join(members)})"
        for name, one in composed.items()
        if (members := [member for member in one.members if member in documents])
    ]


def _own(model: str, tables: Iterable[str]) -> str:
    """Those of the tables that the model has made, in words."""
    made = [name for name in sorted(tables) if name.endswith(f"/{model}")]
    return ", ".join(name for name in made if not name.startswith(("raw/", "features/")))
