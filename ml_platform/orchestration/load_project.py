"""Everything that a project declares below its `defs/`, and what every project has."""

import warnings
from importlib import import_module

import dagster as dg

from ml_platform.catalogue.terms import load_terms
from ml_platform.lake.sources.registry import declared_tables
from ml_platform.orchestration.alert_sensor import alert_delivery
from ml_platform.orchestration.audit_asset import audit_defs
from ml_platform.orchestration.automl_job import automl_job
from ml_platform.orchestration.canary_sensor import canary_step, canary_walks
from ml_platform.orchestration.component import project_views
from ml_platform.orchestration.cost_defs import check_policies, cost_defs
from ml_platform.orchestration.execution import executor, refresh_sensor
from ml_platform.orchestration.governance_catalogue import catalogue_defs
from ml_platform.orchestration.lineage_asset import lineage_asset
from ml_platform.orchestration.maintenance import maintenance_defs
from ml_platform.orchestration.openlineage_sensor import openlineage
from ml_platform.orchestration.registry_sync import registry_sync_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.run_alerts import run_alerts
from ml_platform.orchestration.spine_check import check_spines
from ml_platform.project import Project, current_project
from ml_platform.spec_yaml import check_project


def load_project() -> dg.Definitions:
    """Load the project; the mistakes of all its YAML files are reported in one go, before anything is built."""
    project = current_project()
    views = project_views(project.defs)
    specs = check_project(project.defs, {name: view.columns.keys() for name, view in views.items()})
    check_spines(specs, views, declared_tables())
    load_terms(project.defs)
    definitions = dg.Definitions.merge(
        _declared(project),
        maintenance_defs(),
        audit_defs(),
        catalogue_defs(),
        cost_defs(specs.values()),
        registry_sync_defs(),
        run_alerts(frozenset(spec.name for spec in specs.values())),
        dg.Definitions(
            assets=[lineage_asset(views, [spec.name for spec in specs.values()])],
            resources=build_resources(),
            executor=executor(),
            jobs=[automl_job, canary_step],
            sensors=[refresh_sensor(), alert_delivery, canary_walks, openlineage],
        ),
    )
    check_policies(specs, definitions)
    return definitions


def _declared(project: Project) -> dg.Definitions:
    """Load what is below `defs/`, without `dg.load_from_defs_folder`.

    That reads the project's TOML twice, slowly, and describes every type of component that is installed in JSON, which
    nothing in Dagster reads; `dg` asks the types themselves.
    """
    tree = dg.ComponentTree(
        defs_module=import_module(f"{project.package}.defs"),
        project_root=project.root,
        code_location_name=project.location,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own calls inside
        parts = [tree.build_defs(part.loc) for part in tree.find_root_decl().iterate_child_component_decls()]
    return dg.Definitions.merge(*parts, dg.Definitions(component_tree=tree))
