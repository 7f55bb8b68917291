"""What Dagster loads."""

from ml_platform.orchestration.project_definitions import project_definitions as defs

__all__ = ["defs"]
