"""Versions over HTTP and in the console: what is recorded, what people say, and what they may not."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from ml_platform.governance.keys import KeyStore
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture
from ml_platform_tests.serving.conftest import bearer, start_server
from ml_platform_tests.serving.releases import MODEL, bundle, fill_online_store, publish

PATH = f"/models/{MODEL}/versions"


@pytest.fixture(scope="module")
def keys(module_settings: Settings) -> dict[str, str]:
    store = KeyStore(module_settings.keys_dir)
    return {
        role: store.create(f"{role} key", roles=[role], models=[MODEL])[1] for role in ("predict", "promote", "admin")
    }


@pytest.fixture(scope="module")
def client(module_settings: Settings, keys: dict[str, str]) -> Iterator[httpx.Client]:
    """A server with keys: version 1 serves, 2 and 3 are registered."""
    fill_online_store(module_settings)
    publish(module_settings, 1)
    store = ReleaseStore(module_settings.releases_dir)
    for version in (1, 2, 3):
        store.register_version(MODEL, version, store.put_bundle(bundle(version)))
    server = start_server(module_settings)
    server.client.headers.update(bearer(keys["admin"]))
    yield server.client
    server.stop()


def test_what_is_recorded_and_said(client: httpx.Client) -> None:
    said = {"comment": "odd on Sundays", "tags": {"risk": "low"}, "description": "New carriers."}
    answer = client.patch(f"{PATH}/2", json={**said, "stage": "Staging", "reason": "next week"})
    assert answer.status_code == 200, answer.text
    shown = client.get(f"{PATH}/2").json()
    assert shown == answer.json()
    assert (shown["tags"], shown["description"]) == ({"risk": "low"}, "New carriers.")
    assert [(one["number"], one["by"], one["text"]) for one in shown["comments"]] == [
        (1, "admin key", "odd on Sundays")
    ]
    assert {event["action"] for event in shown["said"]} == {"comment", "tag", "description", "stage"}
    listed = client.get(PATH).json()
    assert [(one["version"], one["stage"]) for one in listed["versions"]] == [
        (3, "Staging"), (2, "Staging"), (1, "Production")
    ]  # fmt: skip
    assert client.patch(f"/models/{MODEL}", json={"comment": "of all"}).json()["comments"][0]["text"] == "of all"
    assert client.get(PATH).json()["comments"][0]["text"] == "of all"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (f"{PATH}/1", {"stage": "Archived", "reason": "x"}, 422, "it answers requests of flight_delay"),
        (f"{PATH}/3", {"stage": "Production", "reason": "x"}, 422, "Production is what answers requests"),
        (f"{PATH}/3", {"stage": "Archived"}, 422, "a change wants a reason"),
        (
            f"{PATH}/3",
            {"stage": "Prod", "reason": "x"},
            422,
            "wanted Production, Staging, Archived, None, found 'Prod'",
        ),
        (f"{PATH}/3", {"comment": "x", "answers": 9}, 404, "there is no comment 9 to answer"),
        (f"{PATH}/3", {"comment": "x", "tags": {"stage": "y"}}, 422, "written by the platform"),
        (f"{PATH}/3", {"coment": "x"}, 422, "unknown field `coment`"),
        (f"{PATH}/9", {"comment": "x"}, 404, "no version 9 is registered; there are 1, 2, 3"),
        (f"{PATH}/x", {"comment": "x"}, 404, "a version is a number"),
    ],
)
def test_what_is_refused_changes_nothing(
    client: httpx.Client, path: str, body: dict[str, object], status: int, message: str
) -> None:
    before = client.get(f"{PATH}/3").json()["said"]
    answer = client.patch(path, json=body)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True), answer.text
    assert client.get(f"{PATH}/3").json()["said"] == before


def test_only_who_may_promote_may_say_something_and_no_form_of_another_page(
    client: httpx.Client, keys: dict[str, str]
) -> None:
    reader = bearer(keys["predict"])
    assert client.get(f"{PATH}/3", headers=reader).status_code == 200
    assert client.patch(f"{PATH}/3", json={"comment": "x"}, headers=reader).status_code == 403
    form = client.patch(f"{PATH}/3", content="comment=x", headers={"content-type": "application/x-www-form-urlencoded"})
    assert form.status_code == 415
    basic = httpx.patch(f"{client.base_url}{PATH}/3", json={"comment": "x"}, auth=("x", keys["promote"]))
    assert basic.status_code == 401  # what a browser sends along by itself does not count


def test_a_person_says_something_in_the_console(
    client: httpx.Client,
    keys: dict[str, str],
    browser: Browser,  # noqa: F811
) -> None:
    troubles: list[str] = []
    context = browser.new_context(http_credentials={"username": "x", "password": keys["admin"]})
    page = context.new_page()
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(f"{client.base_url}/models/{MODEL}/console/versions")
    page.get_by_label("Compare version 3").check()
    page.get_by_label("Compare version 1").check()
    page.get_by_role("button", name="Compare those chosen").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("flight_delay: versions 3, 1")
    expect(page.locator("main")).to_contain_text("ml-platform models compare flight_delay 3 1")
    page.get_by_role("link", name="Version 3").first.click()
    page.get_by_label("Comment", exact=True).fill("<b>seen</b>")
    page.get_by_label("Tag", exact=True).fill("team=ops")
    page.get_by_label("Stage", exact=True).select_option("Archived")
    page.get_by_label("Why this stage").fill("wrong prices")
    page.get_by_label("API key").fill(keys["promote"])
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".comment .text")).to_have_text("<b>seen</b>")
    expect(page.locator(".badge").first).to_have_text("Archived")
    page.get_by_label("Stage", exact=True).select_option("None")
    page.get_by_label("API key").fill(keys["promote"])
    page.get_by_role("button", name="Save").click()
    expect(page.locator("form.notes .answer")).to_contain_text("a change wants a reason")
    context.close()
    said = client.get(f"{PATH}/3").json()
    assert [one["by"] for one in said["comments"]] == ["promote key"]
    assert [one for one in troubles if "422" not in one] == []


def test_pages_of_what_is_not_there_say_so(client: httpx.Client) -> None:
    for path, message in (
        ("versions/9", "no version 9 is registered; there are 1, 2, 3"),
        ("versions?metric=nope", "no version has the metric 'nope'"),
        ("compare?version=1", "choose 2 to 8 versions of 1, 2, 3"),
        ("compare?version=1&version=9", "no version 9 is registered"),
    ):
        answer = client.get(f"/models/{MODEL}/console/{path}")
        assert (answer.status_code, message in answer.text) == (404, True), answer.text
