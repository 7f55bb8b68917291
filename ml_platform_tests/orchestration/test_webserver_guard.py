"""What the guard before Dagster's webserver lets through, request by request; a browser tries it in test_webserver."""

from typing import Any

import pytest

from ml_platform.orchestration.webserver_guard import Guard, own_hosts

HOST = {"host": "localhost:3000"}
JSON = {"content-type": "application/json"}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The webserver behind the guard, which is not asked here."""


def status(method: str = "GET", path: str = "/", kind: str = "http", headers: dict | list | None = None) -> int | None:
    """The status of the refusal, None when the request is passed on."""
    pairs = (
        list({**HOST, **headers}.items())
        if isinstance(headers, dict)
        else headers
        if headers is not None
        else [*HOST.items()]
    )
    scope = {
        "type": kind,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
        **({"method": method} if kind == "http" else {}),
    }
    refusal = Guard(nothing, own_hosts(3000, "dagster.example.com")).judge(scope)
    return refusal.status if refusal else None


@pytest.mark.parametrize(
    "host", ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "LOCALHOST:3000", "dagster.example.com"]
)
def test_the_servers_own_names_are_known(host):
    assert status(headers={"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "localhost",
        "localhost:3001",
        "127.0.0.1.evil.example:3000",
        "localhost.:3000",
        "",
    ],
)
def test_foreign_names_are_refused(host):
    assert status(headers={"host": host}) == 403
    assert status(kind="websocket", path="/graphql", headers={"host": host}) == 403


def test_a_request_without_or_with_two_names_is_refused():
    assert status(headers=[]) == 403
    assert status(headers=[("host", "localhost:3000"), ("host", "evil.example")]) == 403


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ("http://localhost:3000", None),
        ("https://localhost:3000", None),  # behind a proxy that ends TLS
        ("http://localhost:8000", 403),
        ("http://127.0.0.1:3000", 403),  # another origin than the Host's, even if it is ours too
        ("http://evil.example", 403),
        ("http://localhost:3000.evil.example", 403),
        ("http://evil@localhost:3000", 403),
        ("file://localhost:3000", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_the_page_that_asks_must_be_the_servers_own(origin, wanted):
    assert status("POST", "/graphql", headers={**JSON, "origin": origin}) == wanted
    assert status(kind="websocket", path="/graphql", headers={"origin": origin}) == wanted


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
def test_what_a_page_of_another_site_embeds_or_fetches_is_refused(site):
    """Another port of this machine is the same site: the browser says `same-site` for it."""
    image = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    frame = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    form = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert status(headers=image) == 403
    assert status(headers=frame) == 403
    assert status("POST", "/graphql", headers={**form, **JSON}) == 403
    assert status(kind="websocket", headers={"sec-fetch-site": site}) == 403


def test_a_link_to_the_ui_may_be_followed_from_anywhere():
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert status(headers=link, path="/runs/1") is None
    assert status(headers=link, path="/graphql") == 405


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/prefix/graphql"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_graphql_is_asked_by_post_alone(path, method):
    assert status(method, path, headers=JSON) == 405
    assert status("POST", path, headers=JSON) is None


@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/x", "/report_asset_check/x"])
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "text/plain; application/json",  # Dagster looks for the words anywhere
        "application/jsonp",
        "",
    ],
)
def test_only_json_may_change_anything(path, content_type):
    """The other types are what a form or a fetch of another site can send without the browser asking first."""
    assert status("POST", path, headers={"content-type": content_type}) == 415
    assert status("POST", path) == 415
    assert status("POST", path, headers={"content-type": "Application/JSON; charset=utf-8"}) is None


def test_programs_send_no_origin_and_are_let_through():
    assert status("POST", "/graphql", headers=JSON) is None
    assert status(kind="websocket", path="/graphql") is None
