"""The catalogue of features: every view with its definition, its users, and the state of its rows."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from pydantic import Field

from ml_platform.features.online.pushed_rows import read_view
from ml_platform.features.online.store import OnlineStore
from ml_platform.features.views.recorded_definitions import computed_hash
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict


class FeatureState(Strict):
    """One feature: its declaration and statistics of its column."""

    name: str = Field(description="Name of the feature, a column of the view.")
    type: str = Field(description="Type of its values: number, integer, boolean or string.")
    unit: str | None = Field(description="Unit of its values, as declared; null for none.")
    description: str = Field(description="What it means, as declared.")
    null_share: float | None = Field(
        description="Share of the table's rows without a value, 0 to 1; null for an empty table."
    )
    last: Any = Field(description="Value in the newest row that has one; null when none has.")


class ViewState(Strict):
    """One view: its declaration, the models that use it, and the state of its table and the online store."""

    name: str = Field(description="Name of the view.")
    description: str = Field(description="What a row says, as declared.")
    owner: str = Field(description="Who answers for it: an e-mail address or team:<name>.")
    entity: tuple[str, ...] = Field(description="Columns that identify what the features describe.")
    ttl: timedelta | None = Field(description="Age up to which a row may be used; null for unlimited.")
    tags: dict[str, str] = Field(description="Tags, as declared.")
    hash: str = Field(description="SHA-256 of what decides values and their meaning, in hexadecimal.")
    models: tuple[str, ...] = Field(description="Models of the project that look it up.")
    rows: int | None = Field(description="Rows of its table, pushed ones included; null before it is computed.")
    newest: datetime | None = Field(description="Newest event time in the lake (UTC); null when there is no row.")
    newest_online: datetime | None = Field(
        description="Newest event time in the online store (UTC); null when there is no row."
    )
    features: tuple[FeatureState, ...] = Field(description="Its features, in the order of their declaration.")
    problems: tuple[str, ...] = Field(
        description="Where another definition is still in use, and what to do: one sentence each."
    )

    @property
    def null_share(self) -> float | None:
        """Mean share of nulls over the features."""
        shares = [item.null_share for item in self.features if item.null_share is not None]
        return sum(shares) / len(shares) if shares else None


def describe_views(
    lake: Lake,
    views: Mapping[str, FeatureView],
    specs: Iterable[ModelSpec],
    *,
    online: OnlineStore | None = None,
    releases: ReleaseStore | None = None,
) -> list[ViewState]:
    """Describe every view, by name.

    Parameters
    ----------
    lake
        Where the views' tables are.
    views
        The views by name.
    specs
        The models, to list which use a view.
    online
        Online store, for its newest rows and definitions.
    releases
        Release store, for the definitions that served models were trained with.
    """
    models = list(specs)
    return [_describe(lake, views[name], models, online, releases) for name in sorted(views)]


def _describe(
    lake: Lake,
    view: FeatureView,
    models: list[ModelSpec],
    online: OnlineStore | None,
    releases: ReleaseStore | None,
) -> ViewState:
    users = [spec.name for spec in models if any(lookup.view == view.name for lookup in spec.lookups)]
    rows = newest = None
    states = dict.fromkeys(view.columns, (None, None))
    if lake.exists(view.table):
        changed = computed_hash(lake, view.name) not in (None, view.hash)  # then the table may lack columns
        present = lake.read(view.table) if changed else read_view(lake, view)
        rows, newest, states = _contents(present, view)
    return ViewState(
        name=view.name,
        description=view.description,
        owner=view.owner,
        entity=view.entity,
        ttl=view.ttl,
        tags=dict(view.tags),
        hash=view.hash,
        models=tuple(users),
        rows=rows,
        newest=newest,
        newest_online=online.newest(view.name) if online else None,
        features=tuple(
            FeatureState(
                name=name,
                type=column.type,
                unit=column.unit,
                description=column.description,
                null_share=states[name][0],
                last=states[name][1],
            )
            for name, column in view.columns.items()
        ),
        problems=tuple(_problems(lake, view, users, online, releases)),
    )


def _contents(table: pl.LazyFrame, view: FeatureView) -> tuple[int, datetime | None, dict[str, Any]]:
    names = [name for name in view.columns if name in table.collect_schema()]
    by_time = pl.col(view.event_time)
    row = (
        table.select(
            pl.len().alias("__rows"),
            by_time.max().alias("__newest"),
            *(pl.col(name).null_count().alias(f"null:{name}") for name in names),
            *(
                pl.col(name)
                .filter(pl.col(name).is_not_null())
                .sort_by(by_time.filter(pl.col(name).is_not_null()))
                .last()
                for name in names
            ),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    rows = row["__rows"]
    states: dict[str, Any] = dict.fromkeys(view.columns, (None, None))
    states |= {name: (row[f"null:{name}"] / rows if rows else None, row[name]) for name in names}
    return rows, row["__newest"], states


def _problems(
    lake: Lake, view: FeatureView, users: list[str], online: OnlineStore | None, releases: ReleaseStore | None
) -> list[str]:
    problems = []
    computed = computed_hash(lake, view.name)
    if not lake.exists(view.table):
        problems.append(f"not computed yet: materialise {view.table}")
    elif computed is not None and computed != view.hash:
        problems.append(f"its table was computed by the definition {computed[:12]}: materialise {view.table}")
    published = online.view_hash(view.name) if online else None
    if published is not None and published != view.hash:
        problems.append(f"the online store has the definition {published[:12]}: materialise online/{view.name}")
    if releases is None:
        return problems
    served = releases.endpoints()
    for model in users:
        for target in served[model].targets if model in served else ():
            pinned = {item.view: item.view_hash for item in releases.load_manifest(target.digest).lookups}
            if pinned.get(view.name, view.hash) != view.hash:
                problems.append(
                    f"version {target.version} of {model} was trained on {pinned[view.name][:12]}: run {model}_retrain"
                )
    return problems
