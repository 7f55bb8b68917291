"""Dagster: components, assets, checks, jobs, sensors, schedules and resources over the engine."""

import warnings

from ml_platform.orchestration.garbage_collection import garbage_collection_off

with garbage_collection_off():
    import dagster as dg

    # Raised inside Dagster for options that are used knowingly (one run per range of partitions).
    warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"dagster\.")

    from ml_platform.orchestration.component import (
        ComposedEndpoint,
        FeatureService,
        FeatureViews,
        SourceTable,
        TabularModel,
    )
    from ml_platform.orchestration.notebook_asset import Notebook
    from ml_platform.orchestration.raw_assets import raw_table_asset

__all__ = [
    "ComposedEndpoint",
    "FeatureService",
    "FeatureViews",
    "Notebook",
    "SourceTable",
    "TabularModel",
    "raw_table_asset",
]
