"""What nobody uses and what it costs: tables, models, old versions, jobs; each with the command that ends it."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.cost.config import CostConfig
from ml_platform.cost.prices import priced, storage_price
from ml_platform.cost.records import SERVING
from ml_platform.cost.storage import StoredTable, stored_tables
from ml_platform.cost.use_table import read_costs
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import current_project
from ml_platform.promotion.prune import plan_prune
from ml_platform.promotion.prune_item import Retention
from ml_platform.registry.pins import pinned_versions
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project, check_services
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

FEATURES_FOLDER = "features"
WORTH_SAYING = 2**20  # bytes of old versions below which nothing is said
MONTH = 30.0
PRUNED = Retention(timedelta(days=30), 5)  # what `ml-platform models prune` removes by default


@dataclass(frozen=True)
class Waste:
    """One thing that nobody uses.

    Attributes
    ----------
    kind
        `table`, `view`, `model`, `versions`, `job`.
    bytes
        Of storage that ends with it.
    price_month
        What it costs in 30 days: storage, and the use that was measured in the span, scaled to 30 days.
    """

    kind: str
    name: str
    reason: str
    remedy: str
    bytes: int
    price_month: float

    def row(self) -> dict[str, Any]:
        """Return it as a row."""
        return vars(self)


@dataclass(frozen=True)
class _Project:
    models: Mapping[str, tuple[ModelSpec, str]]  # with the text of the spine
    views: Mapping[str, FeatureView]
    of_services: frozenset[str]  # views that feature services look up


def find_waste(settings: Settings, config: CostConfig, since: datetime) -> list[Waste]:
    """List what nobody uses, the dearest first.

    A table counts as used when a model's spine or label query, or a feature view that is itself used, reads it, by what
    the project declares; queries of people are not known here. A model counts as asked when serving answered for it or
    a batch or stream of it ran.

    Parameters
    ----------
    settings
        Where lake, releases and the log of costs are.
    config
        Rates.
    since
        From when on nobody may have used a model or a job's output.
    """
    lake, store = Lake(settings.lake_uri), ReleaseStore(settings.releases_dir)
    uses = priced(read_costs(lake, settings, since), config.rate_history)
    days = max((datetime.now(UTC) - since).total_seconds() / 86_400, 1.0)
    project = _read_project()
    tables = {
        one.table: one for one in stored_tables(lake, config, settings.lake_retention_days, pinned_versions(store))
    }
    findings = [
        *_unread(project, tables, uses, days),
        *_not_asked(store, uses, days, since),
        *_old_versions(tables, config),
        *_prunable(settings, config),
    ]  # fmt: skip
    return sorted(findings, key=lambda one: (-one.price_month, -one.bytes, one.kind, one.name))


def _read_project() -> _Project:
    defs = current_project().defs
    views = load_views(defs / FEATURES_FOLDER) if (defs / FEATURES_FOLDER).is_dir() else {}
    columns = {name: view.columns.keys() for name, view in views.items()}
    specs = check_project(defs, columns)
    models = {spec.name: (spec, (path.parent / spec.spine).read_text(encoding="utf-8")) for path, spec in specs.items()}
    services = check_services(defs, columns)
    return _Project(models, views, frozenset(one.view for _, service in services for one in service.views))


def _unread(project: _Project, tables: Mapping[str, StoredTable], uses: pl.DataFrame, days: float) -> Iterator[Waste]:
    looked_up = {lookup.view for spec, _ in project.models.values() for lookup in spec.lookups} | project.of_services
    read = {table for _, spine in project.models.values() for table in referenced_tables(spine)}
    waiting = [view for name, view in project.views.items() if name in looked_up or view.table in read]
    used_views = {view.name for view in waiting}
    while waiting:
        view = waiting.pop()
        read |= set(view.source_tables)
        for name, other in project.views.items():
            if other.table in view.source_tables and name not in used_views:
                used_views.add(name)
                waiting.append(other)
    for name, view in project.views.items():
        if name not in used_views:
            stored = tables.get(view.table)
            of_view = pl.col("asset").str.contains(view.table, literal=True)
            folder = current_project().defs / FEATURES_FOLDER
            yield Waste(
                "view",
                name,
                "no model, service or other view that is used looks it up",
                f"delete its file in {folder}, then the folder {view.table} of the lake",
                stored.bytes if stored else 0,
                (stored.price_month if stored else 0.0) + _spent(uses, of_view, days),
            )
    for table, stored in tables.items():
        if table.startswith("raw/") and table not in read:
            spent = _spent(uses, pl.col("asset") == table, days)
            yield Waste(
                "table",
                table,
                "no model's spine and no feature view that is used reads it",
                f"take its source out of the project, then delete the folder {table} of the lake",
                stored.bytes,
                stored.price_month + spent,
            )


def _not_asked(store: ReleaseStore, uses: pl.DataFrame, days: float, since: datetime) -> Iterator[Waste]:
    documents, _ = store.readable_documents()
    measured = uses["time"].min() if uses.height else None
    for name, endpoint in documents.items():
        if endpoint.is_retired or not endpoint.targets:
            continue
        own = uses.filter(pl.col("model") == endpoint.model)
        asked = own.filter((pl.col("kind") == SERVING) & (pl.col("requests") > 0)).height
        scored = own.filter(pl.col("job").is_in([f"{endpoint.model}_score", f"stream run {endpoint.model}"])).height
        if asked or scored:
            continue
        first = measured.date() if isinstance(measured, datetime) else None
        known = f" (measured since {first})" if first is not None else ", nor anything else measured"
        command = shlex.join(
            ["ml-platform", "models", "retire", name, "--yes", "--force", "--reason", "nobody asks it"]
        )
        yield Waste(
            "model",
            name,
            f"no request was answered and no batch scored since {since:%Y-%m-%d}{known}",
            command,
            0,
            _spent(uses, pl.col("model") == endpoint.model, days),
        )
        jobs = own.filter(pl.col("job") != "", pl.col("kind") == "run")
        for (job,), rows in jobs.group_by("job", maintain_order=True):
            yield Waste(
                "job",
                str(job),
                f"{rows['run'].n_unique()} runs since {since:%Y-%m-%d} of a model that nobody asks",
                f"stop its schedule and sensor in the Dagster UI, or retire {name}",
                0,
                float(rows["price"].sum()) / days * MONTH,
            )


def _old_versions(tables: Mapping[str, StoredTable], config: CostConfig) -> Iterator[Waste]:
    for table, stored in tables.items():
        if stored.vacuumable_bytes >= WORTH_SAYING:
            yield Waste(
                "versions",
                table,
                "files that no version within the retention needs",
                "dg launch --assets maintenance/lake",
                stored.vacuumable_bytes,
                storage_price(config.current_rates, stored.vacuumable_bytes),
            )
        kept = stored.older_bytes - stored.vacuumable_bytes
        if kept >= max(WORTH_SAYING, stored.current_bytes):
            yield Waste(
                "versions",
                f"{table} (kept)",
                "versions within the retention need more than the table itself; those of released models stay for good",
                "set ML_PLATFORM_LAKE_RETENTION_DAYS lower, then dg launch --assets maintenance/lake",
                kept,
                storage_price(config.current_rates, kept),
            )


def _prunable(settings: Settings, config: CostConfig) -> Iterator[Waste]:
    """Bundles, runs and files of searches that nothing needs, by model."""
    if is_sqlite(settings.tracking_uri) and not sqlite_file(settings.tracking_uri).exists():
        return  # looking would make it
    sizes: dict[str, int] = {}
    for item in plan_prune(settings, PRUNED):
        if not item.keep:
            sizes[item.model] = sizes.get(item.model, 0) + item.size
    for model, size in sizes.items():
        yield Waste(
            "models' files",
            model or "of no version",
            "bundles, MLflow runs and searches that nothing needs",
            shlex.join(["ml-platform", "models", "prune", *filter(None, [model]), "--yes"]),
            size,
            storage_price(config.current_rates, size),
        )


def _spent(uses: pl.DataFrame, rows: pl.Expr, days: float) -> float:
    return float(uses.filter(rows)["price"].sum()) / days * MONTH
