"""Dagster: components, assets, checks, jobs, sensors, schedules and resources over the engine."""

import warnings

import dagster as dg

# Raised inside Dagster for options that are used knowingly (one run per range of partitions).
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"dagster\.")

from ml_platform.orchestration.component import FeatureViews, SourceTable, TabularModel  # noqa: E402 - after the filter
from ml_platform.orchestration.raw_assets import raw_table_asset  # noqa: E402

__all__ = ["FeatureViews", "SourceTable", "TabularModel", "raw_table_asset"]
