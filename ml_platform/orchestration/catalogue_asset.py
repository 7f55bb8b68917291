"""The catalogue of features as an asset: a page for people, written again when a view was computed or published."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.resources import Platform
from ml_platform.spec_yaml import check_project

if TYPE_CHECKING:
    from ml_platform.features.catalogue.describe import ViewState

PAGE = "features.html"


def catalogue_asset(views: Mapping[str, FeatureView], defs: Path) -> dg.AssetsDefinition:
    """Build the asset of a project's views; `defs` is the folder of its models."""

    @dg.asset(
        key=["catalogue", "features"],
        deps=[dg.AssetKey([folder, name]) for name in views for folder in ("features", "online")],
        description="Every feature view with its users, freshness, rows, nulls and last values, as one page to open.",
        group_name="features",
        kinds={"html"},
        owners=["team:platform"],
        automation_condition=dg.AutomationCondition.eager(),
        check_specs=[
            dg.AssetCheckSpec(
                "one_definition",
                asset=["catalogue", "features"],
                description="Tables, online store and served models stand on the views as they are written now.",
            )
        ],
    )
    def feature_catalogue(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.features.catalogue.describe import describe_views
        from ml_platform.features.catalogue.page import write_page
        from ml_platform.features.online.open import open_online_store

        specs = check_project(defs, {name: view.columns.keys() for name, view in views.items()}).values()
        with open_online_store(platform.settings.online_uri) as online:
            states = describe_views(platform.lake, views, specs, online=online, releases=platform.releases)
        page = write_page(states, platform.settings.reports_dir / PAGE)
        problems = [f"{state.name}: {problem}" for state in states for problem in state.problems]
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(page),
                "views": table([_row(state) for state in states]),
                "features": sum(len(state.features) for state in states),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="one_definition",
                    passed=not problems,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="; ".join(problems) or "All of them do.",
                )
            ],
        )

    return feature_catalogue


def _row(state: "ViewState") -> dict[str, str | int | float | None]:
    return {
        "view": state.name,
        "entity": ", ".join(state.entity),
        "models": ", ".join(state.models),
        "rows": state.rows,
        "newest row": str(state.newest or ""),
        "newest online": str(state.newest_online or ""),
        "share of nulls": state.null_share,
        "owner": state.owner,
    }
