"""Requests made from the OpenAPI document, fit and unfit: none is a 5xx, and every answer is as the document says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from ml_platform.governance.keys import KeyStore
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.app import create_app
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.openapi.document import WrittenDocument
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.feature_services import SERVICE, fill, publish_service
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store, publish

# What a schema cannot say: that tensors and columns are of one length, and hold what the model takes; that a text is
# CSV and a file Parquet; which versions there are, that shares add up to 1, and which revision is current: a change
# that is based on another is refused before its body is read; which tags are the platform's own,
# and which stage a version may have; that an instant may be seconds since 1970, too.
CONFIG = """
[[operations]]
include-path-regex = "invocations$|infer$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404]

[[operations]]
include-path-regex = "^/models/"
include-method = ["PATCH"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 409, 422]

[[operations]]
include-path-regex = "^/endpoints/|^/api/"
include-method = ["PUT", "POST", "DELETE"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 409, 412, 422]
checks.negative_data_rejection.expected-statuses = [400, 404, 405, 409, 412, 415, 422, 428]
checks.missing_required_header.expected-statuses = [400, 401, 422, 428]

[[operations]]
include-path-regex = "^/audit/"
checks.negative_data_rejection.expected-statuses = [200, 405, 422]
"""
CHANGES = "^/api/2.0/serving-endpoints|^/endpoints/"
RECORD = "^/audit/"  # each answer of which takes a process of its own
# One of those that answer by the same code.
ALIKE = (
    r"^/invocations|^/serving-endpoints/|^/models/\{model\}/(ping|health|version)|versions/\{version\}/(infer|ready)"
)


def assert_keeps_its_contract(server: Server, folder: Path, *options: str) -> None:
    """Run schemathesis with all its checks; it leaves its own files in a folder."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    # The same requests each time. That few of what it draws fit a pattern, or that drawing takes long, is the
    # generator's trouble, not the server's.
    repeatable = ("--generation-deterministic", "--suppress-health-check", "filter_too_much,too_slow")
    document = f"{server.url}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", document, "--no-color", *repeatable, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "✅ Coverage" in done.stdout.replace("  ", " ")


FEW = ("--phases", "examples,coverage,fuzzing", "--max-examples", "3")


def test_a_few_requests_of_each_kind(server: Server, tmp_path: Path) -> None:
    assert_keeps_its_contract(server, tmp_path, *FEW, "--exclude-path-regex", f"{ALIKE}|{CHANGES}|{RECORD}")
    assert server.client.post(f"/predict/{MODEL}", json=ROW).status_code == 200


def test_a_few_changes_of_endpoints(settings: Settings, serve: Callable[..., Server], tmp_path: Path) -> None:
    """On a store of its own, since they leave nothing as it was."""
    fill_online_store(settings)
    publish(settings, 1)
    assert_keeps_its_contract(serve(settings), tmp_path, *FEW, "--include-path-regex", CHANGES)
    assert len(ReleaseStore(settings.releases_dir).history(MODEL)) > 1  # some did change something


def test_a_few_look_ups_of_views_and_a_service(
    settings: Settings, serve: Callable[..., Server], tmp_path: Path
) -> None:
    fill(settings)
    publish_service(settings)
    server = serve(settings)
    server.wait_until(lambda client: f"/features/{SERVICE}/lookup" in client.get("/openapi.json").json()["paths"])
    chosen = r"^/features|^/get-online-features|^/serving-endpoints/"
    assert_keeps_its_contract(server, tmp_path, *FEW, "--include-path-regex", chosen)
    assert 'feature_lookups_total{name="board",status="200"}' in server.client.get("/metrics").text


@pytest.mark.slow
def test_a_few_questions_to_the_record_of_reads(server: Server, tmp_path: Path) -> None:
    assert_keeps_its_contract(server, tmp_path, *FEW, "--include-path-regex", RECORD)


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with keys"])
@pytest.mark.parametrize(
    "chosen",
    [("--exclude-path-regex", f"{CHANGES}|{RECORD}"), ("--include-path-regex", CHANGES)],
    ids=["asks", "changes"],
)
def test_many_requests(
    settings: Settings, serve: Callable[..., Server], tmp_path: Path, chosen: tuple[str, str], guarded: bool
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    options = ["--max-examples", "60" if guarded else "120", *chosen]
    if guarded:  # the same routes, behind a door
        _, token = KeyStore(settings.keys_dir).create("fuzz", roles=["admin"])
        options += ["--header", f"Authorization: Bearer {token}"]
    assert_keeps_its_contract(serve(settings), tmp_path, *options)


PROBES = {"/health/live", "/health/ready", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}


def test_the_document_tells_of_keys_and_of_the_door(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "421" in operation["responses"]
            assert ("401" in operation["responses"]) is (path not in PROBES)
            assert "HTTPValidationError" not in str(operation)


def test_the_document_has_every_route(server: Server, settings: Settings) -> None:
    """All but pages and files, each in a group that the page names."""
    document = server.client.get("/openapi.json").json()
    groups = {tag["name"] for tag in document["tags"]}
    found = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert set(operation["tags"]) <= groups
            found.add((method.upper(), path.replace(f"/{MODEL}", "/{model}")))
    identities = [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    assert len(set(identities)) == len(identities)
    pages = {
        "/",
        "/docs",
        "/openapi.json",
        "/models/{model}/console",
        "/models/{model}/console/versions",
        "/models/{model}/console/versions/{version}",
        "/models/{model}/console/compare",
        "/models/{model}/versions/{version}/card",
        "/api/2.0/serving-endpoints/",
        "/features",
        "/features/{view}/console",
        "/models/{model}/console/page",
        "/catalogue",
        "/catalogue/{name}",
        "/cost/console",
        "/audit/console",
        "/lineage/console",
    }
    assert {(method, path) for method, path in routes(settings) if path not in pages} == found


def routes(settings: Settings) -> set[tuple[str, str]]:
    """Method and path template of every route of the app."""
    app = create_app(settings)
    return {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in set(route.methods or ()) - {"HEAD"}
    }


def test_the_examples_of_every_protocol_are_answered(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        if "post" not in operations or not path.startswith(("/invocations", "/models/", "/serving-endpoints/", "/v2/")):
            continue
        content = operations["post"]["requestBody"]["content"]["application/json"]
        examples = [one["value"] for one in content.get("examples", {}).values()] or [content["example"]]
        for example in examples:
            answer = server.client.post(path.format(served=f"{MODEL}-3", version=3), json=example)
            assert answer.status_code == 200, (path, answer.text)
            asked += 1
    assert asked == 4 * 4 + 2  # MLflow's formats at its four paths, and tensors at two


def test_an_endpoint_of_its_own_name_is_described_like_a_model(
    settings: Settings, serve: Callable[..., Server]
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = ReleaseStore(settings.releases_dir)
    store.register_version(MODEL, 2, store.put_bundle(bundle(2)))
    server = serve(settings)
    change = {"model": MODEL, "targets": [{"version": 2, "share": 1}], "reason": "trial"}
    assert server.client.put("/endpoints/trial", json=change, headers={"If-Match": "*"}).status_code == 200
    server.wait_until(lambda client: "/v2/models/trial/infer" in client.get("/openapi.json").text)
    found = server.client.get("/openapi.json").json()
    assert "/invocations" not in found["paths"]
    references = {text.split('"')[0] for text in json.dumps(found).split("#/components/schemas/")[1:]}
    assert references <= set(found["components"]["schemas"])


def test_the_document_is_written_again_only_after_a_change() -> None:
    state = ServingState({})
    document = WrittenDocument(FastAPI(), state)
    before = document.text()
    state.views = dict(state.views)  # replaced by its equal, as after each look at the online store
    assert document.text() is before
    state.slots = {"trial": EndpointState("trial", None)}
    assert document.text() is not before
