"""The console's pages of feature views and services, in a browser."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from ml_platform.governance.keys import KeyStore
from ml_platform.settings import Settings
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.console.test_console import watched
from ml_platform_tests.serving.feature_services import (
    HASHES,
    ROTATION,
    SERVICE,
    WEATHER,
    board,
    fill,
    publish_service,
    write_view,
)

SCRIPT = "<script>document.title='run'</script>"
Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill(module_settings)
    publish_service(module_settings, board(description=f"For the board. {SCRIPT}", owner=f"team {SCRIPT}"))
    server = start_server(module_settings)
    yield server
    server.stop()


def test_the_list_leads_to_a_service_and_its_form_looks_up(browser: Browser, server: Server) -> None:  # noqa: F811
    with watched(browser, server) as page:
        page.goto("/")
        page.get_by_role("link", name="Features", exact=True).click()
        services, views = page.locator("#services"), page.locator("#views")
        expect(services.get_by_role("row")).to_have_count(2)
        expect(services).to_contain_text(SCRIPT)  # as text
        expect(views.get_by_role("row", name=WEATHER)).to_contain_text(HASHES[WEATHER][:12])
        expect(views.get_by_role("row", name=ROTATION)).to_contain_text("tailnum, day")
        services.get_by_role("link", name=SERVICE, exact=True).click()
        assert page.title() == f"{SERVICE} · ml_platform serving"
        page.get_by_label("origin").fill("EWR")
        page.get_by_label("aircraft").fill("N1")
        page.get_by_label("departure").fill("2013-07-05T12:00")
        page.get_by_label("distance").fill("200")
        with page.expect_response("**/lookup*") as answered:
            page.get_by_role("button", name="Look up").click()
        assert answered.value.request.post_data_json == {
            "origin": "EWR", "aircraft": "N1", "departure": "2013-07-05T12:00:00Z", "distance": 200,
        }  # fmt: skip
        place = page.locator("#answer")
        for words in ("39.5", "present", "300", answered.value.json()["request_id"]):
            expect(place).to_contain_text(words)


def test_a_view_says_why_there_is_no_value(browser: Browser, server: Server) -> None:  # noqa: F811
    with watched(browser, server) as page:
        page.goto(f"/features/{WEATHER}/console")
        for key, status in (("JFK", "expired"), ("XXX", "unknown"), ("", "null")):
            page.get_by_label("origin").fill(key)
            page.get_by_role("button", name="Look up").click()
            expect(page.locator("#answer")).to_contain_text(status)
    with watched(browser, server, status=422) as page:
        page.goto(f"/features/{ROTATION}/console")
        page.get_by_label("tailnum").fill("N1")
        page.get_by_label("day").fill("99999999999999999999")
        page.get_by_role("button", name="Look up").click()
        expect(page.get_by_text("wanted an integer of 64 bits").first).to_be_visible()


@pytest.mark.parametrize("path", ["/features", f"/features/{SERVICE}/console", f"/features/{WEATHER}/console"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, server: Server, path: str, scheme: str) -> None:  # noqa: F811
    with watched(browser, server, viewport={"width": 360, "height": 800}, color_scheme=scheme) as page:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_not_served_is_told_and_a_key_sees_its_own(
    settings: Settings,
    serve: Serve,
    browser: Browser,  # noqa: F811
) -> None:
    at = fill(settings)
    publish_service(settings, board(pinned=True))
    _, token = KeyStore(settings.keys_dir).create("view", roles=["predict"], models=[f"features/{WEATHER}"])
    _, whole = KeyStore(settings.keys_dir).create("all", roles=["predict"])
    write_view(settings, WEATHER, [{"origin": "EWR", "temp": 1.0, "visib": 2.0, "event_time": at}], view_hash="9" * 64)
    server = serve(settings)
    own = server.client.get("/features", headers={"Authorization": f"Bearer {token}"}).text
    assert (WEATHER in own, ROTATION in own, f">{SERVICE}<" in own) == (True, False, False)
    page = server.client.get("/features", headers={"Authorization": f"Bearer {whole}"}).text
    assert "not served" in page
    assert "is pinned to 111111111111" in page
    other = server.client.get(f"/features/{ROTATION}/console", headers={"Authorization": f"Bearer {token}"})
    assert other.status_code == 403
