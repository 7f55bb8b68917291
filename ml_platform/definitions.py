"""Dagster's way in: everything under `defs/`, and the resources that it uses."""

# By one name only: Dagster refuses a module in which it finds definitions twice.
from ml_platform.orchestration.project_definitions import project_definitions as defs

__all__ = ["defs"]
