"""Entries of feature services, notebooks and terms of the glossary."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ml_platform.catalogue.collect.tables import name_of
from ml_platform.catalogue.document import Column, Entry
from ml_platform.catalogue.terms import Term
from ml_platform.features.views.view import FeatureView
from ml_platform.notebook_files.runs import list_runs
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.notebook import NotebookSpec


def service_entries(
    services: Iterable[tuple[Path, FeatureServiceSpec]], views: Mapping[str, FeatureView]
) -> Iterator[Entry]:
    """Entries of feature services."""
    for _, service in services:
        columns = [
            Column(
                name=f"{one.alias}__{name}",
                type=column.type,
                description=column.description,
                unit=column.unit,
            )
            for one in service.views
            if one.view in views
            for name, column in views[one.view].columns.items()
            if not one.features or name in one.features
        ]
        yield Entry(
            name=f"service:{service.name}",
            kind="feature service",
            description=service.description.strip(),
            owner=service.owner,
            tags=dict(service.tags),
            columns=tuple(columns),
            upstream=tuple(dict.fromkeys(f"features.{one.view}" for one in service.views)),
            how={"Command": f"ml-platform features services {service.name}"},
        )


def notebook_entries(notebooks: Iterable[NotebookSpec], home: Path) -> Iterator[Entry]:
    """Entries of notebooks that run as assets; `home` has their runs."""
    for spec in notebooks:
        runs = list_runs(home, spec.name)
        newest = max(runs, key=lambda run: run.started_at, default=None)
        yield Entry(
            name=f"notebook:{spec.name}",
            kind="notebook",
            description=spec.description.strip(),
            owner=spec.owner,
            facts={
                "file": spec.notebook,
                "runs": f"by {spec.schedule} (UTC)" if spec.schedule else "by hand",
                **({"last run": newest.error or f"all {newest.cells} cells ran"} if newest else {}),
                **({"parameters": ", ".join(spec.parameters)} if spec.parameters else {}),
            },
            updated_at=newest.started_at.isoformat() if newest else None,
            upstream=tuple(map(name_of_asset, spec.after)),
            problems=() if newest else (f"has not run yet: materialise notebooks/{spec.name}",),
            how={"Command": f"ml-platform notebook list {spec.name}"},
        )


def name_of_asset(key: str) -> str:
    """What the catalogue calls an asset of Dagster: a table, or what belongs to a model."""
    first, _, last = key.partition("/")
    if last == "training_set":
        return f"training_set:{first}"
    if last in ("predictions", "inference_log"):
        return f"{last}.{first}"
    if last in ("release", "registered_version", "trained_model", "evaluation", "performance", "drift_report"):
        return f"model:{first}"
    return f"features.{last}" if first == "online" else name_of(key)


def term_entries(terms: Mapping[str, tuple[Path, Term]]) -> Iterator[Entry]:
    """Entries of terms."""
    for name, (_, term) in terms.items():
        yield Entry(
            name=f"term:{name}",
            kind="term",
            description=term.definition.strip(),
            owner=term.owner,
            tags=dict(term.tags),
            facts={
                **({"linked with": ", ".join(term.links)} if term.links else {}),
                **({"measured by": ", ".join(term.metrics)} if term.metrics else {}),
                **({"also called": ", ".join(term.synonyms)} if term.synonyms else {}),
            },
        )
