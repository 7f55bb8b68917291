"""Which role each request to MLflow's server needs, by its method and route.

What is not in the table needs an admin; a test over all routes of the installed MLflow fails when one is not in it.
Routes are written once for `/api/` and `/ajax-api/`, which take the same requests.
"""

import re
from functools import cache
from typing import Final

from ml_platform.login.graphql_document import Document
from ml_platform.login.judgement import Judgement

PREFIX: Final = "/mlflow"
GRAPHQL: Final = "/graphql"
_API = re.compile(r"/(?:ajax-)?api(?=/)")
# `<x>` is one segment, `<x:path>` the rest; `|` separates methods. Read from the top: the first that fits counts.
TABLE: Final[dict[str, tuple[str, ...]]] = {
    "viewer": (
        "GET /", "GET /health", "GET /version", "GET /static-files/<f:path>", "GET /build/<f:path>",
        "GET /get-artifact", "GET /model-versions/get-artifact",
        "GET /API/3.0/mlflow/server-info", "GET|POST /API/3.0/mlflow/ui-telemetry",
        # experiments, runs, metrics
        "GET /API/2.0/mlflow/experiments/get", "GET /API/2.0/mlflow/experiments/get-by-name",
        "GET|POST /API/2.0/mlflow/experiments/search", "POST /API/2.0/mlflow/experiments/search-datasets",
        "POST /API/2.0mlflow/experiments/search-datasets",
        "GET /API/2.0/mlflow/runs/get", "POST /API/2.0/mlflow/runs/search",
        "GET /API/2.0/mlflow/metrics/get-history", "GET /API/2.0/mlflow/metrics/get-history-bulk",
        "GET /API/2.0/mlflow/metrics/get-history-bulk-interval",
        # artifacts
        "GET /API/2.0/mlflow/artifacts/list", "POST /API/2.0/mlflow/artifacts/presigned-download-url",
        "GET /API/2.0/mlflow-artifacts/artifacts", "GET /API/2.0/mlflow-artifacts/artifacts/<p:path>",
        "GET /API/2.0/mlflow-artifacts/presigned/<p:path>",
        # models
        "POST /API/2.0/mlflow/logged-models/search", "GET /API/2.0/mlflow/logged-models/<m>",
        "GET /API/2.0/mlflow/logged-models/<m>/artifacts/directories",
        "GET /API/2.0/mlflow/logged-models/<m>/artifacts/files",
        "GET /API/2.0/mlflow/model-versions/get", "GET /API/2.0/mlflow/model-versions/get-download-uri",
        "GET /API/2.0/mlflow/model-versions/search",
        "GET /API/2.0/mlflow/registered-models/alias", "GET /API/2.0/mlflow/registered-models/get",
        "GET|POST /API/2.0/mlflow/registered-models/get-latest-versions",
        "GET /API/2.0/mlflow/registered-models/search",
        # traces, data sets, issues, reviews
        "GET /API/2.0/mlflow/get-online-trace-details", "GET /API/<v>/mlflow/get-trace-artifact",
        "GET /API/2.0/mlflow/traces", "GET /API/2.0/mlflow/traces/<t>/info", "GET /API/2.0/mlflow/unified-traces",
        "GET /API/3.0/mlflow/traces/get", "GET /API/3.0/mlflow/traces/batchGet",
        "GET /API/3.0/mlflow/traces/<t>", "GET /API/3.0/mlflow/traces/<t>/assessments/<a>",
        "POST /API/3.0/mlflow/traces/batchGetInfos", "POST /API/3.0/mlflow/traces/calculate-filter-correlation",
        "POST /API/3.0/mlflow/traces/metrics", "POST /API/3.0/mlflow/traces/search",
        "GET /API/3.0/mlflow/datasets/<d>", "GET /API/3.0/mlflow/datasets/<d>/experiment-ids",
        "GET /API/3.0/mlflow/datasets/<d>/records", "GET|POST /API/3.0/mlflow/datasets/search",
        "GET /API/3.0/mlflow/issues/<i>", "POST /API/3.0/mlflow/issues/search",
        "GET /API/3.0/mlflow/label-schemas/<verb>", "GET /API/3.0/mlflow/review-queues/<verb>",
        "GET /API/3.0/mlflow/review-queues/items/list",
        "GET /API/3.0/mlflow/scorers/<verb>",
        "GET|POST /API/3.0/mlflow/prompt-optimization/jobs/search",
        "GET /API/3.0/mlflow/prompt-optimization/jobs/<j>",
        "GET /API/3.0/mlflow/jobs/<j>", "GET /API/3.0/jobs/<j>", "POST /API/3.0/jobs/search",
        "GET /API/3.0/mlflow/workspaces", "GET /API/3.0/mlflow/workspaces/<w>",
        "GET /API/3.0/mlflow/mcp-servers", "GET /API/3.0/mlflow/mcp-servers/<m:path>",
        # what models behind MLflow's own gateway there are
        "GET /gateway/mlflow/v1/models", "GET /API/3.0/mlflow/gateway/supported-models",
        "GET /API/3.0/mlflow/gateway/supported-providers", "GET /API/3.0/mlflow/gateway/provider-config",
        "GET /API/3.0/mlflow/gateway/endpoints/get", "GET /API/3.0/mlflow/gateway/endpoints/list",
        "GET /API/3.0/mlflow/gateway/endpoints/bindings/list",
        "GET /API/3.0/mlflow/gateway/model-definitions/get", "GET /API/3.0/mlflow/gateway/model-definitions/list",
    ),
    "launcher": (
        # to track a run is to launch one; what is deleted can be restored
        "POST /API/2.0/mlflow/experiments/create",
        "POST /API/2.0/mlflow/runs/create", "POST /API/2.0/mlflow/runs/update",
        "POST /API/2.0/mlflow/runs/log-batch", "POST /API/2.0/mlflow/runs/log-inputs",
        "POST /API/2.0/mlflow/runs/log-metric", "POST /API/2.0/mlflow/runs/log-model",
        "POST /API/2.0/mlflow/runs/log-parameter", "POST /API/2.0/mlflow/runs/outputs",
        "POST /API/2.0/mlflow/runs/set-tag", "POST /API/2.0/mlflow/runs/delete-tag",
        "POST /API/2.0/mlflow/artifacts/presigned-upload-url", "POST /API/2.0/mlflow/upload-artifact",
        "PUT /API/2.0/mlflow-artifacts/artifacts/<p:path>", "POST /API/2.0/mlflow-artifacts/mpu/<verb>/<p:path>",
        "POST /API/2.0/mlflow/logged-models", "PATCH /API/2.0/mlflow/logged-models/<m>",
        "POST /API/2.0/mlflow/logged-models/<m>/params", "PATCH /API/2.0/mlflow/logged-models/<m>/tags",
        "POST /v1/traces", "POST /API/<v>/mlflow/traces", "PATCH /API/2.0/mlflow/traces/<t>",
        "PATCH|DELETE /API/<v>/mlflow/traces/<t>/tags",
        "POST /API/2.0/mlflow/traces/link-prompts", "POST /API/2.0/mlflow/traces/link-to-run",
        "POST /API/3.0/mlflow/traces/<t>/assessments", "PATCH|DELETE /API/3.0/mlflow/traces/<t>/assessments/<a>",
        "POST /API/3.0/mlflow/issues", "PATCH /API/3.0/mlflow/issues/<i>",
        "POST /API/3.0/mlflow/review-queues/items/<verb>",
        "POST /API/3.0/mlflow/review-queues/get-or-create-user",
    ),
    "editor": (
        "POST /API/2.0/mlflow/experiments/<verb>", "POST /API/2.0/mlflow/runs/delete",
        "POST /API/2.0/mlflow/runs/restore", "POST /API/2.0/mlflow/runs/create-promptlab-run",
        "DELETE /API/2.0/mlflow-artifacts/artifacts/<p:path>",
        "DELETE /API/2.0/mlflow/logged-models/<m>", "DELETE /API/2.0/mlflow/logged-models/<m>/tags/<t>",
        "POST|PATCH|DELETE /API/2.0/mlflow/model-versions/<verb>",
        "POST|PATCH|DELETE /API/2.0/mlflow/registered-models/<verb>",
        "POST /API/<v>/mlflow/traces/delete-traces",
        "POST /API/3.0/mlflow/datasets/create", "DELETE /API/3.0/mlflow/datasets/<d>",
        "POST|DELETE /API/3.0/mlflow/datasets/<d>/records", "PATCH /API/3.0/mlflow/datasets/<d>/tags",
        "DELETE /API/3.0/mlflow/datasets/<d>/tags/<t>", "POST /API/3.0/mlflow/datasets/<d>/<verb>",
        "POST|PATCH|DELETE /API/3.0/mlflow/label-schemas/<verb>", "POST /API/3.0/mlflow/review-queues/<verb>",
        "POST /API/3.0/mlflow/scorers/register", "DELETE /API/3.0/mlflow/scorers/delete",
        "POST /API/3.0/mlflow/demo/<verb>",
        "POST|PATCH|DELETE /API/3.0/mlflow/mcp-servers", "POST|PATCH|DELETE /API/3.0/mlflow/mcp-servers/<m:path>",
    ),
    "admin": (
        # calls of other services at the platform's expense, their secrets, and what runs programs on the server
        "GET|POST /API/2.0/mlflow/gateway-proxy", "POST /gateway/<p:path>",
        "GET|POST|PATCH|DELETE /API/3.0/mlflow/gateway/<p:path>",
        "GET|POST /API/2.0/mlflow/webhooks", "GET|PATCH|DELETE /API/2.0/mlflow/webhooks/<w>",
        "POST /API/2.0/mlflow/webhooks/<w>/test",
        "GET|POST|PUT|PATCH /API/3.0/mlflow/assistant/<p:path>",
        "POST /API/3.0/jobs", "POST /API/3.0/jobs/", "PATCH /API/3.0/jobs/cancel/<j>",
        "PATCH /API/3.0/mlflow/jobs/cancel/<j>",
        "POST /API/3.0/mlflow/prompt-optimization/jobs", "DELETE /API/3.0/mlflow/prompt-optimization/jobs/<j>",
        "POST /API/3.0/mlflow/prompt-optimization/jobs/<j>/cancel",
        "PUT /API/3.0/mlflow/scorers/online-config", "POST /API/3.0/mlflow/scorer/invoke",
        "POST /API/3.0/mlflow/genai/evaluate/invoke", "POST /API/3.0/mlflow/issues/invoke",
        "POST /API/3.0/mlflow/workspaces", "PATCH|DELETE /API/3.0/mlflow/workspaces/<w>",
    ),
}  # fmt: skip
# Files that somebody has uploaded: shown in a browser, they must not act for whoever looks at them.
_ARTIFACTS = re.compile(
    r"/(?:model-versions/)?get-artifact|/API/2\.0/mlflow-artifacts/(?:artifacts|presigned)/.*|"
    r"/API/[23]\.0/mlflow/(?:get-trace-artifact|logged-models/[^/]+/artifacts/files)"
)


def of_request(method: str, path: str) -> Judgement:
    """What a request needs, by its method and its path behind the prefix; GraphQL's own by `of_document`.

    Examples
    --------
    >>> of_request("POST", "/ajax-api/2.0/mlflow/runs/search").role, of_request("DELETE", "/no/such/route").role
    ('viewer', 'admin')
    """
    action = f"{method} {path}"
    if path.rstrip("/.").lower() == GRAPHQL:
        return Judgement(None, action, reason="GraphQL is asked by POST with a JSON body at /mlflow/graphql")
    role = listed_role(method, path) or "admin"
    return Judgement(role, action, is_change=method not in {"GET", "HEAD"} and role != "viewer")


def of_document(document: Document) -> Judgement:
    """What a GraphQL request needs: MLflow's schema reads runs and models, and has no mutation but a test's."""
    action = ", ".join(sorted(document.mutations)) or "query"
    return Judgement("admin" if document.mutations else "viewer", action, is_change=bool(document.mutations))


def listed_role(method: str, path: str) -> str | None:
    """The role of a route of the table; None for one that is not in it."""
    wanted = "GET" if method == "HEAD" else method
    route = _API.sub("/API", path, count=1) if path.startswith(("/api/", "/ajax-api/")) else path
    for methods, pattern, role in _patterns():
        if wanted in methods and pattern.fullmatch(route):
            return role
    return None


def is_uploaded(path: str) -> bool:
    """Whether a path leads to a file that somebody has uploaded.

    Examples
    --------
    >>> is_uploaded("/get-artifact"), is_uploaded("/ajax-api/2.0/mlflow/runs/get")
    (True, False)
    """
    return _ARTIFACTS.fullmatch(_API.sub("/API", path, count=1)) is not None


@cache
def _patterns() -> tuple[tuple[frozenset[str], re.Pattern[str], str], ...]:
    patterns = []
    for role, routes in TABLE.items():
        for route in routes:
            methods, _, template = route.partition(" ")
            parts = re.split(r"<\w+(:path)?>", template)
            text = re.escape(parts[0])
            for rest, literal in zip(parts[1::2], parts[2::2], strict=True):
                text += (".+" if rest else "[^/]+") + re.escape(literal)
            patterns.append((frozenset(methods.split("|")), re.compile(text), role))
    return tuple(patterns)
