"""What describes the models: OpenAPI, the API page, the page for people, `/models`."""

import json
import os
import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from ml_platform.settings import Settings
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import HASHES, ROW, fill_online_store, publish


@pytest.fixture(scope="module")
def client(module_settings: Settings) -> Iterator[httpx.Client]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    server = start_server(module_settings)
    yield server.client
    server.stop()


def test_openapi_shows_the_models_fields_units_and_an_example_that_works(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/predict/flight_delay"]["post"]
    row = document["components"]["schemas"]["flight_delay_row"]
    assert row["properties"]["distance"] == {
        "type": "number",
        "format": "double",
        "description": "Flown. (mile)",
        "minimum": 0.0,
        "maximum": 6000.0,
        "x-unit": "mile",
        "examples": [1400],
    }
    assert row["properties"]["scheduled_departure"]["format"] == "date-time"
    assert row["properties"]["tailnum"]["type"] == ["string", "null"]
    assert "tailnum" not in row["required"]
    assert row["additionalProperties"] is False
    assert "| `distance` | number | mile | Flown; ≥ 0; ≤ 6000 |" in operation["description"]
    statuses = {"200", "400", "401", "403", "404", "408", "410", "413", "415", "421", "422", "429", "503"}
    assert set(operation["responses"]) == statuses
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        assert client.post("/predict/flight_delay", json=example["value"]).status_code == 200
    answer = document["components"]["schemas"]["flight_delay_answer"]
    assert answer["properties"]["predictions"]["items"]["properties"]["probability"]["maximum"] == 1
    assert {"/models", "/models/{model}", "/metrics", "/health/live", "/health/ready"} <= set(document["paths"])


def test_every_reference_in_the_openapi_document_is_there(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert references
    assert set(references) <= set(document["components"]["schemas"])


def test_no_page_can_be_framed_or_taken_for_another_kind(client: httpx.Client) -> None:
    pages = ("/", "/docs", "/models/flight_delay/console", "/openapi.json", "/docs/assets/swagger-ui-bundle.js")
    for path in pages:
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy, path
        assert "default-src 'none'" in policy, path
        assert "unsafe-eval" not in policy
        assert "script-src 'self' 'unsafe-inline'" not in policy


def test_swagger_ui_works_under_its_policy(client: httpx.Client, browser: Browser) -> None:  # noqa: F811
    troubles: list[str] = []

    def note(text: str, wrong: bool) -> None:
        if wrong:
            troubles.append(text)

    page = browser.new_page(base_url=str(client.base_url))
    page.on("console", lambda message: note(message.text, message.type in ("error", "warning")))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: note(request.url, str(client.base_url) not in request.url))
    page.goto("/docs")
    operation = page.locator("#operations-predict-predict_flight_delay, .opblock-post").first
    operation.locator(".opblock-summary").click()
    operation.locator("button.execute").click()
    expect(operation.locator(".live-responses-table td.response-col_status:not(.col_header)")).to_contain_text("200")
    if shots := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{shots}/docs.png")
    page.close()
    assert [one for one in troubles if not one.startswith("data:")] == []


def test_the_api_page_takes_its_scripts_from_this_server(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    sources = re.findall(r'(?:src|href)="(docs/[^"]+)"', page)
    assert len(sources) == 2
    for source in sources:
        assert client.get(f"/{source}").status_code == 200


def test_the_pages_for_people_name_model_version_and_a_call_that_works(client: httpx.Client) -> None:
    home = client.get("/").text
    assert 'href="models/flight_delay/console"' in home
    page = client.get("/models/flight_delay/console").text
    assert f"curl -s {client.base_url}/predict/flight_delay" in page
    for text in (home, page):
        sources = re.findall(r'(?:src|href)="([^"#]+)"', text)
        assert not [source for source in sources if "//" in source]
        assert sum("assets/" in source for source in sources) == 3
    for name in ("console.css", "console.js", "icon.svg"):
        assert client.get(f"/assets/{name}").status_code == 200


def test_models_tell_signature_provenance_metrics_revision_and_view_hashes(client: httpx.Client) -> None:
    [summary] = client.get("/models").json()["models"]
    assert (summary["name"], summary["status"], summary["predict"]) == (
        "flight_delay",
        "serving",
        "/predict/flight_delay",
    )
    detail = client.get("/models/flight_delay").json()
    assert [field["name"] for field in detail["inputs"]] == list(ROW)
    assert detail["metrics"] == {"roc_auc": 0.75}
    assert detail["provenance"]["tables"] == {"raw/flights": 3}
    assert detail["endpoint"]["revision"] == 1
    assert {lookup["view"]: lookup["view_hash"] for lookup in detail["lookups"]} == HASHES
    assert detail["features"][0]["name"] == "carrier"  # the most important


def test_before_a_release_the_documents_are_there_and_say_so(settings: Settings, serve: Callable[..., Server]) -> None:
    client = serve(settings).client
    assert "/predict/{model}" in client.get("/openapi.json").json()["paths"]
    assert client.get("/models").json() == {"models": [], "trouble": None}
    assert client.get("/health/live").json()["status"] == "live"
