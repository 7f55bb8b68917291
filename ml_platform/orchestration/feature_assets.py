"""Two assets per feature view: its table in the lake, and its newest values in the online store."""

import json
from typing import TYPE_CHECKING

import dagster as dg
import yaml
from dagster_duckdb import DuckDBResource

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.lineage import online_lineage, view_lineage
from ml_platform.orchestration.metadata import column_schema, numbers, sample, versions
from ml_platform.orchestration.push_assets import pushed_key, pushed_rows
from ml_platform.orchestration.resources import Platform
from ml_platform.settings import Settings
from ml_platform.spec.types import duration

if TYPE_CHECKING:
    from ml_platform.features.views.compute import ViewReport


def table_key(table: str) -> dg.AssetKey:
    """Asset key of a lake table: `raw/flights` is the asset `raw/flights`."""
    return dg.AssetKey(table.split("/"))


def view_keys(view: FeatureView) -> list[dg.AssetKey]:
    """Asset keys of what holds a view's rows: those computed and those pushed."""
    return [table_key(view.table), pushed_key(view)]


def feature_view_defs(view: FeatureView) -> dg.Definitions:
    """Build `features/<view>`, `pushed/<view>` and `online/<view>` with their checks."""
    return dg.Definitions(
        assets=[_feature_table(view), pushed_rows(view), _online_view(view)], asset_checks=[_freshness_check(view)]
    )


def _feature_table(view: FeatureView) -> dg.AssetsDefinition:
    key = table_key(view.table)

    @dg.asset(
        key=key,
        deps=[table_key(table) for table in view.source_tables],
        description=f"{view.description}\n\n{_definition(view)}",
        group_name="features",
        kinds={"deltalake", "polars" if view.code else "duckdb"},
        owners=[view.owner],
        tags=dict(view.tags),
        metadata={
            "entity": ", ".join(view.entity),
            "ttl": duration(view.ttl) if view.ttl else "none",
            "version hash": view.hash,
        },
        automation_condition=dg.AutomationCondition.eager(),
        check_specs=[
            dg.AssetCheckSpec("has_rows", asset=key, description="The view's SQL found rows."),
            dg.AssetCheckSpec("no_empty_feature", asset=key, description="No feature is null throughout."),
        ],
    )
    def feature_table(platform: Platform, duckdb: DuckDBResource) -> dg.MaterializeResult:
        from ml_platform.features.views.compute import compute_view

        lake = platform.lake
        with duckdb.get_connection() as connection:
            report = compute_view(lake, view, connection=connection)
        schema = lake.schema(view.table)
        described = {
            **dict.fromkeys(view.entity, ("Part of the key that rows are looked up by.", None)),
            view.event_time: ("Instant from which the row was known.", None),
            **{name: (column.description, column.unit) for name, column in view.columns.items()},
        }
        empty = sorted(name for name, share in report.null_share.items() if share == 1.0)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.rows,
                "dagster/column_schema": column_schema(schema, described),
                **view_lineage(view, lake),
                "newest event": str(report.newest),
                "delta version": report.version,
                "tables read": versions(report.tables),
                "days computed": _days(report),
                "sample": sample(lake.read(view.table).tail(5).collect()),
                **numbers(report.null_share, prefix="null share/"),
            },
            data_version=dg.DataVersion(f"{view.hash[:12]}.{report.version}"),
            check_results=[
                dg.AssetCheckResult(check_name="has_rows", passed=report.rows > 0, metadata={"rows": report.rows}),
                dg.AssetCheckResult(
                    check_name="no_empty_feature",
                    passed=not empty,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"null throughout": ", ".join(empty) or "none"},
                ),
            ],
        )

    return feature_table


def _days(report: "ViewReport") -> str:
    if report.spans is None:
        return "all"
    return ", ".join(f"{first} to {'the end' if end is None else end}" for first, end in report.spans) or "none"


def _definition(view: FeatureView) -> str:
    """Show the view as its owner wrote it: Python, windows in YAML (not the SQL made of them), or SQL."""
    if view.code:
        return f"```python\n{view.code}\n```"
    if view.rolling:
        declared = json.loads(json.dumps(view.rolling.model_dump(exclude_defaults=True), default=duration))
        return f"```yaml\n{yaml.safe_dump({'rolling': declared}, sort_keys=False, allow_unicode=True)}```"
    return f"```sql\n{view.sql.strip()}\n```"


def _online_view(view: FeatureView) -> dg.AssetsDefinition:
    pushed = dg.AssetSelection.assets(pushed_key(view))  # serving has put those rows into the store already

    @dg.asset(
        key=["online", view.name],
        deps=view_keys(view),
        description=f"Newest values of `{view.name}` per {', '.join(view.entity)}, where serving reads them.",
        group_name="online",
        kinds={_store_kind()},
        owners=[view.owner],
        automation_condition=dg.AutomationCondition.eager().ignore(pushed),
    )
    def online_view(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.features.online.open import open_online_store
        from ml_platform.features.online.publish import publish_view
        from ml_platform.features.online.pushed_rows import pushed_table
        from ml_platform.governance.access.publish_protections import publish_if_governed

        publish_if_governed(platform.settings)
        with open_online_store(platform.settings.online_uri) as store:
            report = publish_view(platform.lake, view, store, push_log=platform.settings.push_log_dir)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.rows,
                "entities changed": report.changed,
                "newest event": str(report.newest),
                "delta version": report.version,
                **online_lineage(view, pushed=platform.lake.exists(pushed_table(view))),
                "store": platform.settings.online_uri.partition(":")[0],
            }
        )

    return online_view


def _store_kind() -> str:
    """Name of the online store's technology, for the UI's icon."""
    scheme = Settings().online_uri.partition(":")[0]
    return "sqlite" if scheme == "sqlite" else "redis"


def _freshness_check(view: FeatureView) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=["online", view.name],
        name="fresh",
        description="The newest online value is within the view's TTL of the newest row of its table.",
    )
    def fresh(platform: Platform) -> dg.AssetCheckResult:
        import polars as pl

        from ml_platform.features.online.open import open_online_store
        from ml_platform.features.online.pushed_rows import read_view

        with open_online_store(platform.settings.online_uri) as store:
            newest = store.newest(view.name)
        clock = read_view(platform.lake, view).select(pl.col(view.event_time).max()).collect().item()
        if newest is None or clock is None:
            return dg.AssetCheckResult(passed=False, description="no value in the online store; materialise this asset")
        lag = clock - newest
        return dg.AssetCheckResult(
            passed=view.ttl is None or lag <= view.ttl,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "lag minutes": lag.total_seconds() / 60,
                "newest value": str(newest),
                "newest row of the table": str(clock),
                "ttl": duration(view.ttl) if view.ttl else "none",
            },
        )

    return fresh
