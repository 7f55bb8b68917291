"""Dagster's way in: everything under `defs/`, and the resources that it uses."""

from ml_platform.orchestration.project_definitions import project_definitions

defs = project_definitions
