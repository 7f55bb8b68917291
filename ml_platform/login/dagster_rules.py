"""Which role each request to Dagster's webserver needs.

A mutation that is not in the table needs an admin: a test fails when a version of Dagster has one.
"""

import re
from typing import Final

from ml_platform.login.graphql_document import Document
from ml_platform.login.judgement import Judgement

PREFIX: Final = "/dagster"
# By the permission that Dagster itself asks for before each: launching and stopping is a launcher's, what changes
# schedules, sensors, partitions, runs' records and the workspace an editor's, what destroys or stops others an admin's.
MUTATIONS: Final[dict[str, str]] = {
    # of the page itself: they change nothing of the platform
    "logTelemetry": "viewer",
    "setNuxSeen": "viewer",
    # launch_pipeline_execution, launch_pipeline_reexecution, launch_partition_backfill, cancel_partition_backfill
    "launchRun": "launcher",
    "launchPipelineExecution": "launcher",
    "launchMultipleRuns": "launcher",
    "launchRunReexecution": "launcher",
    "launchPipelineReexecution": "launcher",
    "launchPartitionBackfill": "launcher",
    "resumePartitionBackfill": "launcher",
    "reexecutePartitionBackfill": "launcher",
    "cancelPartitionBackfill": "launcher",
    # terminate_pipeline_execution
    "terminateRun": "launcher",
    "terminateRuns": "launcher",
    "terminatePipelineExecution": "launcher",
    # schedule_dry_run, sensor_dry_run: they evaluate the project's own code
    "scheduleDryRun": "launcher",
    "sensorDryRun": "launcher",
    # start_schedule, stop_running_schedule, edit_sensor, update_sensor_cursor, toggle_auto_materialize
    "startSchedule": "editor",
    "stopRunningSchedule": "editor",
    "resetSchedule": "editor",
    "startSensor": "editor",
    "stopSensor": "editor",
    "resetSensor": "editor",
    "setSensorCursor": "editor",
    "setAutoMaterializePaused": "editor",
    # edit_dynamic_partitions, report_runless_asset_events, refresh_component_state
    "addDynamicPartition": "editor",
    "deleteDynamicPartitions": "editor",
    "reportRunlessAssetEvents": "editor",
    "reportAssetCheckEvaluations": "editor",
    "refreshComponentState": "editor",
    # reload_repository_location, reload_workspace
    "reloadRepositoryLocation": "editor",
    "reloadWorkspace": "editor",
    # delete_pipeline_run, wipe_assets, edit_concurrency_limit, edit_app_managed_components; a code server's end
    "deleteRun": "admin",
    "deletePipelineRun": "admin",
    "wipeAssets": "admin",
    "setConcurrencyLimit": "admin",
    "deleteConcurrencyLimit": "admin",
    "freeConcurrencySlots": "admin",
    "freeConcurrencySlotsForRun": "admin",
    "setAppManagedComponent": "admin",
    "deleteAppManagedComponent": "admin",
    "shutdownRepositoryLocation": "admin",
}
GRAPHQL: Final = "/graphql"
# Not read by everybody: any notebook of the machine by its path, and all of a run for bug reports, its secrets too.
_GUARDED_READS = re.compile(r"/(?:dagit/)?notebook|/download_debug/[^/]+", re.IGNORECASE)
_REPORTS = re.compile(r"/report_asset_(?:materialization|check|observation)/.+")


def of_document(document: Document) -> Judgement:
    """What a GraphQL request needs: the highest role of its mutations.

    Examples
    --------
    >>> of_document(Document(frozenset({"deleteRun", "launchRun"}), frozenset(), frozenset())).role
    'admin'
    """
    from ml_platform.gateway_identity import ROLES

    roles = [MUTATIONS.get(name, "viewer" if name.startswith("__") else "admin") for name in document.mutations]
    role = max(roles, key=ROLES.index, default="viewer")
    action = ", ".join(sorted(document.mutations)) or "query"
    return Judgement(role, action, is_change=role != "viewer")


def of_request(method: str, path: str) -> Judgement:
    """What a request needs, by its method and its path behind the prefix; GraphQL's own by `of_document`.

    Examples
    --------
    >>> of_request("GET", "/runs").role, of_request("GET", "/graphql").role, of_request("POST", "/").role
    ('viewer', None, None)
    """
    action = f"{method} {path}"
    if path.rstrip("/.").lower() == GRAPHQL:
        return Judgement(None, action, reason="GraphQL is asked by POST with a JSON body at /dagster/graphql")
    if method in {"GET", "HEAD"}:
        is_guarded = _GUARDED_READS.fullmatch(path.rstrip("/"))
        return Judgement("editor" if is_guarded else "viewer", action)
    if method == "POST" and _REPORTS.fullmatch(path):
        return Judgement("editor", action, is_change=True)
    return Judgement(None, action, reason=f"Dagster has no {method} here")
