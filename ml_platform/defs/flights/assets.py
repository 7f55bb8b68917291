"""The flights' raw tables as Dagster assets."""

import dagster as dg

from ml_platform.orchestration import raw_table_asset

from .tables import RAW_TABLES

defs = dg.Definitions(assets=[raw_table_asset(table, owners=[table.owner]) for table in RAW_TABLES])
