"""The project's definitions, loaded as Dagster's code server loads them, and their graph described by names."""

from functools import lru_cache
from importlib import import_module
from typing import Any

import dagster as dg
from dagster.components.definitions import LazyDefinitions

from ml_platform.project import Project


@lru_cache
def load_definitions(project: Project) -> dg.Definitions:
    """Load the module that Dagster loads for a project, once per process.

    Raises
    ------
    LookupError
        If it has definitions by no name, or by more than one, which Dagster refuses.
    Exception
        Whatever its code raises, `ml_platform.yaml_documents.SpecError` for mistakes in YAML files.
    """
    module = import_module(project.definitions)
    targets = [value for value in vars(module).values() if isinstance(value, dg.Definitions | LazyDefinitions)]
    if len(targets) != 1:
        raise LookupError(f"wanted Dagster's definitions by one name in {module.__file__}, found {len(targets)}")
    [target] = targets
    return target() if isinstance(target, LazyDefinitions) else target


def check_loadable(definitions: dg.Definitions) -> None:
    """Check that assets, checks, jobs, schedules and sensors fit together (raises what Dagster raises)."""
    dg.Definitions.validate_loadable(definitions)


def describe_graph(definitions: dg.Definitions) -> dict[str, Any]:
    """Describe the graph by names: what depends on what, what checks it, what starts it."""
    graph = definitions.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    return {
        "assets": {
            name: {
                "parents": sorted(parent.to_user_string() for parent in node.parent_keys),
                "group": node.group_name,
                "partitioned": node.partitions_def is not None,
                "checks": sorted(check.name for check in node.check_keys),
            }
            for name, node in sorted(nodes.items())
        },
        "jobs": sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")),
        "sensors": sorted(sensor.name for sensor in definitions.sensors or ()),
        "schedules": sorted(schedule.name for schedule in definitions.schedules or ()),
    }
