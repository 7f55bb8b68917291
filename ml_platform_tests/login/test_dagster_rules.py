"""The table of Dagster's mutations, held to the schema of the Dagster that is installed, and its routes."""

import pytest
from dagster._core.workspace.permissions import Permissions, get_user_permissions
from dagster_graphql.schema import create_schema
from starlette.routing import Route, WebSocketRoute

from ml_platform.gateway_identity import ROLES
from ml_platform.login.dagster_rules import MUTATIONS, of_document, of_request
from ml_platform.login.graphql_document import read_document
from ml_platform.login.roles import includes
from ml_platform.orchestration.webserver_roles import NEEDS, permissions_of


def test_every_mutation_of_the_installed_dagster_has_a_role_and_no_other():
    mutations = set(create_schema().graphql_schema.mutation_type.fields)
    assert mutations == set(MUTATIONS), "a new mutation needs a line in MUTATIONS, one that is gone loses its own"
    assert set(MUTATIONS.values()) <= set(ROLES)


def test_what_dagster_asks_a_permission_for_is_no_viewers():
    """`logTelemetry` and `setNuxSeen` alone ask for none and change nothing of the platform."""
    assert {name for name, role in MUTATIONS.items() if role == "viewer"} == {"logTelemetry", "setNuxSeen"}


def test_every_permission_of_the_installed_dagster_has_a_role():
    assert set(NEEDS) == set(Permissions)


@pytest.mark.parametrize("role", ROLES)
def test_the_page_offers_what_the_gateway_lets_through(role):
    """By the names of permissions and of the mutations that Dagster's resolvers ask for them."""
    pairs = {
        "launchRun": Permissions.LAUNCH_PIPELINE_EXECUTION,
        "launchRunReexecution": Permissions.LAUNCH_PIPELINE_REEXECUTION,
        "launchPartitionBackfill": Permissions.LAUNCH_PARTITION_BACKFILL,
        "cancelPartitionBackfill": Permissions.CANCEL_PARTITION_BACKFILL,
        "terminateRun": Permissions.TERMINATE_PIPELINE_EXECUTION,
        "scheduleDryRun": Permissions.SCHEDULE_DRY_RUN,
        "sensorDryRun": Permissions.SENSOR_DRY_RUN,
        "startSchedule": Permissions.START_SCHEDULE,
        "stopRunningSchedule": Permissions.STOP_RUNNING_SCHEDULE,
        "startSensor": Permissions.EDIT_SENSOR,
        "setSensorCursor": Permissions.UPDATE_SENSOR_CURSOR,
        "setAutoMaterializePaused": Permissions.TOGGLE_AUTO_MATERIALIZE,
        "addDynamicPartition": Permissions.EDIT_DYNAMIC_PARTITIONS,
        "reportRunlessAssetEvents": Permissions.REPORT_RUNLESS_ASSET_EVENTS,
        "refreshComponentState": Permissions.REFRESH_COMPONENT_STATE,
        "reloadRepositoryLocation": Permissions.RELOAD_REPOSITORY_LOCATION,
        "reloadWorkspace": Permissions.RELOAD_WORKSPACE,
        "deleteRun": Permissions.DELETE_PIPELINE_RUN,
        "wipeAssets": Permissions.WIPE_ASSETS,
        "setConcurrencyLimit": Permissions.EDIT_CONCURRENCY_LIMIT,
        "setAppManagedComponent": Permissions.EDIT_APP_MANAGED_COMPONENTS,
    }
    assert set(pairs.values()) == set(Permissions)
    usual = get_user_permissions(read_only=False)
    for mutation, permission in pairs.items():
        passes = includes(role, MUTATIONS[mutation])
        assert permissions_of(role)[permission].enabled == (passes and usual[permission].enabled), mutation


@pytest.mark.parametrize(
    ("document", "role"),
    [
        ("{ version }", "viewer"),
        (
            "query A { version } mutation B { deleteRun(runId: 1) { __typename } }",
            "admin",
        ),  # the name picks one of both
        ("mutation { harmless: deleteRun(runId: 1) { __typename } }", "admin"),
        ("mutation { logTelemetry(action: 1) { __typename } launchRun(x: 1) { __typename } }", "launcher"),
        (
            "mutation { ...A } fragment A on Mutation { ...B } fragment B on Mutation { wipeAssets(x: 1) { a } }",
            "admin",
        ),
        ("mutation { ... on Mutation { ... @include(if: true) { startSensor(x: 1) { a } } } }", "editor"),
        ("mutation { ...A } fragment A on Mutation { ...A launchRun(x: 1) { a } }", "launcher"),  # a circle
        ("mutation { deleteRun(runId: 1) @skip(if: true) { a } }", "admin"),
        ("mutation { noSuchThing }", "admin"),
        ("subscription { pipelineRunLogs(runId: 1) { __typename } }", "viewer"),
        ("# mutation\nquery { deleteRun: version }", "viewer"),
        ("mutation { __typename }", "viewer"),
    ],
)
def test_a_document_needs_the_highest_role_of_all_that_could_run(document, role):
    assert of_document(read_document(document)).role == role


def test_every_route_of_the_installed_webserver_is_judged():
    """Reading is a viewer's but for what shows files of the machine; POST goes to reports and GraphQL alone."""
    from dagster_webserver.webserver import DagsterWebserver

    class Routes(DagsterWebserver):
        def build_graphql_schema(self):
            return None

        def build_static_routes(self):
            return []

    routes = Routes(None).build_routes()
    posts = {route.path for route in routes if isinstance(route, Route) and route.methods and "POST" in route.methods}
    assert posts == {
        "/graphql",
        "/report_asset_materialization/{asset_key:path}",
        "/report_asset_check/{asset_key:path}",
        "/report_asset_observation/{asset_key:path}",
    }
    for path in posts - {"/graphql"}:
        assert of_request("POST", path.replace("{asset_key:path}", "raw/flights")).role == "editor"
    assert [route.path for route in routes if isinstance(route, WebSocketRoute)] == ["/graphql"]
    reads = {route.path for route in routes if isinstance(route, Route)} - posts
    asked = {path: path.replace("{run_id:str}", "1").replace("{path:path}", "a") for path in reads}
    assert {path: of_request("GET", example).role for path, example in asked.items()} == {
        "/server_info": "viewer",
        "/dagit_info": "viewer",
        "/logs/{path:path}": "viewer",
        "/notebook": "editor",
        "/dagit/notebook": "editor",
        "/download_debug/{run_id:str}": "editor",
        "/{path:path}": "viewer",
        "/": "viewer",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/", "/runs", "/report_asset_check", "/Report_Asset_Check/a", "/notebook", "/graphql/"]
)
def test_nobody_may_send_anything_else(method, path):
    assert of_request(method, path).role is None


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/GraphQL", "/graphql.", "/graphql./"])
def test_graphql_is_asked_by_post_alone(path):
    assert of_request("GET", path).role is None
