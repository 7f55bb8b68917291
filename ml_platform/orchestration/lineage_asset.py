"""The column graph as an asset: what the console, HTTP and lineage events answer from."""

from collections.abc import Iterable

import dagster as dg

from ml_platform.orchestration.resources import Platform


def lineage_asset(views: Iterable[str], models: Iterable[str]) -> dg.AssetsDefinition:
    """Build the asset `catalogue/lineage`, which follows every view and release of the project."""
    upstream = [*(["features", view] for view in views), *([model, "release"] for model in models)]

    @dg.asset(
        key=["catalogue", "lineage"],
        deps=[dg.AssetKey(path) for path in upstream],
        description="Which column is made of which, from source files to what serves: for the console and HTTP.",
        group_name="features",
        kinds={"json"},
        owners=["team:platform"],
        automation_condition=dg.AutomationCondition.eager(),
        check_specs=[
            dg.AssetCheckSpec(
                "traced",
                asset=["catalogue", "lineage"],
                description="Every query and function could be traced. Stops nothing.",
            )
        ],
    )
    def column_graph(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.lineage.store import lineage_path, refresh_lineage

        lineage, problems = refresh_lineage(platform.settings)
        graph = lineage.graph
        return dg.MaterializeResult(
            metadata={
                "objects": len(graph.objects),
                "columns": len(graph.nodes),
                "edges": len(graph.edges),
                "file": dg.MetadataValue.path(lineage_path(platform.settings)),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="traced",
                    passed=not problems,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="; ".join(problems) or "Every one could.",
                )
            ],
        )

    return column_graph
