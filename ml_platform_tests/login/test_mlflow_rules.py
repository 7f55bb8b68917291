"""The table of MLflow's routes, held to all that the installed MLflow registers."""

import re

import pytest

from ml_platform.gateway_identity import ROLES
from ml_platform.login.mlflow_rules import is_uploaded, listed_role, of_request

READS = re.compile(r"/(search|get|list|batchGet|get-latest-versions|search-datasets)")


def registered_routes() -> list[tuple[str, str]]:
    """Each method and path that MLflow's server takes, with something in place of the parameters."""
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app

    routes = [
        (method, rule.rule)
        for rule in flask_app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    ]
    for included in app.routes:
        router = getattr(included, "original_router", None)
        if router is None:
            continue
        prefix = included.include_context.prefix
        routes += [(method, prefix + route.path) for route in router.routes for method in route.methods]
    routes += [(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()]
    return sorted({(method, re.sub(r"[<{][^>}]+[>}]", "x1", path)) for method, path in routes})


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    try:
        yield registered_routes()
    finally:
        patch.undo()


@pytest.mark.slow
def test_every_route_of_the_installed_mlflow_is_in_the_table(routes):
    assert len(routes) > 350
    unlisted = [(method, path) for method, path in routes if path != "/graphql" and listed_role(method, path) is None]
    assert not unlisted, "each needs a line in TABLE: without one it takes an admin"


@pytest.mark.slow
def test_a_viewer_changes_nothing(routes):
    """What a viewer may send by other methods than GET is named for reading, or is the page's own telemetry."""
    sent = {path for method, path in routes if method != "GET" and listed_role(method, path) == "viewer"}
    others = {re.sub(r"/(ajax-)?api/", "/", path) for path in sent if READS.search(path) is None}
    assert others == {
        "/2.0/mlflow/artifacts/presigned-download-url",
        "/3.0/mlflow/traces/calculate-filter-correlation",
        "/3.0/mlflow/traces/metrics",
        "/3.0/mlflow/ui-telemetry",
    }


@pytest.mark.slow
def test_what_spends_money_or_runs_programs_takes_an_admin(routes):
    guarded = re.compile(r"webhook|secret|assistant|/gateway/|invoke|gateway-proxy|workspaces$")
    for method, path in routes:
        if method != "GET" and guarded.search(path):
            assert listed_role(method, path) == "admin", (method, path)


@pytest.mark.slow
def test_both_spellings_of_the_api_are_one(routes):
    twins = [
        (method, path, "/ajax-api" + path.removeprefix("/api")) for method, path in routes if path.startswith("/api/")
    ]
    assert all(listed_role(method, path) == listed_role(method, twin) for method, path, twin in twins)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ajax-api/2.0/mlflow/runs/search/"),
        ("POST", "/AJAX-API/2.0/mlflow/runs/search"),
        ("POST", "/ajax-api/ajax-api/2.0/mlflow/runs/search"),
        ("POST", "/ajax-api/2.0/mlflow/Runs/search"),
        ("DELETE", "/ajax-api/2.0/mlflow/runs/search"),
        ("GET", "/no/such/page"),
    ],
)
def test_what_is_not_in_the_table_takes_an_admin(method, path):
    assert of_request(method, path).role == "admin"


@pytest.mark.slow
def test_every_role_of_the_table_is_one_and_files_of_others_are_known(routes):
    assert {listed_role(method, path) for method, path in routes} - {None} == set(ROLES)
    files = {path for method, path in routes if method == "GET" and is_uploaded(path)}
    assert {"/get-artifact", "/model-versions/get-artifact", "/api/2.0/mlflow-artifacts/artifacts/x1"} < files
    assert not is_uploaded("/ajax-api/2.0/mlflow/artifacts/list")
