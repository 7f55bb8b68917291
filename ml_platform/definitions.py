"""Dagster's way in: everything under `defs/`, and the resources that it uses."""

from pathlib import Path

import dagster as dg

from ml_platform.lake.sources.registry import declared_tables
from ml_platform.orchestration.alert_sensor import alert_delivery
from ml_platform.orchestration.audit_asset import audit_defs
from ml_platform.orchestration.component import project_views
from ml_platform.orchestration.execution import executor, refresh_sensor
from ml_platform.orchestration.maintenance import maintenance_defs
from ml_platform.orchestration.registry_sync import registry_sync_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.run_alerts import run_alerts
from ml_platform.orchestration.spine_check import check_spines
from ml_platform.private_files import private_umask
from ml_platform.settings import PROJECT_ROOT
from ml_platform.spec_yaml import check_project

DEFS = Path(__file__).parent / "defs"


@dg.definitions
def defs() -> dg.Definitions:
    """Load the project; the mistakes of all its YAML files are reported in one go, before anything is built."""
    private_umask()  # whichever command loads this: what its runs write is nobody else's to read
    views = project_views(DEFS)
    specs = check_project(DEFS, {name: view.columns.keys() for name, view in views.items()})
    check_spines(specs, views, declared_tables())
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=PROJECT_ROOT),
        maintenance_defs(),
        audit_defs(),
        registry_sync_defs(),
        run_alerts(frozenset(spec.name for spec in specs.values())),
        dg.Definitions(resources=build_resources(), executor=executor(), sensors=[refresh_sensor(), alert_delivery]),
    )
